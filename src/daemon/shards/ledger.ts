import { assert } from '../../base/assert.ts';
import type { Usage } from '../../sad/lifetime.ts';
import type { Sa, SaKeeper } from '../../sad/sa.ts';

/**
 * What SAs have done, in memory that all shards see: the owner of an SA writes its entry, others
 * read. An entry is a row of numbers of 64 bits; each is written at once, so a reader may see one
 * batch of one number and the batch before of another, never half a number.
 */
const ENTRY = {
  packets: 0,
  bytes: 1,
  /** Milliseconds by the clock of the main shard; 0: never. */
  firstUseMs: 2,
  firstUseWallMs: 3,
  sentSeq: 4,
  replayTop: 5,
  lastSentMs: 6,
} as const;
const ENTRY_LEN = 8;
/** Entries are added so many at a time: 256 KiB. */
const CHUNK_ENTRIES = 4096;

export class Ledger implements SaKeeper {
  readonly #chunks: Float64Array[] = [];

  /** How many SAs there is room for. */
  get capacity(): number {
    return this.#chunks.length * CHUNK_ENTRIES;
  }

  /** Room for more SAs, which every shard must be given. */
  static chunk(): SharedArrayBuffer {
    return new SharedArrayBuffer(CHUNK_ENTRIES * ENTRY_LEN * Float64Array.BYTES_PER_ELEMENT);
  }

  add(chunk: SharedArrayBuffer): void {
    this.#chunks.push(new Float64Array(chunk));
  }

  /** Of its own SA: everybody sees what has become of it. */
  publish(sa: Sa): void {
    const { usage, sentSeq, replayTop, lastSentMs, firstUseWallMs, slot } = sa;
    const numbers = this.#numbers(slot);
    const at = entryAt(slot);
    numbers[at + ENTRY.packets] = usage.packets;
    numbers[at + ENTRY.bytes] = usage.bytes;
    numbers[at + ENTRY.sentSeq] = sentSeq;
    numbers[at + ENTRY.replayTop] = replayTop;
    numbers[at + ENTRY.lastSentMs] = lastSentMs;
    numbers[at + ENTRY.firstUseWallMs] = firstUseWallMs;
    if (usage.firstUseMs >= 0) numbers[at + ENTRY.firstUseMs] = usage.firstUseMs;
  }

  /** The entry is to be that of another SA. */
  clear(slot: number): void {
    this.#numbers(slot).fill(0, entryAt(slot), entryAt(slot) + ENTRY_LEN);
  }

  /** What stands there now, for an SA that has gone: its entry will be that of another one. */
  last(sa: Sa): SaKeeper {
    const [usage, firstUseWallMs] = [this.usage(sa, 0), this.firstUseWallMs(sa)];
    const [sentSeq, replayTop] = [this.sentSeq(sa), this.replayTop(sa)];
    return {
      usage: (_, addedMs) => ({ ...usage, addedMs }),
      firstUseWallMs: () => firstUseWallMs,
      sentSeq: () => sentSeq,
      replayTop: () => replayTop,
    };
  }

  usage({ slot }: Sa, addedMs: number): Usage {
    const firstUseMs = this.#read(slot, ENTRY.firstUseMs);
    return {
      packets: this.#read(slot, ENTRY.packets),
      bytes: this.#read(slot, ENTRY.bytes),
      addedMs,
      firstUseMs: firstUseMs === 0 ? -1 : firstUseMs,
    };
  }

  firstUseWallMs({ slot }: Sa): number {
    return this.#read(slot, ENTRY.firstUseWallMs);
  }

  sentSeq({ slot }: Sa): number {
    return this.#read(slot, ENTRY.sentSeq);
  }

  replayTop({ slot }: Sa): number {
    return this.#read(slot, ENTRY.replayTop);
  }

  /** When a datagram last went to its peer, by the clock of the main shard. */
  lastSentMs({ slot }: Sa): number {
    return this.#read(slot, ENTRY.lastSentMs);
  }

  #read(slot: number, field: number): number {
    return this.#numbers(slot)[entryAt(slot) + field]!;
  }

  #numbers(slot: number): Float64Array {
    const numbers = this.#chunks[Math.floor(slot / CHUNK_ENTRIES)];
    assert(slot >= 0 && numbers !== undefined, 'an SA that all shards know');
    return numbers;
  }
}

function entryAt(slot: number): number {
  return (slot % CHUNK_ENTRIES) * ENTRY_LEN;
}
