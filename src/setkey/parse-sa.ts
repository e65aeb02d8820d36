import { KeyError } from '../base/error.ts';
import {
  ALGORITHMS,
  type Algorithm,
  authenticationByName,
  checkKeyLength,
  encryptionByName,
} from '../crypto/algorithms.ts';
import { MODE, SA_FLAG } from '../wire/pfkey-table.ts';
import {
  expectNumber,
  expectOneOf,
  expectWord,
  parseContext,
  parseHost,
  parseLookup,
  parseNumber,
  unexpected,
  wrong,
} from './cursor.ts';
import type { Lexer, Token } from './lexer.ts';
import type { Place } from './place.ts';
import type { Keyed, Protocol, SaOptions, SaStatement } from './statement.ts';

export const PROTOCOLS: readonly Protocol[] = [
  'esp',
  'ah',
  'ipcomp',
  'tcp',
  'esp-udp',
  'esp-old',
  'ah-old',
];

/** SADB_X_CALG_*. */
export const COMPRESSION = { oui: 1, deflate: 2, lzs: 3 } as const;

const FLAGS = {
  'zero-pad': SA_FLAG.padZero,
  'random-pad': SA_FLAG.padRandom,
  'seq-pad': SA_FLAG.padSequential,
} as const;

/** Four billion packets: what a window could mean at all; the host has its own, smaller limit. */
const WINDOW_MAX = 0xffffffff;

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/** Options and algorithms while they are read. */
interface Draft {
  readonly protocol: Protocol;
  readonly options: Mutable<SaOptions>;
  encryption: Keyed | undefined;
  authentication: Keyed | undefined;
  compression: number | undefined;
}

/**
 * `add src dst proto spi [option]… [algorithm]…` and the four that name an SA the same way; up to
 * the semicolon.
 */
export function parseSa(lexer: Lexer, command: SaStatement['command'], place: Place): SaStatement {
  const lookup = parseLookup(lexer);
  const src = parseHost(lexer, 'a source address');
  const dst = parseHost(lexer, 'a destination address');
  const protocol = parseProtocol(lexer);
  const originalAddress =
    protocol === 'esp-udp' && parseNumber(lexer.peek().text) === undefined
      ? parseHost(lexer, 'an SPI, or the original address of the peer')
      : undefined;
  const spi = expectNumber(lexer, 'an SPI', 0, 0xffffffff);
  const draft: Draft = {
    protocol,
    options: noOptions(),
    encryption: undefined,
    authentication: undefined,
    compression: undefined,
  };
  const full = command === 'add' || command === 'update';
  for (let token = lexer.peek(); isOption(token); token = lexer.peek()) {
    lexer.next();
    parseOption(lexer, token, draft, full);
  }
  if (full) checkComplete(draft, place);
  const { options, encryption, authentication, compression } = draft;
  const names = { lookup, src, dst, protocol, spi, originalAddress };
  return { command, place, ...names, options, encryption, authentication, compression };
}

/** A protocol keyword, for the statements that end with one too. */
export function parseProtocol(lexer: Lexer): Protocol {
  return expectOneOf(lexer, PROTOCOLS, 'a protocol');
}

function noOptions(): Mutable<SaOptions> {
  return {
    mode: MODE.any,
    reqid: 0,
    replay: 0,
    windowPackets: undefined,
    flags: SA_FLAG.cyclicSequence,
    hard: {},
    soft: {},
    context: undefined,
    ahAlign: 0,
    df: 'default',
    ecn: 'default',
  };
}

function isOption(token: Token): boolean {
  return token.kind === 'word' && token.text.startsWith('-');
}

function parseOption(lexer: Lexer, token: Token, draft: Draft, full: boolean): void {
  const { options } = draft;
  switch (token.text) {
    case '-m':
      options.mode = MODE[expectOneOf(lexer, ['transport', 'tunnel', 'any'], 'a mode')];
      return;
    case '-u':
      options.reqid = expectNumber(lexer, 'a reqid', 0, 0xffffffff);
      return;
    case '-r':
    case '-w':
      parseWindow(lexer, token, draft);
      return;
    case '-f':
      parseFlag(lexer, draft);
      return;
    case '-lh':
      options.hard = { ...options.hard, seconds: expectLimit(lexer, 'a hard lifetime in seconds') };
      return;
    case '-ls':
      options.soft = { ...options.soft, seconds: expectLimit(lexer, 'a soft lifetime in seconds') };
      return;
    case '-bh':
      options.hard = { ...options.hard, bytes: expectLimit(lexer, 'a hard lifetime in bytes') };
      return;
    case '-bs':
      options.soft = { ...options.soft, bytes: expectLimit(lexer, 'a soft lifetime in bytes') };
      return;
    case '-ctx':
      options.context = parseContext(lexer);
      return;
    case '-df':
      options.df = expectOneOf(lexer, ['default', 'clear', 'set', 'copy'], 'a DF choice');
      return;
    case '-ecn':
      options.ecn = expectOneOf(lexer, ['default', 'forbidden', 'allowed'], 'an ECN choice');
      return;
    case '-align':
      options.ahAlign = expectOneOf(lexer, ['4', '8'], 'an AH alignment') === '4' ? 4 : 8;
      return;
    default:
      if (full) parseAlgorithm(lexer, token, draft);
      else
        throw unexpected(token, 'an option (-m, -u, -r, -w, -f, -lh, -ls, -bh, -bs, -ctx) or ";"');
  }
}

