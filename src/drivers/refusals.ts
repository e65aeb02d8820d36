/** What a link could not send, and why: one counter per reason. */
export class Refusals {
  readonly #byReason = new Map<string, number>();
  #total = 0;

  get total(): number {
    return this.#total;
  }

  /** Reason to number of packets. The reasons are few: names of errors, or words of ours. */
  get byReason(): ReadonlyMap<string, number> {
    return this.#byReason;
  }

  add(reason: string, count = 1): void {
    if (count === 0) return;
    this.#total += count;
    this.#byReason.set(reason, (this.#byReason.get(reason) ?? 0) + count);
  }
}
