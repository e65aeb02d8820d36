import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import type { Errno } from '../../src/base/errno.ts';
import { KeyError } from '../../src/base/error.ts';
import { fromHex, toHex } from '../../src/wire/bytes.ts';
import {
  decode,
  decodeHeader,
  encode,
  errorReply,
  MESSAGE_LEN_MAX,
  messageLength,
} from '../../src/wire/pfkey.ts';
import { checkRequest } from '../../src/wire/pfkey-check.ts';
import type { Dialect, Extension, Message } from '../../src/wire/pfkey-message.ts';
import { message } from './pfkey-arbitrary.ts';

const DIALECTS: readonly Dialect[] = ['linux', 'bsd'];

const plain: Message = {
  type: 'ADD',
  errno: 0,
  satype: 'esp',
  seq: 7,
  pid: 42,
  reserved: 0,
  extensions: [],
};

const v4 = { proto: 6, prefixLen: 24, address: address('192.0.2.0'), port: 443, scopeId: 0 };
const v6 = { proto: 6, prefixLen: 64, address: address('2001:db8::'), port: 443, scopeId: 3 };

function errnoOf(act: () => unknown): Errno | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    if (error instanceof KeyError) return error.errno;
    throw error;
  }
}

/** A header, then these octets, with the length filled in. */
function raw(hexBody: string, over: { version?: number; type?: number; satype?: number } = {}) {
  const body = fromHex(hexBody);
  const p = new Uint8Array(16 + body.length);
  p.set([over.version ?? 2, over.type ?? 3, 0, over.satype ?? 3, p.length / 8]);
  p.set(body, 16);
  return p;
}

describe('round trip', () => {
  for (const dialect of DIALECTS) {
    test(`decode(encode(x)) is x: ${dialect}`, () => {
      fc.assert(
        fc.property(message(dialect), (one) => {
          const octets = encode(one, dialect);
          expect(octets.length).toBe(messageLength(octets));
          expect(decode(octets, dialect)).toEqual(one);
        }),
        { numRuns: 400 },
      );
    });
  }

  test('a wrapped message of promiscuous mode', () => {
    const inner = encode({ ...plain, extensions: [{ type: 'ADDRESS_SRC', ...v6 }] }, 'linux');
    const outer: Message = { ...plain, type: 'X_PROMISC', satype: 'unspec', wrapped: inner };
    const octets = encode(outer, 'linux');
    expect(octets.length).toBe(16 + inner.length);
    expect(decode(octets, 'linux')).toEqual(outer);
  });

  test('limits of 64 bits do not wrap', () => {
    const octets = raw(`0400030000000000${'ff'.repeat(24)}`);
    const [hard] = decode(octets, 'linux').extensions;
    expect(hard).toMatchObject({ bytes: Number.MAX_SAFE_INTEGER });
    expect(toHex(encode(decode(octets, 'linux'), 'linux'), 24, 32)).toBe('ffffffffffff1f00');
  });
});

describe('octets of a dialect', () => {
  const rows: readonly (readonly [Dialect, Extension, string])[] = [
    [
      'linux',
      { type: 'ADDRESS_SRC', ...v4 },
      '030005000618000002' + '0001bbc00002000000000000000000',
    ],
    [
      'bsd',
      { type: 'ADDRESS_SRC', ...v4 },
      '030005000618000010' + '0201bbc00002000000000000000000',
    ],
    [
      'linux',
      { type: 'ADDRESS_DST', ...v6 },
      '05000600064000000a0001bb0000000020010db80000000000000000000000000300000000000000',
    ],
    [
      'bsd',
      { type: 'ADDRESS_DST', ...v6 },
      '05000600064000001c1c01bb0000000020010db80000000000000000000000000300000000000000',
    ],
    ['bsd', { type: 'X_SA_REPLAY', packets: 1024 }, '01001a0000040000'],
    ['bsd', { type: 'X_NAT_T_FRAG', fragmentLen: 552 }, '0100190028020000'],
    [
      'linux',
      { type: 'X_SEC_CTX', algorithm: 1, doi: 2, context: fromHex('6162') },
      '02001800010202006162000000000000',
    ],
    [
      'linux',
      { type: 'X_TESTUDO', replayPackets: 4096, ahAlign: 8, df: 'copy', ecn: 'allowed' },
      '02004000001000000008030200000000',
    ],
    [
      'linux',
      policy(),
      '0400120002000200' + '0000000000000000' + '1000320001030000' + '0140000000000000',
    ],
    ['bsd', policy(), '0300120002000200' + '0000000000000000' + '0800320001030140'],
  ];
  for (const [dialect, extension, hex] of rows) {
    test(`${dialect} ${extension.type}`, () => {
      expect(toHex(encode({ ...plain, extensions: [extension] }, dialect), 16)).toBe(hex);
    });
  }

  function policy(): Extension {
    const request = { proto: 50, mode: 1, level: 3, reqid: 0x4001 };
    const head = { policyType: 2, direction: 2, reserved: 0, id: 0, priority: 0 };
    return { type: 'X_POLICY', ...head, requests: [request] };
  }
});

