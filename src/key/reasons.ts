const REASON_MAX = 64;

interface Reason {
  readonly pid: number;
  readonly sentence: string;
}

/**
 * Why the last requests of one client failed, in words. PF_KEY has room for an errno only, so our
 * own tools ask for the sentence by the pid and seq of the message.
 */
export class Reasons {
  readonly #bySeq = new Map<number, Reason>();

  note(pid: number, seq: number, sentence: string): void {
    // Deleted first, because a Map keeps the place of a key that it already has.
    this.#bySeq.delete(seq);
    this.#bySeq.set(seq, { pid, sentence });
    if (this.#bySeq.size <= REASON_MAX) return;
    const [oldest] = this.#bySeq.keys();
    if (oldest !== undefined) this.#bySeq.delete(oldest);
  }

  of(pid: number, seq: number): string | undefined {
    const reason = this.#bySeq.get(seq);
    return reason?.pid === pid ? reason.sentence : undefined;
  }
}
