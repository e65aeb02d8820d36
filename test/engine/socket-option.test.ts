import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { KeyError } from '../../src/base/error.ts';
import {
  askedDirection,
  type OptionContext,
  readSocketOption,
  socketOptionText,
  writeSocketOption,
} from '../../src/engine/socket-option.ts';
import { policyToBytes } from '../../src/spd/set-policy.ts';
import { fromHex, toHex } from '../../src/wire/bytes.ts';
import { h16 } from '../../src/wire/pfkey-bytes.ts';
import { decodeExtension } from '../../src/wire/pfkey-decode.ts';
import type { Dialect, PolicyExtension } from '../../src/wire/pfkey-message.ts';
import { POLICY_TYPE } from '../../src/wire/pfkey-table.ts';
import { vectorFile } from '../files.ts';
import { concat, hex } from '../wire/octets.ts';

function context(dialect: Dialect = 'linux'): OptionContext {
  let next = 0x4000;
  return { dialect, reqid: () => next++ };
}

/** As ipsec_set_policy(3) makes them. */
function bytesOf(text: string, dialect: Dialect = 'linux'): Uint8Array {
  return policyToBytes(text, dialect);
}

/** The X_POLICY of a PF_KEY message, as it is. */
function policyIn(message: Uint8Array): Uint8Array | undefined {
  for (let at = 16; at < message.length; ) {
    const len = 8 * h16(message, at);
    if (h16(message, at + 2) === 18) return message.slice(at, at + len);
    at += len;
  }
  return undefined;
}

function errnoOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof KeyError) return error.errno;
    throw error;
  }
  return 'none';
}

describe('what is set is what is got', () => {
  test.each([
    'in entrust',
    'out bypass',
    'out ipsec esp/transport//require',
    'in ipsec ah/transport/10.0.0.1-10.0.0.2/use esp/tunnel/::1-::2/require',
    'out prio high + 5 ipsec esp/tunnel/192.0.2.1[4500]-192.0.2.2[4500]/unique:77',
  ])('%s', (text) => {
    for (const dialect of ['linux', 'bsd'] as const) {
      const bytes = bytesOf(text, dialect);
      const { direction, rule } = readSocketOption(bytes, context(dialect));
      expect(direction).toBe(text.startsWith('in') ? 'in' : 'out');
      expect(toHex(writeSocketOption(rule, dialect))).toBe(toHex(bytes));
      // The text asks for the same.
      expect(readSocketOption(text, context(dialect))).toEqual({ direction, rule });
    }
  });

  test('a unique request without a reqid gets one, which getsockopt tells', () => {
    const text = 'out ipsec esp/transport//unique ah/transport//unique:5 esp/transport//unique';
    const { rule } = readSocketOption(bytesOf(text), context());
    expect(rule.requests.map(({ reqid }) => reqid)).toEqual([0x4000, 5, 0x4001]);
    expect(socketOptionText(rule)).toBe(
      'out prio def ipsec\n\tesp/transport//unique#16384\n\tah/transport//unique:5' +
        '\n\tesp/transport//unique#16385',
    );
    // What was got can be set again.
    const again = readSocketOption(writeSocketOption(rule, 'linux'), context());
    expect(again.rule).toEqual(rule);
  });

  test('every body that the real setkey made, if its type is one of sockets', () => {
    const { vectors } = JSON.parse(readFileSync(vectorFile('setkey.json'), 'utf8')) as {
      vectors: readonly { messages: readonly string[] }[];
    };
    const counts = { ok: 0, EINVAL: 0, EPROTONOSUPPORT: 0 };
    for (const message of vectors.flatMap(({ messages }) => messages)) {
      const bytes = policyIn(fromHex(message));
      if (bytes === undefined) continue;
      const policy = decodeExtension('X_POLICY', bytes, 'linux') as PolicyExtension;
      const isIpcomp = policy.requests.some(({ proto }) => proto === 108);
      const { policyType, requests } = policy;
      const isPlain = policyType === POLICY_TYPE.bypass || policyType === POLICY_TYPE.entrust;
      const isSocket = isPlain || (policyType === POLICY_TYPE.ipsec && requests.length > 0);
      const expected =
        policy.direction > 2 || !isSocket ? 'EINVAL' : isIpcomp ? 'EPROTONOSUPPORT' : 'ok';
      if (expected === 'ok') {
        const { rule } = readSocketOption(bytes, context());
        const given = policy.requests.some(({ level, reqid }) => level === 3 && reqid === 0);
        if (!given) expect(toHex(writeSocketOption(rule, 'linux'))).toBe(toHex(bytes));
      } else {
        expect(errnoOf(() => readSocketOption(bytes, context()))).toBe(expected);
      }
      counts[expected]++;
    }
    expect(counts.ok).toBeGreaterThan(20);
    expect(counts.EINVAL).toBeGreaterThan(20);
    expect(counts.EPROTONOSUPPORT).toBeGreaterThan(0);
  });
});

