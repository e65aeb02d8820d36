import type { Sa } from './sa.ts';

/**
 * The SAs that a time limit will reach, the earliest first: a binary heap, so that looking costs
 * nothing and each change the logarithm of the number of SAs. An SA knows its place in `heapAt`.
 */
export class DueHeap {
  readonly #sas: Sa[] = [];
  /** Monotonic milliseconds, at the same places. */
  readonly #dues: number[] = [];

  /** When the first one is due; Infinity when there is none. */
  get nextMs(): number {
    return this.#dues[0] ?? Infinity;
  }

  get first(): Sa | undefined {
    return this.#sas[0];
  }

  /** Sets, or changes, when an SA is due; Infinity: never. */
  set(sa: Sa, dueMs: number): void {
    if (dueMs === Infinity) return this.delete(sa);
    if (sa.heapAt < 0) this.#place(sa, dueMs, this.#sas.length);
    else this.#dues[sa.heapAt] = dueMs;
    this.#settle(sa.heapAt);
  }

  /** Does nothing when the SA is not in the heap. */
  delete(sa: Sa): void {
    const at = sa.heapAt;
    if (at < 0) return;
    const last = this.#sas.pop()!;
    const dueMs = this.#dues.pop()!;
    if (last !== sa) {
      this.#place(last, dueMs, at);
      this.#settle(at);
    }
    sa.heapAt = -1;
  }

  /** Moves the SA at a place up or down, until its parent is due before it and its children after. */
  #settle(from: number): void {
    const sa = this.#sas[from]!;
    const dueMs = this.#dues[from]!;
    let at = from;
    while (at > 0 && this.#dues[(at - 1) >> 1]! > dueMs) at = this.#move((at - 1) >> 1, at);
    for (let child = this.#childOf(at); child >= 0 && this.#dues[child]! < dueMs; ) {
      at = this.#move(child, at);
      child = this.#childOf(at);
    }
    this.#place(sa, dueMs, at);
  }

  /** The child of a place that is due first, or -1. */
  #childOf(at: number): number {
    const left = 2 * at + 1;
    if (left >= this.#sas.length) return -1;
    const right = left + 1;
    return right < this.#sas.length && this.#dues[right]! < this.#dues[left]! ? right : left;
  }

  #move(from: number, to: number): number {
    this.#place(this.#sas[from]!, this.#dues[from]!, to);
    return from;
  }

  #place(sa: Sa, dueMs: number, at: number): void {
    this.#sas[at] = sa;
    this.#dues[at] = dueMs;
    sa.heapAt = at;
  }
}
