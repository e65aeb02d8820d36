/** Nobody has asked for this flow since the last change. */
export const UNKNOWN = -2;

/**
 * The last answer for each of many flows: addresses, ports and protocol, exactly. A flow has one
 * place, which it takes from whoever had it, so that the cache cannot grow; any change of the rules
 * makes all answers void at once.
 */
export class FlowCache {
  readonly #keyWords: number;
  readonly #placeMask: number;
  /** Per place: the key, the answer, and for which generation. */
  readonly #lines: Int32Array;
  readonly #lineLen: number;
  #generation = 1;

  /** `places`: a power of two. */
  constructor(keyWords: number, places: number) {
    this.#keyWords = keyWords;
    this.#placeMask = places - 1;
    this.#lineLen = keyWords + 2;
    this.#lines = new Int32Array(places * this.#lineLen);
  }

  /** The place of the key that stands at `k`, for the other methods. */
  placeOf(keys: Int32Array, k: number): number {
    let hash = 0;
    for (let i = 0; i < this.#keyWords; i++) {
      hash = Math.imul(hash ^ keys[k + i]!, 0x9e3779b1) ^ (hash >>> 15);
    }
    return ((hash ^ (hash >>> 16)) & this.#placeMask) * this.#lineLen;
  }

  /** What was said about this key, or UNKNOWN. */
  get(place: number, keys: Int32Array, k: number): number {
    const lines = this.#lines;
    const words = this.#keyWords;
    if (lines[place + words + 1] !== this.#generation) return UNKNOWN;
    for (let i = 0; i < words; i++) if (lines[place + i] !== keys[k + i]) return UNKNOWN;
    return lines[place + words]!;
  }

  set(place: number, keys: Int32Array, k: number, answer: number): void {
    const lines = this.#lines;
    for (let i = 0; i < this.#keyWords; i++) lines[place + i] = keys[k + i]!;
    lines[place + this.#keyWords] = answer;
    lines[place + this.#keyWords + 1] = this.#generation;
  }

  clear(): void {
    this.#generation = (this.#generation + 1) | 0;
    // Numbers come round after four thousand million changes; a line as old as that must not count.
    if (this.#generation === 0) {
      this.#lines.fill(0);
      this.#generation = 1;
    }
  }
}
