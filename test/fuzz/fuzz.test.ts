import { describe, expect, test } from 'vitest';
import { seededRandom } from '../../src/drivers/seeded-random.ts';
import { Coverage } from './coverage.ts';
import { attempt, Fuzzer } from './fuzzer.ts';
import { Dice } from './mutate.ts';
import { planted } from './planted.ts';
import { keptInputs, TARGETS } from './targets.ts';

/** Per target. The real thing is `npm run fuzz`; this finds what breaks at once. */
const INPUTS = 3000;

describe.each(TARGETS.map((target) => [target.name, target] as const))('%s', (name, target) => {
  test('kept inputs do no harm, each on its own', () => {
    for (const input of keptInputs(name)) expect(attempt(target.create(), input)).toBeUndefined();
  });

  test(`${INPUTS} changed inputs do no harm`, () => {
    const fuzzer = new Fuzzer(target, new Dice(seededRandom(20_260_101)), undefined);
    while (fuzzer.execs < INPUTS) fuzzer.step();
    expect([...fuzzer.crashes.values()].map(({ stack }) => stack)).toEqual([]);
  });
});

describe('the fuzzer', () => {
  test('is led by coverage to a crash that it does not find blindly, and makes the input short', () => {
    const coverage = new Coverage('/test/fuzz/planted.');
    const fuzzer = new Fuzzer(planted, new Dice(seededRandom(1)), coverage);
    while (fuzzer.execs < 100_000 && fuzzer.crashes.size === 0) fuzzer.step();
    coverage.close();
    const blind = new Fuzzer(planted, new Dice(seededRandom(1)), undefined);
    while (blind.execs < fuzzer.execs) blind.step();
    expect(blind.crashes.size).toBe(0);
    const [crash] = [...fuzzer.crashes.values()];
    expect(crash?.stack).toMatch(/found at/);
    expect(crash?.inputs.map((input) => input.length)).toEqual([5]);
  });

  test('hands over all inputs that a crash needs', () => {
    let runs = 0;
    const target = {
      ...planted,
      create: () => {
        let sum = 0;
        return () => {
          runs++;
          if (++sum === 5) throw new Error('the fifth');
        };
      },
    };
    const fuzzer = new Fuzzer(target, new Dice(seededRandom(1)), undefined);
    fuzzer.step();
    expect(runs).toBeGreaterThan(5);
    expect([...fuzzer.crashes.values()].map(({ inputs }) => inputs.length)).toEqual([5]);
  });
});
