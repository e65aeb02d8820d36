/** What can be due: it knows its own place in the heap, which alone changes it; -1: none. */
export interface Due {
  heapAt: number;
}

/**
 * Things that a time limit will reach, the earliest first: a binary heap, so that looking costs
 * nothing and each change the logarithm of their number.
 */
export class DueHeap<T extends Due> {
  #items: T[] = [];
  /** Monotonic milliseconds, at the same places. */
  #dues: number[] = [];

  /** When the first one is due; Infinity when there is none. */
  get nextMs(): number {
    return this.#dues[0] ?? Infinity;
  }

  get first(): T | undefined {
    return this.#items[0];
  }

  /** Sets, or changes, when something is due; Infinity: never. */
  set(item: T, dueMs: number): void {
    if (dueMs === Infinity) return this.delete(item);
    if (item.heapAt < 0) this.#place(item, dueMs, this.#items.length);
    else this.#dues[item.heapAt] = dueMs;
    this.#settle(item.heapAt);
  }

  /** Does nothing for what is not in the heap. */
  delete(item: T): void {
    const at = item.heapAt;
    if (at < 0) return;
    const last = this.#items.pop()!;
    const dueMs = this.#dues.pop()!;
    if (last !== item) {
      this.#place(last, dueMs, at);
      this.#settle(at);
    }
    item.heapAt = -1;
  }

  clear(): void {
    for (const item of this.#items) item.heapAt = -1;
    this.#items = [];
    this.#dues = [];
  }

  /** Moves something up or down, until its parent is due before it and its children after. */
  #settle(from: number): void {
    const item = this.#items[from]!;
    const dueMs = this.#dues[from]!;
    let at = from;
    while (at > 0 && this.#dues[(at - 1) >> 1]! > dueMs) at = this.#move((at - 1) >> 1, at);
    for (let child = this.#childOf(at); child >= 0 && this.#dues[child]! < dueMs; ) {
      at = this.#move(child, at);
      child = this.#childOf(at);
    }
    this.#place(item, dueMs, at);
  }

  /** The child of a place that is due first, or -1. */
  #childOf(at: number): number {
    const left = 2 * at + 1;
    if (left >= this.#items.length) return -1;
    const right = left + 1;
    return right < this.#items.length && this.#dues[right]! < this.#dues[left]! ? right : left;
  }

  #move(from: number, to: number): number {
    this.#place(this.#items[from]!, this.#dues[from]!, to);
    return from;
  }

  #place(item: T, dueMs: number, at: number): void {
    this.#items[at] = item;
    this.#dues[at] = dueMs;
    item.heapAt = at;
  }
}
