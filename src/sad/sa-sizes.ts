import type { SaSpec } from './sa.ts';

/** What an SA adds to a packet; in octets. */
export type SaSize =
  | {
      readonly protocol: 'esp';
      readonly isInUdp: boolean;
      readonly ivLen: number;
      readonly icvLen: number;
      readonly alignLen: number;
    }
  | { readonly protocol: 'ah'; readonly icvLen: number; readonly alignLen: number };

/**
 * Which sizes the SAs of a table have, and how many SAs each: a handful, however many SAs there
 * are, so that the largest is found without looking at every SA.
 */
export class SaSizes {
  readonly #bySize = new Map<number, { readonly size: SaSize; count: number }>();

  list(): SaSize[] {
    return [...this.#bySize.values()].map(({ size }) => size);
  }

  /** A larval SA has no size yet, and is not counted. */
  add(spec: SaSpec): void {
    const size = sizeOf(spec);
    if (size === undefined) return;
    const known = this.#bySize.get(keyOf(size));
    if (known) known.count++;
    else this.#bySize.set(keyOf(size), { size, count: 1 });
  }

  remove(spec: SaSpec): void {
    const size = sizeOf(spec);
    if (size === undefined) return;
    const known = this.#bySize.get(keyOf(size))!;
    known.count--;
    if (known.count === 0) this.#bySize.delete(keyOf(size));
  }
}

function sizeOf(spec: SaSpec): SaSize | undefined {
  const { esp, ah, src, ahAlignLen, encapsulation } = spec;
  if (esp !== undefined) {
    const { ivLen, icvLen, alignLen } = esp;
    return { protocol: 'esp', isInUdp: encapsulation !== undefined, ivLen, icvLen, alignLen };
  }
  if (ah === undefined) return undefined;
  return { protocol: 'ah', icvLen: ah.icvLen, alignLen: src.family === 6 ? 8 : ahAlignLen };
}

/** Each of the numbers is below 256. */
function keyOf(size: SaSize): number {
  const common = (size.icvLen << 8) | size.alignLen;
  if (size.protocol === 'ah') return common;
  return 2 ** 24 + (size.isInUdp ? 2 ** 25 : 0) + (size.ivLen << 16) + common;
}
