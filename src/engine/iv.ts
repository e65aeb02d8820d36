import type { Random } from '../base/env.ts';
import type { Sa } from '../sad/sa.ts';
import { copy, setWord } from '../wire/bytes.ts';

const POOL_LEN = 4096;
const LOW = 2 ** 32;

/**
 * Writes initialization vectors. Unique ones are the sequence number under a mask that the SA's
 * identity gives: since no sequence number is used twice under one key, no IV is; and two SAs that
 * were given the same key (both directions of a careless manual configuration) do not count through
 * the same values, as they would without the mask.
 */
export class IvSource {
  readonly #random: Random;
  readonly #pool = new Uint8Array(POOL_LEN);
  #used = POOL_LEN;

  constructor(random: Random) {
    this.#random = random;
  }

  writeUnique(view: DataView, at: number, sa: Sa, seq: number): void {
    // Bit operations take the low half of a number; a remainder of fractions costs 30 ns.
    setWord(view, at, sa.ivMask[0]! ^ Math.floor(seq / LOW));
    setWord(view, at + 4, sa.ivMask[1]! ^ seq);
  }

  /** Octets that nobody can predict (RFC 3602 §3), drawn many at a time. */
  writeRandom(p: Uint8Array, at: number, len: number): void {
    if (this.#used + len > POOL_LEN) {
      this.#random.fill(this.#pool);
      this.#used = 0;
    }
    copy(this.#pool, this.#used, p, at, len);
    this.#used += len;
  }
}
