const SLAB_LEN = 8192;

/** Octets within a larger piece of memory. */
export interface SlabPlace {
  readonly slab: Uint8Array;
  readonly at: number;
}

/**
 * Memory for many small pieces of octets that live as long as SAs: an array of its own costs 200
 * octets in JavaScript, whatever its length. A slab is given back when none of its pieces is in use
 * any more.
 */
export class Slab {
  #slab = new Uint8Array(0);
  #used = 0;

  /** Room for `len` octets, all 0. */
  take(len: number): SlabPlace {
    if (this.#used + len > this.#slab.length) {
      this.#slab = new Uint8Array(Math.max(SLAB_LEN, len));
      this.#used = 0;
    }
    const at = this.#used;
    this.#used += len;
    return { slab: this.#slab, at };
  }

  /** A copy, as an array that shares its buffer with others. */
  copy(octets: Uint8Array): Uint8Array {
    const { slab, at } = this.take(octets.length);
    slab.set(octets, at);
    return slab.subarray(at, at + octets.length);
  }
}
