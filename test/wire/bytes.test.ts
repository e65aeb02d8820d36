import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  copyOctets,
  copyWords,
  half,
  sameWords,
  setWord,
  u16,
  u32,
  viewOf,
  word,
} from '../../src/wire/bytes.ts';
import { counting } from './octets.ts';

test('a view is of its array, wherever in its memory that begins, and there is one', () => {
  const memory = counting(100);
  const p = memory.subarray(13, 60);
  const view = viewOf(p);
  expect(viewOf(p)).toBe(view);
  expect([view.byteLength, word(view, 3), half(view, 5)]).toEqual([47, u32(p, 3), u16(p, 5)]);
  setWord(view, 2, 2 ** 40 + 0xfedc_ba98);
  expect([u32(memory, 15), word(view, 2)]).toEqual([0xfedc_ba98, 0xfedc_ba98 | 0]);
  expect(() => setWord(view, 44, 1)).toThrow(RangeError);
});

test('copies and comparisons are those of octets, in place to the front as well', () => {
  const at = fc.nat(40);
  fc.assert(
    fc.property(at, at, fc.nat(15), fc.boolean(), (from, to, len, isOther) => {
      const [p, q] = [counting(160), counting(160).reverse()];
      const target = isOther ? q : p;
      const words = 4 * len;
      const forward = isOther || to <= from;
      for (const [copy, count] of [[copyWords, words] as const, [copyOctets, words + 3] as const]) {
        if (!forward) continue;
        const expected = target.slice();
        expected.set(p.slice(from, from + count), to);
        copy(viewOf(p), from, viewOf(target), to, count);
        expect(target).toEqual(expected);
      }
      const same = sameWords(viewOf(p), from, viewOf(target), to, words);
      const [a, b] = [p.subarray(from, from + words), target.subarray(to, to + words)];
      expect(same).toBe(a.every((octet, i) => octet === b[i]));
    }),
  );
});
