/**
 * How shards wake each other: for each shard a flag that says that it is asleep, and a count of
 * calls for whoever waits with the whole thread. Waking one that is not asleep costs an exchange of
 * one word; one that is, a system call.
 */
const ASLEEP = 0;
const CALLS = 1;
/** Words of a shard: a cache line of its own. */
const LINE = 16;

/** Wakes the event loop of another thread: a write to its eventfd. */
export type WakeLoop = (shard: number) => void;

export class Bells {
  readonly #words: Int32Array;
  readonly #wakeLoop: WakeLoop;

  constructor(memory: SharedArrayBuffer, wakeLoop: WakeLoop) {
    this.#words = new Int32Array(memory);
    this.#wakeLoop = wakeLoop;
  }

  static memory(shards: number): SharedArrayBuffer {
    return new SharedArrayBuffer(4 * LINE * shards);
  }

  /** There is something for a shard. */
  ring(shard: number): void {
    const at = shard * LINE;
    Atomics.add(this.#words, at + CALLS, 1);
    Atomics.notify(this.#words, at + CALLS);
    if (Atomics.exchange(this.#words, at + ASLEEP, 0) === 1) this.#wakeLoop(shard);
  }

  /** From now on the shard wants its event loop to be woken; whoever says so looks once more. */
  sleep(shard: number): void {
    Atomics.store(this.#words, shard * LINE + ASLEEP, 1);
  }

  /** To be passed to `wait`, which then misses no call after this. */
  calls(shard: number): number {
    return Atomics.load(this.#words, shard * LINE + CALLS);
  }

  /** Stops the thread until the shard is called, or for so many milliseconds. */
  wait(shard: number, calls: number, ms: number): void {
    Atomics.wait(this.#words, shard * LINE + CALLS, calls, ms);
  }
}
