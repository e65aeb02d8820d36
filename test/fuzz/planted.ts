import type { Target } from './target.ts';

/**
 * A target with a crash that blind changes hardly ever find: two octets must be right at once: the
 * fuzzer must be led to it step by step.
 */
export const planted: Target = {
  name: 'planted',
  lenMax: 64,
  seeds: () => [new Uint8Array(6)],
  create: () => (input) => {
    if (input[3] !== 0x7e) return;
    if (input[4] === 0x99) throw new Error(`found at ${input.length}`);
  },
};
