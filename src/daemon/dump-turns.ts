/**
 * Dumps get one part in so many of the loop's time: while it is busy with other things, and while
 * it is not. It is never all of it, or there would be no telling how busy it is.
 */
const PARTS = { busy: 64, idle: 2 } as const;

/** What there is to know of the event loop; a test has one of its own. */
export interface Loop {
  nowMs(): number;
  /** How long the loop has worked and waited since it began, in milliseconds. */
  usage(): { readonly active: number; readonly idle: number };
  /** Calls it in a later turn, and not before so many milliseconds (0 or less: the next). */
  later(ms: number, call: () => void): void;
}

/**
 * Whose turn it is to send a slice of a dump. A dump of a million SAs is seconds of work, and
 * packets wait meanwhile: so it is done a slice at a time, of one client after the other, and with
 * pauses after each that leave packets nearly all of the time when there are packets.
 */
export class DumpTurns {
  readonly #loop: Loop;
  readonly #waiting = new Set<() => void>();
  #isArmed = false;
  #atEnd = { active: 0, idle: 0 };
  #readyMs = 0;

  constructor(loop: Loop = LOOP) {
    this.#loop = loop;
  }

  /** Calls `slice` once, later. */
  wait(slice: () => void): void {
    this.#waiting.add(slice);
    this.#arm();
  }

  forget(slice: () => void): void {
    this.#waiting.delete(slice);
  }

  #arm(): void {
    if (this.#isArmed || this.#waiting.size === 0) return;
    this.#isArmed = true;
    this.#loop.later(this.#readyMs - this.#loop.nowMs(), () => this.#next());
  }

  #next(): void {
    this.#isArmed = false;
    // Timers count from when the turn of the loop began, and come too early after a long one.
    if (this.#loop.nowMs() < this.#readyMs) return this.#arm();
    const [slice] = this.#waiting;
    if (slice === undefined) return;
    this.#waiting.delete(slice);
    const usage = this.#loop.usage();
    const active = usage.active - this.#atEnd.active;
    const idle = usage.idle - this.#atEnd.idle;
    const beganMs = this.#loop.nowMs();
    try {
      slice();
    } finally {
      const nowMs = this.#loop.nowMs();
      const tookMs = nowMs - beganMs;
      const parts = active > idle ? PARTS.busy : PARTS.idle;
      this.#readyMs = nowMs + (parts - 1) * tookMs;
      this.#atEnd = this.#loop.usage();
      this.#arm();
    }
  }
}

const LOOP: Loop = {
  nowMs: () => performance.now(),
  usage: () => performance.eventLoopUtilization(),
  later(ms, call) {
    if (ms <= 0) setImmediate(call);
    // A host that ends does not wait for it.
    else setTimeout(call, ms).unref();
  },
};
