import { expect, test } from 'vitest';
import { runSeed } from './seed.ts';

const SEEDS = 100;

test(`${SEEDS} seeds on a hostile network: at most once, nothing else, nothing in the clear, and it heals`, () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    expect(runSeed(seed).slice(0, 3), `seed ${seed}`).toEqual([]);
  }
});
