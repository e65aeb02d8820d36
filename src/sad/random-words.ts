import type { Random } from '../base/env.ts';
import { u32 } from '../wire/bytes.ts';

/** Octets drawn from the system at once. */
const POOL_LEN = 1024;

/** Numbers of 32 bits that nobody can predict, drawn many at a time. */
export class RandomWords {
  readonly #random: Random;
  readonly #pool = new Uint8Array(POOL_LEN);
  #at = POOL_LEN;

  constructor(random: Random) {
    this.#random = random;
  }

  next(): number {
    if (this.#at === POOL_LEN) {
      this.#random.fill(this.#pool);
      this.#at = 0;
    }
    this.#at += 4;
    return u32(this.#pool, this.#at - 4);
  }
}
