import type { Clock } from '../base/env.ts';
import type { KeySettings } from './settings.ts';

/**
 * More than so many pairs of hosts that wait for SAs at once: the oldest is forgotten, and would be
 * asked for again.
 */
const ACQUIRE_MAX = 16_384;

interface Entry {
  readonly key: string;
  readonly seq: number;
  sinceMs: number;
  count: number;
}

/**
 * Which SAs were asked for, so that key exchange hears of each once and not for every packet
 * (key_acquire of KAME): the first packet asks; after `blockAcquireCount` more it is asked again,
 * with the same number; after `blockAcquireSeconds` it starts over with a new one.
 */
export class AcquireList {
  readonly #clock: Clock;
  readonly #settings: KeySettings;
  readonly #byKey = new Map<string, Entry>();
  readonly #bySeq = new Map<number, Entry>();
  #lastSeq = 0;

  constructor(clock: Clock, settings: KeySettings) {
    this.#clock = clock;
    this.#settings = settings;
  }

  get size(): number {
    return this.#byKey.size;
  }

  /**
   * A packet needs an SA: the number of the ACQUIRE to send, or undefined when it was sent a short
   * time ago.
   */
  want(key: string): number | undefined {
    const nowMs = this.#clock.monotonicMs();
    const known = this.#byKey.get(key);
    if (known && nowMs < known.sinceMs + this.#settings.blockAcquireSeconds * 1000) {
      known.count++;
      if (known.count <= this.#settings.blockAcquireCount) return undefined;
      known.count = 0;
      return known.seq;
    }
    if (known) this.#forget(known);
    if (this.#byKey.size >= ACQUIRE_MAX) {
      const [oldest] = this.#byKey.values();
      if (oldest) this.#forget(oldest);
    }
    const entry: Entry = { key, seq: this.#nextSeq(), sinceMs: nowMs, count: 0 };
    this.#byKey.set(key, entry);
    this.#bySeq.set(entry.seq, entry);
    return entry.seq;
  }

  /** Key exchange works on this one, or has failed: it is not asked again for another period. */
  restart(seq: number): void {
    const entry = this.#bySeq.get(seq);
    if (!entry) return;
    entry.sinceMs = this.#clock.monotonicMs();
    entry.count = 0;
  }

  #forget(entry: Entry): void {
    this.#byKey.delete(entry.key);
    this.#bySeq.delete(entry.seq);
  }

  /** 0 is what clients send that follow no ACQUIRE. */
  #nextSeq(): number {
    do {
      this.#lastSeq = this.#lastSeq === 0xffff_ffff ? 1 : this.#lastSeq + 1;
    } while (this.#bySeq.has(this.#lastSeq));
    return this.#lastSeq;
  }
}
