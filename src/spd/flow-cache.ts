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
  #at = 0;

  /** `places`: a power of two. */
  constructor(keyWords: number, places: number) {
    this.#keyWords = keyWords;
    this.#placeMask = places - 1;
    this.#lineLen = keyWords + 2;
    this.#lines = new Int32Array(places * this.#lineLen);
  }

  /** What was said about this key, or UNKNOWN. */
  get(key: Int32Array): number {
    const lines = this.#lines;
    const words = this.#keyWords;
    let hash = 0;
    for (let i = 0; i < words; i++) hash = Math.imul(hash ^ key[i]!, 0x9e3779b1) ^ (hash >>> 15);
    const at = ((hash ^ (hash >>> 16)) & this.#placeMask) * this.#lineLen;
    this.#at = at;
    if (lines[at + words + 1] !== this.#generation) return UNKNOWN;
    for (let i = 0; i < words; i++) if (lines[at + i] !== key[i]) return UNKNOWN;
    return lines[at + words]!;
  }

  /** Notes the answer for the key that `get` was just asked about. */
  set(key: Int32Array, answer: number): void {
    const lines = this.#lines;
    const at = this.#at;
    for (let i = 0; i < this.#keyWords; i++) lines[at + i] = key[i]!;
    lines[at + this.#keyWords] = answer;
    lines[at + this.#keyWords + 1] = this.#generation;
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
