import { assert } from '../../base/assert.ts';
import { Mailbox } from './mailbox.ts';
import type { KeyPlace, Port, ToMain, ToShard } from './messages.ts';

/**
 * What the main shard and one other share besides rings:
 *
 *     words 0, 1   messages sent, and done
 *     word 2       messages that the other shard has sent
 *     mailbox      for sequence numbers, see `leases.ts`
 *     keys         of new SAs, on their way
 */
const SENT = 0;
const DONE = 1;
const TOLD = 2;
const WORDS_LEN = 64;
const KEYS_AT = WORDS_LEN + Mailbox.len;
const KEYS_LEN = 65_536;

export function controlMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(KEYS_AT + KEYS_LEN);
}

/** What both ends have, and how they send: `counter` is the word that counts what this one sent. */
class ControlEnd<In, Out> {
  readonly mailbox: Mailbox;
  protected readonly words: Int32Array;
  protected readonly keys: Uint8Array;
  protected readonly port: Port<In, Out>;
  /** Wakes the other end. */
  protected readonly wake: () => void;
  readonly #counter: number;

  constructor(memory: SharedArrayBuffer, port: Port<In, Out>, wake: () => void, counter: number) {
    this.mailbox = new Mailbox(memory, WORDS_LEN);
    this.words = new Int32Array(memory, 0, WORDS_LEN / 4);
    this.keys = new Uint8Array(memory, KEYS_AT);
    this.port = port;
    this.wake = wake;
    this.#counter = counter;
  }

  send(message: Out): void {
    this.port.post(message);
    Atomics.add(this.words, this.#counter, 1);
    this.wake();
  }
}

/** The main shard's end. */
export class ShardControl extends ControlEnd<ToMain, ToShard> {
  #keysUsed = 0;
  #taken = 0;

  constructor(memory: SharedArrayBuffer, port: Port<ToMain, ToShard>, wake: () => void) {
    super(memory, port, wake, SENT);
  }

  /** Whether everything is done that was sent. */
  get isDone(): boolean {
    const isDone = Atomics.load(this.words, DONE) === Atomics.load(this.words, SENT);
    // The shard has zeroed what it has read.
    if (isDone) this.#keysUsed = 0;
    return isDone;
  }

  /** Costs a look at one word when there is nothing. */
  take(): ToMain | undefined {
    if (Atomics.load(this.words, TOLD) === this.#taken) return undefined;
    this.#taken = (this.#taken + 1) | 0;
    const message = this.port.take();
    assert(message !== undefined, 'a message is there before it is counted');
    return message;
  }

  /** Whether there is room for keys of so many octets before the shard has done what was sent. */
  hasRoomForKeys(len: number): boolean {
    return this.isDone || this.#keysUsed + len <= KEYS_LEN;
  }

  /** Leaves keys for the shard, to be told of in the next message. */
  putKeys(authKey: Uint8Array, encryptKey: Uint8Array): KeyPlace {
    const [at, authLen, encryptLen] = [this.#keysUsed, authKey.length, encryptKey.length];
    assert(at + authLen + encryptLen <= KEYS_LEN, 'room for keys');
    this.keys.set(authKey, at);
    this.keys.set(encryptKey, at + authLen);
    this.#keysUsed += authLen + encryptLen;
    return { at, authLen, encryptLen };
  }
}

/** The other shard's end. */
export class MainControl extends ControlEnd<ToShard, ToMain> {
  #isDraining = false;

  constructor(memory: SharedArrayBuffer, port: Port<ToShard, ToMain>, wake: () => void) {
    super(memory, port, wake, TOLD);
  }

  /**
   * Does what was sent by now, in order; within itself, nothing. Costs a look at one word when
   * there is nothing.
   */
  drain(handle: (message: ToShard) => void): void {
    if (this.#isDraining) return;
    const done = this.words[DONE]!;
    const count = (Atomics.load(this.words, SENT) - done) | 0;
    this.#isDraining = count > 0;
    for (let i = 0; i < count; i++) {
      const message = this.port.take();
      assert(message !== undefined, 'a message is there before it is counted');
      handle(message);
      Atomics.add(this.words, DONE, 1);
    }
    this.#isDraining = false;
    if (count > 0) this.wake();
  }

  /** The keys of an SA, which are then gone from the memory that is shared. */
  takeKeys({ at, authLen, encryptLen }: KeyPlace): { authKey: Uint8Array; encryptKey: Uint8Array } {
    const authKey = this.keys.slice(at, at + authLen);
    const encryptKey = this.keys.slice(at + authLen, at + authLen + encryptLen);
    this.keys.fill(0, at, at + authLen + encryptLen);
    return { authKey, encryptKey };
  }
}
