import { describe, expect, test } from 'vitest';
import { median, quantile, ratio, spread } from '../../bench/numbers.ts';

describe('numbers', () => {
  test('the middle does not follow what lies far out', () => {
    expect(median([5, 1, 1000])).toBe(5);
    expect(median([])).toBeNaN();
  });

  test('quantiles', () => {
    const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
    expect(quantile(hundred, 0.99)).toBe(100);
    expect(quantile(hundred, 0)).toBe(1);
    expect(quantile([7], 0.99)).toBe(7);
  });

  test('a spread says the middle, the least and the most, and one number alone', () => {
    expect(spread([3, 1, 2.26], 1)).toBe('2.3 [1.0, 3.0]');
    expect(spread([1234.5])).toBe('1235');
    expect(spread([])).toBe('');
  });

  test('ratios compare what was measured in one round, and leave out rounds that lack one', () => {
    // The machine was twice as slow in the second round: the ratio is the same.
    expect(ratio([100, 50], [20, 10])).toBe(5);
    expect(ratio([100, undefined, 90], [20, 1, undefined])).toBe(5);
    expect(ratio([1], [0])).toBeNaN();
  });
});
