import fc from 'fast-check';
import { expect, test } from 'vitest';
import { cutBits, cutOf, markCut, packCut, popcount, type Run } from '../../src/spd/cut.ts';

const run = (words: readonly number[], most: number): fc.Arbitrary<Run> =>
  fc
    .tuple(fc.constantFrom(...words), fc.integer({ min: 1, max: most }), fc.nat(31))
    .map(([word, bits, from]) => ({ word, bits, shift: Math.min(from, 32 - bits) }));

/** Bit by bit. */
function slowly(runs: readonly Run[], key: Int32Array): number {
  const bits = runs.flatMap(({ word, shift, bits: count }) =>
    Array.from({ length: count }, (_, i) => (key[word]! >>> (shift + count - 1 - i)) & 1),
  );
  return bits.reduce((value, bit) => value * 2 + bit, 0);
}

test('a cut sees the bits of its runs, and marks them', () => {
  const keys = fc.array(fc.integer(), { minLength: 10, maxLength: 10 });
  fc.assert(
    fc.property(run([0, 3, 8], 18), fc.option(run([1, 9], 12)), keys, (one, other, words) => {
      const cut = other === null ? packCut(one) : packCut(one, other);
      const runs = other === null ? [one] : [one, other];
      const key = Int32Array.from(words);
      expect(cutOf(cut, key, 0, 1)).toBe(slowly(runs, key));
      const apart = new Int32Array(21);
      for (const [i, word] of key.entries()) apart[1 + 2 * i] = word;
      expect(cutOf(cut, apart, 1, 2)).toBe(slowly(runs, key));
      expect(cutBits(cut)).toBe(one.bits + (other?.bits ?? 0));
      const fixed = new Int32Array(10);
      markCut(cut, fixed);
      expect(fixed.reduce((sum, word) => sum + popcount(word), 0)).toBe(cutBits(cut));
      expect(cutOf(cut, fixed, 0, 1)).toBe(2 ** cutBits(cut) - 1);
    }),
  );
});
