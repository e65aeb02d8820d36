import type { Variant } from '../variant.ts';

/** The wire itself. */
export function bare(limited: boolean): Variant {
  return {
    name: 'bare veth',
    id: limited ? 'bare-1500' : 'bare',
    limited,
    absent: undefined,
    about: 'the pair of devices itself, nothing protected',
    isBare: true,
    start: async ({ a, b }) => ({ from: a.wire, to: b.wire, pids: [] }),
  };
}
