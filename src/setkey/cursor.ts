import type { Lexer, Token } from './lexer.ts';
import { type Place, SetkeyError } from './place.ts';
import type { HostSpec, Lookup, SecurityContext } from './statement.ts';

/**
 * What the rules of several statements share: one function per piece of grammar, reading from the
 * lexer.
 */

export function expectWord(lexer: Lexer, expected: string): Token {
  const token = lexer.peek();
  if (token.kind !== 'word') throw unexpected(token, expected);
  return lexer.next();
}

export function takeMark(lexer: Lexer, mark: string): boolean {
  const token = lexer.peek();
  if (token.kind !== 'mark' || token.text !== mark) return false;
  lexer.next();
  return true;
}

export function expectMark(lexer: Lexer, mark: string, expected = `"${mark}"`): void {
  if (!takeMark(lexer, mark)) throw unexpected(lexer.peek(), expected);
}

/**
 * The error for a token that does not fit. Strings are not shown: they are keys more often than
 * not.
 */
export function unexpected(token: Token, expected: string): SetkeyError {
  const got = token.kind === 'end' ? 'the end of the file' : quote(token);
  return new SetkeyError(token.place, `expected ${expected}, got ${got}`);
}

export function quote(token: Token): string {
  if (token.kind === 'string' || /^0[xX][0-9a-fA-F]{9,}$/.test(token.text))
    return 'a key or string';
  return `"${token.text.slice(0, 60)}"`;
}

/** A decimal or 0x number from `min` to `max`. */
export function expectNumber(lexer: Lexer, what: string, min: number, max: number): number {
  const expected = `${what}, a number from ${min} to ${max}`;
  const token = expectWord(lexer, expected);
  const value = parseNumber(token.text);
  if (value === undefined || value < min || value > max) throw unexpected(token, expected);
  return value;
}

export function parseNumber(text: string): number | undefined {
  if (/^[0-9]{1,16}$/.test(text)) return Number.parseInt(text, 10);
  if (/^0[xX][0-9a-fA-F]{1,13}$/.test(text)) return Number.parseInt(text.slice(2), 16);
  return undefined;
}

/** One of these words; returns it. */
export function expectOneOf<Name extends string>(
  lexer: Lexer,
  names: readonly Name[],
  what: string,
): Name {
  const expected = `${what} (${names.join(', ')})`;
  const token = expectWord(lexer, expected);
  const found = names.find((name) => name === token.text);
  if (found === undefined) throw unexpected(token, expected);
  return found;
}

/** -4, -6, -n and their combinations, in front of the addresses. */
export function parseLookup(lexer: Lexer): Lookup {
  let family: Lookup['family'];
  let numeric = false;
  while (lexer.peek().kind === 'word' && /^-[46n]+$/.test(lexer.peek().text)) {
    for (const flag of lexer.next().text.slice(1)) {
      if (flag === 'n') numeric = true;
      else family = flag === '4' ? 4 : 6;
    }
  }
  return { family, numeric };
}

/** `address` or `name`, then `[port]`. */
export function parseHost(lexer: Lexer, what: string): HostSpec {
  const token = expectWord(lexer, what);
  return { name: token.text, port: parsePort(lexer), place: token.place };
}

/** `address[/length][port]` of a selector. */
export function parseNet(lexer: Lexer, what: string): { host: HostSpec; prefixLen?: number } {
  const token = expectWord(lexer, what);
  const slash = token.text.indexOf('/');
  const name = slash < 0 ? token.text : token.text.slice(0, slash);
  const host = (): HostSpec => ({ name, port: parsePort(lexer), place: token.place });
  if (slash < 0) return { host: host() };
  const length = token.text.slice(slash + 1);
  if (name === '' || !/^[0-9]{1,3}$/.test(length)) throw unexpected(token, what);
  return { host: host(), prefixLen: Number(length) };
}

/** `[port]`, `[any]` or `[service]`; 0 when there is none. */
function parsePort(lexer: Lexer): number | string {
  if (!takeMark(lexer, '[')) return 0;
  const token = expectWord(lexer, 'a port');
  expectMark(lexer, ']');
  if (token.text === 'any') return 0;
  if (!/^[0-9]+$/.test(token.text)) return token.text;
  if (token.text.length > 5 || Number(token.text) > 65535) {
    throw unexpected(token, 'a port from 0 to 65535');
  }
  return Number(token.text);
}

/** `doi algorithm "context"` after -ctx. */
export function parseContext(lexer: Lexer): SecurityContext {
  const doi = expectNumber(lexer, 'the domain of interpretation', 0, 255);
  const algorithm = expectNumber(lexer, 'the security algorithm', 0, 255);
  const token = lexer.next();
  if (token.kind !== 'string') throw unexpected(token, 'a security context in quotes');
  return { doi, algorithm, text: token.text };
}

export function wrong(place: Place, sentence: string): SetkeyError {
  return new SetkeyError(place, sentence);
}
