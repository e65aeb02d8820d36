import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { fromHex, toHex } from '../../src/wire/bytes.ts';
import { decode, encode } from '../../src/wire/pfkey.ts';

const data = new URL('data/', import.meta.url);

/** The real tool sent these on purpose, and the kernel refused them too. */
const REFUSED: ReadonlyMap<string, RegExp> = new Map([
  [
    'spdadd 10.0.0.0/8[any] 10.5.0.0/33[any] any -P out ipsec esp/transport//require;',
    /ADDRESS_DST: prefix length 33/,
  ],
]);

interface Recorded {
  readonly command: string;
  readonly messages: readonly string[];
  readonly kernelReplies: readonly string[];
}

describe('every message that setkey and Linux exchanged comes back octet by octet', () => {
  const file = readFileSync(new URL('setkey.json', data), 'utf8');
  const { vectors } = JSON.parse(file) as { vectors: readonly Recorded[] };

  test('requests', () => {
    expect(vectors.length).toBe(258);
    const broken = vectors.flatMap((one) => one.messages.filter((hex) => !same(hex)));
    expect(broken).toEqual(
      vectors.filter((one) => REFUSED.has(one.command)).flatMap((one) => one.messages),
    );
    for (const one of vectors.filter(({ command }) => REFUSED.has(command))) {
      for (const hex of one.messages) {
        expect(() => decode(fromHex(hex), 'linux')).toThrow(REFUSED.get(one.command)!);
      }
    }
  });

  test('answers', () => {
    const answers = vectors.flatMap((one) => one.kernelReplies);
    expect(answers.length).toBe(1165);
    expect(answers.filter((hex) => !same(hex))).toEqual([]);
  });
});

describe('every message of openiked comes back octet by octet', () => {
  const names = readdirSync(new URL('openiked/', data));
  test('all suites are there', () => expect(names.length).toBe(7));
  for (const name of names) {
    test(name, () => {
      const lines = readFileSync(new URL(`openiked/${name}`, data), 'utf8')
        .trim()
        .split('\n');
      const all = lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
      expect(all.length).toBeGreaterThanOrEqual(14);
      expect(all.filter((hex) => !same(hex))).toEqual([]);
    });
  }
});

function same(hex: string): boolean {
  try {
    return toHex(encode(decode(fromHex(hex), 'linux'), 'linux')) === hex;
  } catch {
    return false;
  }
}
