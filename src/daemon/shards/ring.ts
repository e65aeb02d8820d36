import { assert } from '../../base/assert.ts';

/**
 * A queue of records from one thread to another, in memory that both see: one writer, one reader,
 * no locks. What is written becomes visible to the reader when it is published, so that a batch
 * costs one store that the other processor has to fetch, and one wake-up.
 *
 *     word 0    what has been read, in octets, modulo 2^32
 *     word 16   what has been published          (on a cache line of its own)
 *     word 17   1: the writer waits for room
 *     from octet 128 on: records, each a multiple of 8 octets; its first word is its length, or
 *     0: the rest up to the end is not used, since a record is never in two pieces
 */
const READ = 0;
const PUBLISHED = 16;
const AWAITED = 17;
const DATA_AT = 128;

/** Memory for a ring; `capacity` in octets is a power of two. */
export function ringMemory(capacity: number): SharedArrayBuffer {
  assert(capacity >= 64 && (capacity & (capacity - 1)) === 0, 'a power of two');
  return new SharedArrayBuffer(DATA_AT + capacity);
}

/** What both ends see: the same octets. */
class RingEnd {
  /** The records, as octets and as words. */
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  protected readonly control: Int32Array;
  protected readonly capacity: number;

  constructor(memory: SharedArrayBuffer) {
    this.control = new Int32Array(memory, 0, DATA_AT / 4);
    this.bytes = new Uint8Array(memory, DATA_AT);
    this.words = new Uint32Array(memory, DATA_AT);
    this.capacity = this.bytes.length;
  }
}

/** Positions count on for ever, modulo 2^32; the ring's length divides that. */
export class RingWriter extends RingEnd {
  #written: number;
  #published: number;
  /** What the reader was known to have read: asking costs a cache line that it writes. */
  #read: number;

  constructor(memory: SharedArrayBuffer) {
    super(memory);
    this.#published = Atomics.load(this.control, PUBLISHED) >>> 0;
    this.#written = this.#published;
    this.#read = Atomics.load(this.control, READ) >>> 0;
  }

  /** Whether something was written that the reader does not see yet. */
  get isPending(): boolean {
    return this.#written !== this.#published;
  }

  /**
   * Room for a record of `len` octets, its length in the first word: where it begins in `bytes`, or
   * -1 when the ring is full.
   */
  reserve(len: number): number {
    const whole = (len + 7) & ~7;
    const at = this.#written & (this.capacity - 1);
    const skipped = at + whole > this.capacity ? this.capacity - at : 0;
    if (!this.#hasRoom(skipped + whole)) return -1;
    if (skipped > 0) this.words[at >>> 2] = 0;
    const from = skipped > 0 ? 0 : at;
    this.words[from >>> 2] = whole;
    this.#written = (this.#written + skipped + whole) >>> 0;
    return from;
  }

  /** Shows the reader what was written. */
  publish(): void {
    if (!this.isPending) return;
    this.#published = this.#written;
    Atomics.store(this.control, PUBLISHED, this.#published | 0);
  }

  /**
   * Whether more than half of it is taken: whoever writes should not take on more work. Then the
   * reader is asked to say when there is room again.
   */
  get isCongested(): boolean {
    const half = this.capacity / 2;
    if (this.#hasRoom(half)) return false;
    Atomics.store(this.control, AWAITED, 1);
    // The reader may have looked before that.
    this.#read = Atomics.load(this.control, READ) >>> 0;
    return this.#free < half;
  }

  #hasRoom(len: number): boolean {
    if (this.#free >= len) return true;
    this.#read = Atomics.load(this.control, READ) >>> 0;
    return this.#free >= len;
  }

  get #free(): number {
    return this.capacity - ((this.#written - this.#read) >>> 0);
  }
}

export class RingReader extends RingEnd {
  #at: number;
  /** Where the record begins that was shown last. */
  #shown: number;
  #end: number;

  constructor(memory: SharedArrayBuffer) {
    super(memory);
    this.#at = Atomics.load(this.control, READ) >>> 0;
    this.#shown = this.#at;
    this.#end = this.#at;
  }

  /** Looks for what has been published by now; whether there is something to read. */
  look(): boolean {
    this.#end = Atomics.load(this.control, PUBLISHED) >>> 0;
    return this.#end !== this.#at;
  }

  /** Where the next record begins, of those seen by `look`; -1: there is none. */
  next(): number {
    while (this.#at !== this.#end) {
      const at = this.#at & (this.capacity - 1);
      const len = this.words[at >>> 2]!;
      this.#shown = this.#at;
      this.#at = (this.#at + (len === 0 ? this.capacity - at : len)) >>> 0;
      if (len !== 0) return at;
    }
    return -1;
  }

  /** The writer may use the room of the records before the one that `next` has shown last. */
  releaseOthers(): void {
    Atomics.store(this.control, READ, this.#shown | 0);
  }

  /** Whether the writer waits for the room that there is now; it is told once. */
  takeAwaited(): boolean {
    if (Atomics.load(this.control, AWAITED) === 0) return false;
    Atomics.store(this.control, AWAITED, 0);
    return true;
  }

  /** And that of this one. */
  release(): void {
    Atomics.store(this.control, READ, this.#at | 0);
  }
}
