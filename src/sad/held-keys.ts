import type { SaKeys } from './sa.ts';
import type { Slab } from './slab.ts';

/** The keys of one SA in a slab; each look at one is a view, and `fill(0)` on it zeroes the key. */
export class HeldKeys implements SaKeys {
  readonly auth: number;
  readonly encrypt: number;
  readonly #slab: Uint8Array;
  readonly #authAt: number;
  readonly #encryptAt: number;
  readonly #end: number;

  /** Copies the keys. */
  constructor(of: SaKeys, slab: Slab) {
    this.auth = of.auth;
    this.encrypt = of.encrypt;
    const place = slab.take(of.authKey.length + of.encryptKey.length);
    this.#slab = place.slab;
    this.#authAt = place.at;
    this.#encryptAt = place.at + of.authKey.length;
    this.#end = this.#encryptAt + of.encryptKey.length;
    this.#slab.set(of.authKey, this.#authAt);
    this.#slab.set(of.encryptKey, this.#encryptAt);
  }

  get authKey(): Uint8Array {
    return this.#slab.subarray(this.#authAt, this.#encryptAt);
  }

  get encryptKey(): Uint8Array {
    return this.#slab.subarray(this.#encryptAt, this.#end);
  }
}