describe('what is refused', () => {
  const rows: readonly (readonly [string, Uint8Array, Errno])[] = [
    ['nothing at all', new Uint8Array(0), 'EINVAL'],
    ['15 octets', raw('').subarray(0, 15), 'EINVAL'],
    ['a length that is too long', raw('00'.repeat(8)).subarray(0, 16), 'EINVAL'],
    ['version 1', raw('', { version: 1 }), 'EINVAL'],
    ['type 0', raw('', { type: 0 }), 'EINVAL'],
    ['type 25', raw('', { type: 25 }), 'EINVAL'],
    ['SA type 4', raw('', { satype: 4 }), 'EINVAL'],
    ['an extension of length 0', raw('0000010000000000'), 'EINVAL'],
    ['an extension past the end', raw('0300010000000000'), 'EINVAL'],
    ['SA of 8 octets', raw('0100010000000000'), 'EINVAL'],
    ['extension 0', raw('0100000000000000'), 'EINVAL'],
    ['extension 27 on Linux', raw('01001b0000000000'), 'EINVAL'],
    ['NAT_T_TYPE twice', raw('01001400020000000100140002000000'), 'EINVAL'],
    ['AppleTalk', raw(`03000500ff20000005000000${'00'.repeat(12)}`), 'EAFNOSUPPORT'],
    ['IPv6 in 24 octets', raw(`03000500ff2000000a000000${'00'.repeat(12)}`), 'EINVAL'],
    ['prefix length 33', raw(`03000500ff21000002000000${'00'.repeat(12)}`), 'EINVAL'],
    ['a key longer than its extension', raw(`0200080041000000${'00'.repeat(8)}`), 'EINVAL'],
    ['SUPPORTED with a half entry', raw(`02000d00${'00'.repeat(12)}`), 'EINVAL'],
    ['a context longer than its extension', raw(`0200180001010900${'00'.repeat(8)}`), 'EINVAL'],
    ['a request of 8 octets on Linux', policyRaw(`0800320001020000${'00'.repeat(8)}`), 'EINVAL'],
    ['a request longer than the policy', policyRaw(`2000320001020000${'00'.repeat(8)}`), 'EINVAL'],
    ['octets after the last request', policyRaw('00'.repeat(8)), 'EINVAL'],
    [
      'a request with half a sockaddr',
      policyRaw(`1800320002020000${'00'.repeat(8)}0200`, 24),
      'EINVAL',
    ],
    [
      'a request between families',
      policyRaw(`3c00320002020000${'00'.repeat(8)}0200${'00'.repeat(14)}0a00`, 64),
      'EINVAL',
    ],
    ['X_TESTUDO with alignment 5', raw('02004000000000000005000000000000'), 'EINVAL'],
    ['X_TESTUDO with DF 4', raw('02004000000000000000040000000000'), 'EINVAL'],
    ['X_TESTUDO with ECN 3', raw('02004000000000000000000300000000'), 'EINVAL'],
  ];
  for (const [name, octets, errno] of rows) {
    test(name, () => expect(errnoOf(() => decode(octets, 'linux'))).toBe(errno));
  }

  test('bsd: sa_len that does not fit the family', () => {
    const octets = raw(`03000500ff2000001c02${'00'.repeat(14)}`);
    expect(errnoOf(() => decode(octets, 'bsd'))).toBe('EINVAL');
  });

  test('bsd: a reqid above 16 bits is not cut', () => {
    const request = { proto: 50, mode: 1, level: 3, reqid: 0x10001 };
    const head = { policyType: 2, direction: 2, reserved: 0, id: 0, priority: 0 };
    const one: Message = {
      ...plain,
      extensions: [{ type: 'X_POLICY', ...head, requests: [request] }],
    };
    expect(errnoOf(() => encode(one, 'bsd'))).toBe('EINVAL');
    expect(errnoOf(() => encode(one, 'linux'))).toBeUndefined();
  });

  test('an extension without a number in the dialect', () => {
    const one: Message = { ...plain, extensions: [{ type: 'X_SA_REPLAY', packets: 1 }] };
    expect(errnoOf(() => encode(one, 'linux'))).toBe('EINVAL');
  });

  test('a message longer than its length field', () => {
    const algorithm = { id: 1, ivLen: 0, minBits: 0, maxBits: 0 };
    const algorithms = Array.from({ length: 40_000 }, () => algorithm);
    const extensions: Extension[] = [
      { type: 'SUPPORTED_AUTH', algorithms },
      { type: 'SUPPORTED_ENCRYPT', algorithms },
    ];
    expect(MESSAGE_LEN_MAX).toBe(524_280);
    expect(errnoOf(() => encode({ ...plain, extensions }, 'linux'))).toBe('E2BIG');
  });

  /** A policy extension around one request, padded to `len` octets of request when given. */
  function policyRaw(request: string, len?: number): Uint8Array {
    const body = request.padEnd(2 * (len ?? request.length / 2), '0');
    const units = (16 + body.length / 2) / 8;
    return raw(`${units.toString(16).padStart(2, '0')}00120002000200${'00'.repeat(8)}${body}`);
  }
});

