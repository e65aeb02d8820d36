interface Due<T> {
  readonly item: T;
  readonly dueMs: number;
}

/** Things to look at when their time has come, the earliest first. */
export class DueHeap<T> {
  #heap: Due<T>[] = [];

  get size(): number {
    return this.#heap.length;
  }

  /** When the first is due; Infinity when there is none. */
  get nextMs(): number {
    return this.#heap[0]?.dueMs ?? Infinity;
  }

  add(item: T, dueMs: number): void {
    const heap = this.#heap;
    const due = { item, dueMs };
    let at = heap.length;
    heap.push(due);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent]!.dueMs <= dueMs) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = due;
  }

  /** Takes out the first if it is due by then. */
  take(nowMs: number): T | undefined {
    const first = this.#heap[0];
    if (first === undefined || first.dueMs > nowMs) return undefined;
    const last = this.#heap.pop()!;
    if (this.#heap.length > 0) this.#sink(last);
    return first.item;
  }

  /** Forgets everything that does not pass. */
  keep(passes: (item: T) => boolean): void {
    const kept = this.#heap.filter(({ item }) => passes(item));
    this.#heap = [];
    for (const { item, dueMs } of kept) this.add(item, dueMs);
  }

  #sink(due: Due<T>): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.dueMs < heap[child]!.dueMs) child++;
      if (heap[child]!.dueMs >= due.dueMs) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = due;
  }
}
