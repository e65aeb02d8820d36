import { assert } from '../../base/assert.ts';
import type { SequenceLease, SequenceStore } from '../../sad/sequence.ts';
import { setU16, u16 } from '../../wire/bytes.ts';
import type { Mailbox } from './mailbox.ts';

/** Sequence numbers that an SA is given at a time from what its shard has for it. */
const STEP = 16_384;
/** When so few are left, more are asked for, while the SA goes on. */
const LOW = 65_536;
/** The main shard may be at a long request; who sends waits, as it would on one thread. */
const ANSWER_MS = 60_000;

/**
 * A shard's way to the numbers of its SAs: the main shard alone writes the file, so that whichever
 * shard has a key next goes on where the last one stopped, also with another number of workers.
 * More are asked for ahead of time: writing them down takes milliseconds.
 */
export class ShardLeases implements SequenceStore {
  readonly #mailbox: Mailbox;
  readonly #wakeMain: () => void;
  /** Instead of stopping the thread: tests run both shards on one. */
  readonly #waiting: (() => void) | undefined;
  #next = 0;
  /** The one for which more has been asked. */
  #asking: Lease | undefined;

  constructor(mailbox: Mailbox, wakeMain: () => void, waiting?: () => void) {
    this.#mailbox = mailbox;
    this.#wakeMain = wakeMain;
    this.#waiting = waiting;
  }

  lease(material: readonly Uint8Array[]): SequenceLease {
    const number = this.#next++;
    const text = packed(material);
    const start = this.#ask('lease', number, 0, text);
    text.fill(0);
    assert(start >= 1, 'the main shard answers');
    const lease: Lease = { number, granted: start };
    return {
      start,
      extend: (needed) => this.#extend(lease, needed),
      release: (next) => void this.#ask('release', number, next),
    };
  }

  #extend(lease: Lease, needed: number): number {
    this.#collect();
    if (needed > lease.granted) {
      const limit = this.#ask('extend', lease.number, needed);
      if (limit < needed) return -1;
      lease.granted = limit;
    } else if (lease.granted - needed < LOW && this.#asking === undefined) {
      this.#asking = lease;
      this.#mailbox.ask('extend', lease.number, lease.granted);
      this.#wakeMain();
    }
    return Math.min(lease.granted, needed + STEP);
  }

  /** What has come of the numbers that were asked for ahead of time. */
  #collect(): void {
    const lease = this.#asking;
    if (lease === undefined) return;
    const limit = this.#mailbox.takeAnswer();
    if (limit === undefined) return;
    // Not to be had: it is asked again when it is needed.
    if (limit > lease.granted) lease.granted = limit;
    this.#asking = undefined;
  }

  /** -1: there was no answer, or it was no. */
  #ask(
    op: 'lease' | 'extend' | 'release',
    lease: number,
    number: number,
    text?: Uint8Array,
  ): number {
    if (this.#asking !== undefined && !this.#await(() => this.#asking === undefined)) return -1;
    this.#mailbox.ask(op, lease, number, text);
    this.#wakeMain();
    let answer: number | undefined;
    this.#await(() => {
      answer = this.#mailbox.takeAnswer();
      return answer !== undefined;
    });
    assert(answer !== undefined, 'the main shard answers within a minute');
    return answer;
  }

  #await(isDone: () => boolean): boolean {
    for (let i = 0; i < 2; i++) {
      this.#collect();
      if (isDone()) return true;
      if (this.#waiting) this.#waiting();
      else this.#mailbox.wait(ANSWER_MS);
    }
    this.#collect();
    return isDone();
  }
}

interface Lease {
  readonly number: number;
  /** Numbers below it are the shard's. */
  granted: number;
}

/** Answers one shard. */
export class LeaseDesk {
  readonly #mailbox: Mailbox;
  readonly #store: SequenceStore;
  readonly #leases = new Map<number, SequenceLease>();

  constructor(mailbox: Mailbox, store: SequenceStore) {
    this.#mailbox = mailbox;
    this.#store = store;
  }

  /** Whether there was a question. */
  serve(): boolean {
    const question = this.#mailbox.question();
    if (question === undefined) return false;
    const { op, lease: number, number: asked, text } = question;
    if (op === 'lease') {
      const lease = this.#store.lease(unpacked(text));
      this.#leases.set(number, lease);
      this.#mailbox.answer(lease.start);
      return true;
    }
    const lease = this.#leases.get(number);
    assert(lease !== undefined, 'a lease that was given');
    if (op === 'extend') {
      this.#mailbox.answer(lease.extend(asked));
    } else {
      lease.release(asked);
      this.#leases.delete(number);
      this.#mailbox.answer(0);
    }
    return true;
  }
}

/** Each part behind its length. */
function packed(parts: readonly Uint8Array[]): Uint8Array {
  const text = new Uint8Array(parts.reduce((sum, part) => sum + 2 + part.length, 0));
  let at = 0;
  for (const part of parts) {
    setU16(text, at, part.length);
    text.set(part, at + 2);
    at += 2 + part.length;
  }
  return text;
}

function unpacked(text: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < text.length; ) {
    const len = u16(text, at);
    parts.push(text.subarray(at + 2, at + 2 + len));
    at += 2 + len;
  }
  return parts;
}