describe('framing', () => {
  test('waits for a header, then tells the length', () => {
    const octets = encode({ ...plain, extensions: [{ type: 'ADDRESS_SRC', ...v4 }] }, 'linux');
    expect(messageLength(octets.subarray(0, 15))).toBeUndefined();
    expect(messageLength(octets.subarray(0, 16))).toBe(40);
    const two = new Uint8Array(80);
    two.set(octets);
    two.set(encode(plain, 'linux'), 40);
    expect(messageLength(two, 40)).toBe(16);
  });

  test('refuses a length that would never move on', () => {
    expect(errnoOf(() => messageLength(new Uint8Array(16)))).toBe('EINVAL');
  });

  test('an error reply keeps header and drops the body, keys included', () => {
    const request = raw('0200080040000000a1a2a3a4a5a6a7a8', { type: 77 });
    const reply = errorReply(request, 22);
    expect(reply.length).toBe(16);
    expect(decodeHeader(reply)).toMatchObject({ typeNumber: 77, type: undefined, errno: 22 });
    expect(messageLength(reply)).toBe(16);
  });
});

describe('fuzz', () => {
  for (const dialect of DIALECTS) {
    test(`random octets throw nothing but KeyError: ${dialect}`, () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 200 }), (octets) => {
          errnoOf(() => decode(octets, dialect));
          if (octets.length >= 16) decodeHeader(errorReply(octets, 22));
        }),
        { numRuns: 300 },
      );
    });

    test(`mutated messages throw nothing but KeyError: ${dialect}`, () => {
      const change = fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }));
      fc.assert(
        fc.property(message(dialect), fc.array(change, { maxLength: 4 }), (one, changes) => {
          const octets = encode(one, dialect);
          for (const [at, value] of changes) octets[at % octets.length] = value;
          errnoOf(() => {
            const back = decode(octets, dialect);
            expect(decode(encode(back, dialect), dialect)).toEqual(back);
          });
        }),
        { numRuns: 500 },
      );
    });
  }
});

describe('requests', () => {
  const src: Extension = { type: 'ADDRESS_SRC', ...v4 };
  const rows: readonly (readonly [string, Partial<Message>, Errno | undefined])[] = [
    ['ADD esp', {}, undefined],
    ['ADD without an SA type', { satype: 'unspec' }, 'EINVAL'],
    ['ADD ospfv2', { satype: 'ospfv2' }, 'EOPNOTSUPP'],
    ['FLUSH of all types', { type: 'FLUSH', satype: 'unspec' }, undefined],
    ['FLUSH promisc', { type: 'FLUSH', satype: 'promisc' }, 'EINVAL'],
    ['X_PROMISC on', { type: 'X_PROMISC', satype: 'promisc' }, undefined],
    ['X_SPDADD esp', { type: 'X_SPDADD' }, 'EINVAL'],
    ['X_SPDADD', { type: 'X_SPDADD', satype: 'unspec' }, undefined],
    ['families', { extensions: [src, { type: 'ADDRESS_DST', ...v6 }] }, 'EINVAL'],
    ['protocols', { extensions: [src, { type: 'ADDRESS_DST', ...v4, proto: 17 }] }, 'EINVAL'],
    ['a pair', { extensions: [src, { type: 'ADDRESS_DST', ...v4 }] }, undefined],
  ];
  for (const [name, over, errno] of rows) {
    test(name, () => expect(errnoOf(() => checkRequest({ ...plain, ...over }))).toBe(errno));
  }
});
