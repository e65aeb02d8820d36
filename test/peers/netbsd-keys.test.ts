import { describe, expect, test } from 'vitest';
import { ERRNO } from '../../src/base/errno.ts';
import { SetkeyError } from '../../src/setkey/place.ts';
import type { Message } from '../../src/wire/pfkey-message.ts';
import { AH, algorithmArgs, ESP, plainName, type Row, refusalOf } from './netbsd-algorithms.ts';
import { Bus, messagesOf, type Node } from './node.ts';

/**
 * NetBSD's tests/net/ipsec/t_ipsec_esp_keys.sh and t_ipsec_ah_keys.sh: one node, no traffic. What
 * setkey refuses by itself is also sent to the host as it is, which other clients may do.
 */

const ROWS = [...ESP, ...AH].map((row) => {
  const bits = row.valid[0]!;
  return [`ipsec_${row.protocol}_${plainName(row)}`, row, bits] as const;
});

function node(): Node {
  return new Bus({ allowLegacy: true }).add('10.0.0.1');
}

function add(row: Row, bits: number): string {
  return `add 10.0.0.1 10.0.0.2 ${row.protocol} 10000 ${algorithmArgs(row, bits)};`;
}

describe.each(ROWS)('%s', (name, row, first) => {
  test(`${name}_valid_keys`, () => {
    const one = node();
    const refusal = refusalOf(row);
    for (const bits of row.valid) {
      expect(one.setkey(add(row, bits))).toEqual(refusal === undefined ? [] : [refusal]);
      const shown = one.dumpSas();
      expect(shown.map((text) => text.split('\n')[0])).toEqual(
        refusal === undefined ? ['10.0.0.1 10.0.0.2 '] : [],
      );
      const gone = `delete 10.0.0.1 10.0.0.2 ${row.protocol} 10000;`;
      expect(one.setkey(gone)).toEqual(refusal === undefined ? [] : ['ESRCH']);
      expect(one.dumpSas()).toEqual([]);
    }
  });

  test(`${name}_invalid_keys`, () => {
    const one = node();
    for (const bits of row.invalid) {
      // As there, "null" with a key is an error of syntax.
      const complaint = row.name === 'null' ? /expected ";" after add/ : /takes a key of/;
      expect(() => one.setkey(add(row, bits))).toThrow(complaint);
      expect(() => one.setkey(add(row, bits))).toThrow(SetkeyError);
      expect(one.dumpSas()).toEqual([]);
    }
  });

  if (row.name === 'null') return;
  test(`${name}_invalid_keys, by another client`, () => {
    const one = node();
    const [good] = messagesOf(add(row, first));
    for (const bits of row.invalid) {
      const [reply] = one.ask(withKey(good!, bits));
      const refusals: number[] = [ERRNO.EINVAL, ERRNO.EOPNOTSUPP];
      // Which of the two is wrong first nobody cares: that it cannot be, or that its key cannot.
      if (refusalOf(row) === undefined) expect(reply!.errno).toBe(ERRNO.EINVAL);
      else expect(refusals).toContain(reply!.errno);
      expect(one.dumpSas()).toEqual([]);
    }
  });
});

test('ipsec_esp_null_invalid_keys, by another client: a key that nobody needs does no harm', () => {
  const one = node();
  const auth = `-A hmac-sha1 0x${'11'.repeat(20)}`;
  const [good] = messagesOf(`add 10.0.0.1 10.0.0.2 esp 10000 -E null ${auth};`);
  const useless = { type: 'KEY_ENCRYPT', bits: 8, key: Uint8Array.of(0x11) } as const;
  const [reply] = one.ask({ ...good!, extensions: [...good!.extensions, useless] });
  expect([reply!.errno, one.dumpSas().length]).toEqual([0, 1]);
});

function withKey(message: Message, bits: number): Message {
  const extensions = message.extensions.map((one) =>
    one.type === 'KEY_ENCRYPT' || one.type === 'KEY_AUTH'
      ? { ...one, bits, key: Uint8Array.from({ length: bits / 8 }, (_, i) => 0x11 + i) }
      : one,
  );
  return { ...message, extensions };
}
