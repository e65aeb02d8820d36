import { KeyError } from '../base/error.ts';

/**
 * Reads the pieces of a policy text. Blanks and newlines may stand between any two of them; columns
 * count from 1 and restart on every line only for people: errors give the place in the whole text,
 * which is how policies are passed around.
 */
export class PolicyText {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  /** A run of letters and digits; '' when something else comes. */
  word(): string {
    return this.#run(/^[A-Za-z0-9_]+/);
  }

  /** A run that may be an address, dots and colons included. */
  address(): string {
    return this.#run(/^[A-Za-z0-9_.:%]+/);
  }

  /** The next word without taking it. */
  peek(): string {
    const at = this.#at;
    const word = this.word();
    this.#at = at;
    return word;
  }

  /** Whether this piece of punctuation is next. */
  startsWith(mark: string): boolean {
    this.#skip();
    return this.#text.startsWith(mark, this.#at);
  }

  /** Takes this piece of punctuation if it is next. */
  take(mark: string): boolean {
    if (!this.startsWith(mark)) return false;
    this.#at += mark.length;
    return true;
  }

  atEnd(): boolean {
    this.#skip();
    return this.#at >= this.#text.length;
  }

  /** An error about the piece that comes next. */
  unexpected(expected: string): KeyError {
    this.#skip();
    const rest = /^([A-Za-z0-9_]+|\S)/.exec(this.#text.slice(this.#at))?.[0];
    const got = rest === undefined ? 'the end' : `"${rest.slice(0, 40)}"`;
    return new KeyError('EINVAL', `column ${this.#at + 1}: expected ${expected}, got ${got}`);
  }

  /**
   * An error about what stands at `column` (from `column()`), for what can only be judged after it
   * was read.
   */
  wrong(column: number, sentence: string): KeyError {
    return new KeyError('EINVAL', `column ${column}: ${sentence}`);
  }

  /** Where the next piece starts, counted from 1. */
  column(): number {
    this.#skip();
    return this.#at + 1;
  }

  #run(pattern: RegExp): string {
    this.#skip();
    const match = pattern.exec(this.#text.slice(this.#at))?.[0] ?? '';
    this.#at += match.length;
    return match;
  }

  #skip(): void {
    while (/\s/.test(this.#text[this.#at] ?? '')) this.#at++;
  }
}
