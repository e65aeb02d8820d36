import type { Random } from '../base/env.ts';

/**
 * Random octets that depend on the seed alone, so that a simulated network can be run again. Not
 * for keys: whoever sees some octets can compute the rest. The generator is xorshift128 (Marsaglia,
 * "Xorshift RNGs", 2003).
 */
export function seededRandom(seed: number): Random {
  const state = Uint32Array.of(seed, ~seed, seed ^ 0x9e3779b9, 0x243f6a88);
  const next = (): number => {
    const first = state[0]!;
    const last = state[3]!;
    const mixed = first ^ (first << 11);
    state.copyWithin(0, 1);
    state[3] = last ^ (last >>> 19) ^ mixed ^ (mixed >>> 8);
    return state[3]!;
  };
  // Seeds that differ in one bit begin with similar numbers; after a few rounds they do not.
  for (let i = 0; i < 16; i++) next();
  return {
    fill(bytes: Uint8Array): void {
      for (let i = 0; i < bytes.length; i++) bytes[i] = next() >>> 24;
    },
  };
}
