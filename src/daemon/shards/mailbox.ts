import { assert } from '../../base/assert.ts';

/**
 * One question at a time from a shard to the main one, which is answered while the asking thread
 * waits, or later:
 *
 *     word 0   free, asked or answered
 *          1   what is asked
 *          2   about which lease
 *          3   octets of text
 *     double 0 at octet 16: the number that is asked about, then the answer
 *     text at octet 32
 */
const STATE = 0;
const FREE = 0;
const ASKED = 1;
const ANSWERED = 2;
const NUMBER_AT = 16;
const TEXT_AT = 32;
const TEXT_MAX = 2016;

export interface Question {
  readonly op: 'lease' | 'extend' | 'release';
  readonly lease: number;
  readonly number: number;
  /** May hold keys: whoever reads it zeroes it. */
  readonly text: Uint8Array;
}

const OPS = ['lease', 'extend', 'release'] as const;
const NO_TEXT = new Uint8Array(0);

export class Mailbox {
  static readonly len = TEXT_AT + TEXT_MAX;
  static readonly textMax = TEXT_MAX;

  readonly #words: Int32Array;
  readonly #number: Float64Array;
  readonly #text: Uint8Array;

  constructor(memory: SharedArrayBuffer, at: number) {
    this.#words = new Int32Array(memory, at, 4);
    this.#number = new Float64Array(memory, at + NUMBER_AT, 1);
    this.#text = new Uint8Array(memory, at + TEXT_AT, TEXT_MAX);
  }

  get isFree(): boolean {
    return Atomics.load(this.#words, STATE) === FREE;
  }

  /** The other side must be woken. */
  ask(op: Question['op'], lease: number, number: number, text: Uint8Array = NO_TEXT): void {
    assert(this.isFree && text.length <= TEXT_MAX, 'one question at a time');
    this.#words[1] = OPS.indexOf(op);
    this.#words[2] = lease;
    this.#words[3] = text.length;
    this.#number[0] = number;
    this.#text.set(text);
    Atomics.store(this.#words, STATE, ASKED);
  }

  /** The answer, if it is there; the mailbox is free then. */
  takeAnswer(): number | undefined {
    if (Atomics.load(this.#words, STATE) !== ANSWERED) return undefined;
    const answer = this.#number[0]!;
    Atomics.store(this.#words, STATE, FREE);
    return answer;
  }

  /** Stops the thread until there is an answer, or for so many milliseconds. */
  wait(ms: number): void {
    Atomics.wait(this.#words, STATE, ASKED, ms);
  }

  /** The side that answers: what is asked, if anything is. */
  question(): Question | undefined {
    if (Atomics.load(this.#words, STATE) !== ASKED) return undefined;
    const text = this.#text.subarray(0, this.#words[3]!);
    const op = OPS[this.#words[1]!]!;
    return { op, lease: this.#words[2]!, number: this.#number[0]!, text };
  }

  answer(number: number): void {
    this.#text.fill(0);
    this.#number[0] = number;
    Atomics.store(this.#words, STATE, ANSWERED);
    Atomics.notify(this.#words, STATE);
  }
}
