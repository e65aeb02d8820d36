import { assert } from '../base/assert.ts';

export const REPLAY_WINDOW_MIN = 32;
export const REPLAY_WINDOW_MAX = 65_536;

const LOW = 2 ** 32;

/**
 * Which sequence numbers were seen: RFC 4303 §3.4.3, with a ring of bits as in RFC 6479, so that
 * moving the window costs nothing per packet. Sequence numbers are JavaScript numbers, exact to
 * 2^53; the high half of extended ones (ESN) is inferred as RFC 4303 appendix A2 has it. A size of
 * 0 sees everything as new and only follows the top.
 */
export class ReplayWindow {
  readonly size: number;
  readonly #esn: boolean;
  /** Made for the first packet: most SAs of a large table are for sending, or wait. */
  #words: Int32Array | undefined;
  #top = 0;

  constructor(size: number, esn: boolean) {
    assert(size === 0 || (size >= REPLAY_WINDOW_MIN && size <= REPLAY_WINDOW_MAX), 'window size');
    this.size = size;
    this.#esn = esn;
  }

  /** The highest sequence number seen. */
  get top(): number {
    return this.#top;
  }

  /** Goes on where another window, or a saved one, stood: everything up to `top` counts as seen. */
  startAt(top: number): void {
    this.#top = top;
    const words = this.#ring();
    words.fill(-1);
    // The word of the top is in use above it, too: those numbers have not been seen.
    words[Math.floor(top / 32) & (words.length - 1)] = (2 << (top & 31)) - 1;
  }

  /** Another window that has seen the same, for whoever only asks what would happen. */
  copy(): ReplayWindow {
    const other = new ReplayWindow(this.size, this.#esn);
    other.#top = this.#top;
    if (this.#words !== undefined) other.#words = this.#words.slice();
    return other;
  }

  /**
   * The whole sequence number of a packet whose low 32 bits are `low`, or -1 when it was seen
   * before, is older than the window, or is 0. Changes nothing: the packet is not authenticated
   * yet.
   */
  check(low: number): number {
    const seq = this.#esn ? this.#infer(low) : low;
    return seq >= 0 && this.#isNew(seq) ? seq : -1;
  }

  /**
   * Marks an authenticated packet as seen. False when it was seen since it was checked, as happens
   * to a duplicate in the same batch.
   */
  commit(seq: number): boolean {
    if (!this.#isNew(seq)) return false;
    if (seq > this.#top) this.#advance(seq);
    if (this.size > 0) {
      const words = this.#ring();
      words[(seq / 32) & (words.length - 1)]! |= 1 << (seq & 31);
    }
    return true;
  }

  /**
   * As `commit`, for numbers `from` to `to` of a list: how many before the first that was seen
   * since it was checked.
   */
  commitRow(seqs: Float64Array, from: number, to: number): number {
    const words = this.#words;
    let i = from;
    for (; i < to; i++) {
      const seq = seqs[i]!;
      // The next one, in a word that was cleared when the one before it came.
      if (words !== undefined && seq === this.#top + 1 && (seq & 31) !== 0) {
        words[(seq / 32) & (words.length - 1)]! |= 1 << (seq & 31);
        this.#top = seq;
      } else if (!this.commit(seq)) {
        break;
      }
    }
    return i - from;
  }

  #ring(): Int32Array {
    if (this.#words !== undefined) return this.#words;
    // One word more than the window has: the word being filled at the top is cleared while the
    // lowest is still in use.
    let words = 1;
    while (words < this.size / 32 + 1) words *= 2;
    this.#words = new Int32Array(words);
    return this.#words;
  }

  #isNew(seq: number): boolean {
    if (this.size === 0) return true;
    if (seq > this.#top) return true;
    // Sequence number 0 is never sent (RFC 4303 §2.2).
    if (seq === 0 || seq + this.size <= this.#top) return false;
    const words = this.#words;
    // Without a ring, nothing was seen yet, whatever the number.
    if (words === undefined) return true;
    return (words[(seq / 32) & (words.length - 1)]! & (1 << (seq & 31))) === 0;
  }

  #advance(seq: number): void {
    if (this.size === 0) {
      this.#top = seq;
      return;
    }
    const from = Math.floor(this.#top / 32);
    const to = Math.floor(seq / 32);
    const words = this.#ring();
    const clear = Math.min(to - from, words.length);
    for (let i = 1; i <= clear; i++) words[(from + i) & (words.length - 1)] = 0;
    this.#top = seq;
  }

  /** RFC 4303 appendix A2.1: the high half that puts the number closest to the window. */
  #infer(low: number): number {
    // Without a window of its own the widest one that is not ambiguous.
    const size = this.size === 0 ? LOW / 2 : this.size;
    const high = Math.floor(this.#top / LOW);
    const topLow = this.#top >>> 0;
    if (topLow >= size - 1)
      return low >= topLow - size + 1 ? high * LOW + low : (high + 1) * LOW + low;
    return low >= topLow - size + 1 + LOW ? (high - 1) * LOW + low : high * LOW + low;
  }
}