describe('what is refused', () => {
  const HEAD = '0200 1200 0300 01 00 00000000 00000000';
  test.each([
    ['nothing', '', 'EINVAL'],
    ['less than a policy', HEAD.slice(0, -3), 'EINVAL'],
    ['more than its length says', `${HEAD} 0000000000000000`, 'EINVAL'],
    ['less than its length says', HEAD.replace('0200', '0300'), 'EINVAL'],
    ['no direction', HEAD.replace(' 01 ', ' 00 '), 'EINVAL'],
    ['forwarding', HEAD.replace(' 01 ', ' 03 '), 'EINVAL'],
    ['discard', HEAD.replace('0300', '0000'), 'EINVAL'],
    ['none', HEAD.replace('0300', '0100'), 'EINVAL'],
    ['a type that is none', HEAD.replace('0300', '0500'), 'EINVAL'],
    ['ipsec without requests', HEAD.replace('0300', '0200'), 'EINVAL'],
  ])('%s', (_, bytes, errno) => {
    expect(errnoOf(() => readSocketOption(hex(HEAD), context()))).toBe('none');
    expect(errnoOf(() => readSocketOption(hex(bytes), context()))).toBe(errno);
  });

  /** A policy of one request with these fields. */
  function request(len: string, proto: string, mode: string, level: string, rest = ''): Uint8Array {
    const body = hex(`${len} ${proto} ${mode} ${level} 0000 00000000 00000000 ${rest}`);
    const padded = concat(body, new Uint8Array(-body.length & 7));
    return concat(hex('0000 1200 0200 01 00 00000000 00000000'), padded).map((octet, i) =>
      i === 0 ? 2 + padded.length / 8 : octet,
    );
  }

  test.each([
    ['ESP', request('1000', '3200', '01', '02'), 'none'],
    ['a request that is too short', request('0700', '3200', '01', '02'), 'EINVAL'],
    ['a request that is too long', request('1800', '3200', '01', '02'), 'EINVAL'],
    ['IPComp', request('1000', '6c00', '01', '02'), 'EPROTONOSUPPORT'],
    ['TCP', request('1000', '0600', '01', '02'), 'EPROTONOSUPPORT'],
    ['no mode', request('1000', '3200', '00', '02'), 'EINVAL'],
    ['a mode that is none', request('1000', '3200', '03', '02'), 'EINVAL'],
    ['a level that is none', request('1000', '3200', '01', '04'), 'EINVAL'],
    ['one end only', request('2000', '3200', '02', '02', `0200${'00'.repeat(14)}`), 'EINVAL'],
  ])('%s', (_, bytes, errno) => {
    expect(errnoOf(() => readSocketOption(bytes, context()))).toBe(errno);
  });

  test('more requests than anybody needs, or a page has room for', () => {
    const many = (count: number) => `out ipsec ${'esp/transport//use '.repeat(count)}`;
    expect(errnoOf(() => readSocketOption(many(16), context()))).toBe('none');
    expect(errnoOf(() => readSocketOption(many(17), context()))).toBe('ELOOP');
    const page = concat(hex('0102 1200 0200 02 00 00000000 00000000'), new Uint8Array(4088));
    expect(errnoOf(() => readSocketOption(page, context()))).toBe('EINVAL');
  });

  test('no octets make it throw anything else', () => {
    const head = fc.constantFrom('02001200', '03001200', '04001200', '08001200', 'ffff1200');
    const body = fc.uint8Array({ minLength: 4, maxLength: 60 });
    fc.assert(
      fc.property(head, body, fc.constantFrom<Dialect>('linux', 'bsd'), (start, rest, dialect) => {
        errnoOf(() => readSocketOption(concat(fromHex(start), rest), context(dialect)));
        errnoOf(() => askedDirection(rest));
      }),
    );
  });
});

test('the extension type is not looked at: OpenIKED writes that of another', () => {
  const bypass = hex('0200 0c00 0400 02 00 00000000 00000000');
  expect(readSocketOption(bypass, context())).toMatchObject({
    ...{ direction: 'out', rule: { type: 'bypass' } },
  });
});

test('getsockopt is asked for a direction by what is in the buffer', () => {
  expect(askedDirection(bytesOf('out bypass'))).toBe('out');
  expect(askedDirection(concat(bytesOf('in bypass'), new Uint8Array(100)))).toBe('in');
  for (const bad of [new Uint8Array(15), new Uint8Array(16), bytesOf('fwd bypass')]) {
    expect(errnoOf(() => askedDirection(bad))).toBe('EINVAL');
  }
});

test('the BSD dialect has no room for large reqids', () => {
  const { rule } = readSocketOption('out ipsec esp/transport//unique:70000', context());
  expect(errnoOf(() => writeSocketOption(rule, 'bsd'))).toBe('EINVAL');
});
