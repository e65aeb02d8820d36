import { describe, expect, test } from 'vitest';

describe('arrays of numbers', () => {
  const of = (...octets: number[]) => Uint8Array.of(...octets);

  test('are equal if all of them are', () => {
    expect(of(1, 2, 3)).toEqual(of(1, 2, 3));
    expect(of(0, 1, 2, 3).subarray(1)).toEqual(of(1, 2, 3, 4).subarray(0, 3));
    expect({ a: [Float64Array.of(1.5, Number.NaN)] }).toEqual({
      a: [Float64Array.of(1.5, Number.NaN)],
    });
    expect(of()).toEqual(of());
  });

  test.each([
    ['an octet', of(1, 2, 3), of(1, 2, 4)],
    ['one less', of(1, 2, 3), of(1, 2)],
    ['one more', of(1, 2, 3), of(1, 2, 3, 0)],
    ['where they are', of(0, 1, 2).subarray(1), of(0, 1, 2).subarray(0, 2)],
    ['the kind', of(1, 2, 3), Int8Array.of(1, 2, 3)],
    ['the kind, a Buffer', of(1, 2, 3), Buffer.of(1, 2, 3)],
    ['an array', of(1, 2, 3), [1, 2, 3]],
    ['the sign of zero', Float64Array.of(0), Float64Array.of(-0)],
  ])('differ: %s', (_what, a, b) => {
    expect(a).not.toEqual(b);
    expect({ within: [a] }).not.toEqual({ within: [b] });
    expect([a]).not.toStrictEqual([b]);
    expect(() => expect([a]).toEqual([b])).toThrow(/deeply equal/);
  });
});