function parseAlgorithm(lexer: Lexer, token: Token, draft: Draft): void {
  const { protocol, options } = draft;
  if (token.text === '-E' && protocol.startsWith('esp')) {
    draft.encryption = parseEncryption(lexer, draft);
  } else if (token.text === '-A' && protocol !== 'ipcomp') {
    draft.authentication = parseAuthentication(lexer);
  } else if (token.text === '-C' && protocol === 'ipcomp') {
    const names = Object.keys(COMPRESSION) as (keyof typeof COMPRESSION)[];
    draft.compression = COMPRESSION[expectOneOf(lexer, names, 'a compression algorithm')];
  } else if (token.text === '-R' && protocol === 'ipcomp') {
    options.flags |= SA_FLAG.rawCpi;
  } else {
    const own = protocol === 'ipcomp' ? '-C' : protocol.startsWith('esp') ? '-E, -A' : '-A';
    throw unexpected(token, `an option of ${protocol} (${own}, -m, -u, -r, -f, -lh …) or ";"`);
  }
}

function parseWindow(lexer: Lexer, token: Token, { protocol, options }: Draft): void {
  if (protocol.endsWith('-old')) {
    throw wrong(token.place, `${protocol} has no sequence numbers, so it takes no ${token.text}`);
  }
  if (token.text === '-r') options.replay = expectNumber(lexer, 'a replay window', 0, 255);
  else options.windowPackets = expectNumber(lexer, 'a replay window in packets', 0, WINDOW_MAX);
}

function parseFlag(lexer: Lexer, { options }: Draft): void {
  const names = ['zero-pad', 'random-pad', 'seq-pad', 'cyclic-seq', 'nocyclic-seq', 'esn'] as const;
  const name = expectOneOf(lexer, names, 'a flag');
  if (name === 'nocyclic-seq') options.flags &= ~SA_FLAG.cyclicSequence;
  else if (name === 'cyclic-seq') options.flags |= SA_FLAG.cyclicSequence;
  else if (name === 'esn') options.flags |= SA_FLAG.esn;
  else options.flags = (options.flags & ~SA_FLAG.padMask) | FLAGS[name];
}

function expectLimit(lexer: Lexer, what: string): number {
  return expectNumber(lexer, what, 0, Number.MAX_SAFE_INTEGER);
}

function parseEncryption(lexer: Lexer, { protocol, options }: Draft): Keyed {
  const names = ALGORITHMS.filter((row) => row.kind !== 'mac').map((row) => row.name);
  const expected = `an encryption algorithm (${names.join(', ')})`;
  const token = expectWord(lexer, expected);
  // Two spellings of DES for what RFC 1829 allowed: an IV of 32 bits, or one that is derived.
  const spelling = token.text === 'des-deriv' || token.text === 'des-32iv';
  const algorithm = encryptionByName(spelling ? 'des-cbc' : token.text);
  if (!algorithm) throw unexpected(token, expected);
  if (token.text === 'des-32iv' && protocol !== 'esp-old') {
    throw wrong(token.place, 'des-32iv is for esp-old only');
  }
  if (token.text === 'des-32iv') options.flags |= SA_FLAG.iv4b;
  if (token.text === 'des-deriv') options.flags |= SA_FLAG.derived;
  return parseKeyed(lexer, algorithm, token.place);
}

function parseAuthentication(lexer: Lexer): Keyed {
  const names = ALGORITHMS.filter((row) => row.kind === 'mac').map((row) => row.name);
  const expected = `an authentication algorithm (${names.join(', ')})`;
  const token = expectWord(lexer, expected);
  const algorithm = authenticationByName(token.text);
  if (!algorithm) throw unexpected(token, expected);
  return parseKeyed(lexer, algorithm, token.place);
}

/**
 * The key after an algorithm's name: "text" or 0xhex. `null` takes none, or FreeBSD's empty string.
 */
function parseKeyed(lexer: Lexer, algorithm: Algorithm, place: Place): Keyed {
  const token = lexer.peek();
  if (algorithm.name === 'null') {
    if (token.kind === 'string' && token.text === '') lexer.next();
    return { algorithm, key: new Uint8Array(0), place };
  }
  const key = keyOctets(token);
  if (!key) throw unexpected(token, `a key for ${algorithm.name}, "text" or 0x with hex digits`);
  lexer.next();
  try {
    checkKeyLength(algorithm, key.length * 8);
  } catch (error) {
    if (error instanceof KeyError) throw wrong(token.place, error.message);
    throw error;
  }
  return { algorithm, key, place };
}

function keyOctets(token: Token): Uint8Array | undefined {
  if (token.kind === 'string') return new TextEncoder().encode(token.text);
  const match = token.kind === 'word' ? /^0[xX]([0-9a-fA-F]+)$/.exec(token.text) : null;
  if (!match) return undefined;
  // With an odd number of digits, the first one alone is an octet.
  const digits = match[1]!.length % 2 === 0 ? match[1]! : `0${match[1]}`;
  return Uint8Array.from(digits.match(/../g)!, (pair) => Number.parseInt(pair, 16));
}

function checkComplete(draft: Draft, place: Place): void {
  const { protocol, encryption, authentication, compression } = draft;
  if (protocol.startsWith('esp') && !encryption) {
    throw wrong(place, `${protocol} needs an encryption algorithm: -E NAME KEY (or -E null)`);
  }
  if ((protocol.startsWith('ah') || protocol === 'tcp') && !authentication) {
    throw wrong(place, `${protocol} needs an authentication algorithm: -A NAME KEY`);
  }
  if (protocol === 'ipcomp' && compression === undefined) {
    throw wrong(place, 'ipcomp needs a compression algorithm: -C deflate');
  }
}
