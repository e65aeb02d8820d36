const NEWLINE = 0x0a;

/**
 * Cuts a stream of octets into lines of UTF-8, and keeps no more than one line that is not
 * complete.
 */
export class LineReader {
  readonly #lenMax: number;
  readonly #decoder = new TextDecoder();
  readonly #lines: string[] = [];
  #parts: Uint8Array[] = [];
  #partsLen = 0;
  #isTooLong = false;

  constructor(lenMax: number) {
    this.#lenMax = lenMax;
  }

  /** Whether a line was longer than allowed; nothing after it is read any more. */
  get isTooLong(): boolean {
    return this.#isTooLong;
  }

  add(chunk: Uint8Array): void {
    let at = 0;
    while (!this.#isTooLong) {
      const end = chunk.indexOf(NEWLINE, at);
      this.#keep(chunk.slice(at, end < 0 ? chunk.length : end));
      if (end < 0) return;
      this.#endLine();
      at = end + 1;
    }
  }

  /** The next line that is not blank, without its end; undefined when there is none yet. */
  next(): string | undefined {
    return this.#lines.shift();
  }

  #keep(part: Uint8Array): void {
    this.#parts.push(part);
    this.#partsLen += part.length;
    if (this.#partsLen > this.#lenMax) this.#isTooLong = true;
  }

  #endLine(): void {
    if (this.#isTooLong) return;
    const whole = new Uint8Array(this.#partsLen);
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.length;
    }
    this.#parts = [];
    this.#partsLen = 0;
    const line = this.#decoder.decode(whole).trim();
    if (line !== '') this.#lines.push(line);
  }
}
