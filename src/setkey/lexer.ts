import { type Place, SetkeyError } from './place.ts';

/** A word, a "string" (text without the quotes), or one of `[`, `]`, `;`; `end` after the last. */
export interface Token {
  readonly kind: 'word' | 'string' | 'mark' | 'end';
  readonly text: string;
  readonly place: Place;
}

const WORD = /[^\s;[\]"#]+/y;

/**
 * Cuts a setkey file into tokens, on demand: what follows -P is one text up to the semicolon, in a
 * language of its own, and only the parser knows when it comes. Comments go from `#` to the end of
 * the line.
 */
export class Lexer {
  readonly #text: string;
  readonly #file: string;
  #at = 0;
  #line = 1;
  #lineAt = 0;
  #ahead: Token | undefined;

  constructor(text: string, file: string) {
    this.#text = text;
    this.#file = file;
  }

  peek(): Token {
    this.#ahead ??= this.#read();
    return this.#ahead;
  }

  next(): Token {
    const token = this.peek();
    this.#ahead = undefined;
    return token;
  }

  /**
   * The raw text up to the next `;`, which stays; comments are blanks in it, so that columns still
   * fit.
   */
  policyText(): { readonly text: string; readonly place: Place } {
    const place = this.#place(this.#at);
    const from = this.#at;
    const semicolon = this.#semicolonAfter(from);
    this.#moveTo(semicolon);
    return { text: withoutComments(this.#text.slice(from, semicolon)), place };
  }

  /** Goes on after the next `;`, or to the end: where the parser picks up after an error. */
  skipStatement(): void {
    const token = this.#ahead;
    this.#ahead = undefined;
    if (token?.kind === 'mark' && token.text === ';') return;
    this.#moveTo(Math.min(this.#semicolonAfter(this.#at) + 1, this.#text.length));
  }

  /** The place of a character `offset` after `place`, where `text` stands at `place`. */
  placeIn(text: string, place: Place, offset: number): Place {
    const before = text.slice(0, offset);
    const lines = before.split('\n');
    if (lines.length === 1) return { ...place, column: place.column + offset };
    const column = lines[lines.length - 1]!.length + 1;
    return { ...place, line: place.line + lines.length - 1, column };
  }

  #read(): Token {
    this.#skipBlanks();
    const at = this.#at;
    const place = this.#place(at);
    const first = this.#text[at];
    if (first === undefined) return { kind: 'end', text: '', place };
    if (first === '"') return this.#string(place);
    if (first === ';' || first === '[' || first === ']') {
      this.#at++;
      return { kind: 'mark', text: first, place };
    }
    WORD.lastIndex = at;
    const text = WORD.exec(this.#text)![0];
    this.#at += text.length;
    return { kind: 'word', text, place };
  }

  #string(place: Place): Token {
    const from = this.#at + 1;
    const to = this.#text.indexOf('"', from);
    const text = this.#text.slice(from, to < 0 ? undefined : to);
    if (to < 0 || text.includes('\n')) {
      this.#at = from;
      throw new SetkeyError(place, 'this string has no closing quote on its line');
    }
    this.#at = to + 1;
    return { kind: 'string', text, place };
  }

  #skipBlanks(): void {
    for (;;) {
      const one = this.#text[this.#at];
      if (one === '#') this.#at = this.#lineEnd(this.#at);
      else if (one !== undefined && /\s/.test(one)) this.#moveTo(this.#at + 1);
      else return;
    }
  }

  #semicolonAfter(from: number): number {
    for (let at = from; at < this.#text.length; at++) {
      if (this.#text[at] === '#' && isCommentAt(this.#text, at)) at = this.#lineEnd(at);
      if (this.#text[at] === ';') return at;
    }
    return this.#text.length;
  }

  #lineEnd(from: number): number {
    const end = this.#text.indexOf('\n', from);
    return end < 0 ? this.#text.length : end;
  }

  #moveTo(at: number): void {
    for (; this.#at < at; this.#at++) {
      if (this.#text[this.#at] === '\n') {
        this.#line++;
        this.#lineAt = this.#at + 1;
      }
    }
  }

  #place(at: number): Place {
    return { file: this.#file, line: this.#line, column: at - this.#lineAt + 1 };
  }
}

/** In a policy `unique#16385` is a reqid, so there a comment needs a blank before it. */
function isCommentAt(text: string, at: number): boolean {
  return at === 0 || /\s/.test(text[at - 1]!);
}

function withoutComments(text: string): string {
  return text.replace(/(^|\s)(#[^\n]*)/g, (_, blank: string, comment: string) =>
    blank.concat(' '.repeat(comment.length)),
  );
}
