import { assert } from '../../base/assert.ts';
import { Stats } from '../../engine/stats.ts';

/** All counters of an engine, one behind the other: what one shard tells another. */
export function numbersOf(stats: Stats): Float64Array {
  const numbers: number[] = [];
  visit(stats, (number) => {
    numbers.push(number);
    return number;
  });
  return Float64Array.from(numbers);
}

/** The counters of one engine, and those of others. */
export function sumOf(stats: Stats, others: readonly Float64Array[]): Stats {
  const sum = new Stats();
  for (const numbers of [numbersOf(stats), ...others]) {
    let at = 0;
    visit(sum, (number) => number + numbers[at++]!);
    assert(at === numbers.length, 'shards count the same');
  }
  return sum;
}

/** Puts in the place of each counter what is made of it, always in the same order. */
function visit(of: object, make: (number: number) => number): void {
  const fields = of as Record<string, unknown>;
  for (const name of Object.keys(fields)) {
    const value = fields[name];
    if (typeof value === 'number') fields[name] = make(value);
    else if (typeof value === 'object' && value !== null) visit(value, make);
  }
}
