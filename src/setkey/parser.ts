import type { SaType } from '../wire/pfkey-message.ts';
import { expectMark, expectWord, parseHost, parseLookup, takeMark, unexpected } from './cursor.ts';
import { Lexer } from './lexer.ts';
import { parseProtocol, parseSa } from './parse-sa.ts';
import { parseSpd } from './parse-spd.ts';
import { type Place, SetkeyError } from './place.ts';
import type { Protocol, Statement } from './statement.ts';

export interface Script {
  /**
   * Statements and errors in the order of the file: what precedes an error can still be carried
   * out.
   */
  readonly entries: readonly (Statement | SetkeyError)[];
}

/** Each entry costs memory; a file that goes on being wrong is wrong after this many errors too. */
const ERRORS_MAX = 100;

const COMMANDS =
  'add, update, delete, deleteall, get, getspi, flush, dump, ' +
  'spdadd, spdupdate, spddelete, spdflush, spddump or exit';

/**
 * The statements of a setkey file. Never throws for bad input: after an error it goes on behind the
 * next semicolon.
 */
export function parseScript(text: string, file: string): Script {
  const lexer = new Lexer(text, file);
  const entries: (Statement | SetkeyError)[] = [];
  let errors = 0;
  while (errors < ERRORS_MAX) {
    try {
      if (takeMark(lexer, ';')) continue;
      if (lexer.peek().kind === 'end') break;
      const statement = parseStatement(lexer);
      expectMark(lexer, ';', `";" after ${statement.command}`);
      entries.push(statement);
    } catch (error) {
      if (!(error instanceof SetkeyError)) throw error;
      entries.push(error);
      errors++;
      lexer.skipStatement();
    }
  }
  return { entries };
}

/** The SA type that a protocol keyword stands for. */
export function saTypeOf(protocol: Protocol): SaType {
  if (protocol === 'ipcomp') return 'ipcomp';
  if (protocol === 'tcp') return 'tcpsignature';
  return protocol.startsWith('ah') ? 'ah' : 'esp';
}

function parseStatement(lexer: Lexer): Statement {
  const token = expectWord(lexer, COMMANDS);
  const { place, text } = token;
  switch (text) {
    case 'add':
    case 'update':
    case 'get':
    case 'delete':
    case 'getspi':
      return parseSa(lexer, text, place);
    case 'deleteall':
      return parseDeleteAll(lexer, place);
    case 'spdadd':
    case 'spdupdate':
    case 'spddelete':
      return parseSpd(lexer, text, place);
    case 'flush':
    case 'dump':
      return { command: text, place, satype: parseOptionalType(lexer) };
    case 'spdflush':
    case 'spddump':
      return { command: text, place };
    case 'exit':
    case 'quit':
    case 'bye':
      return { command: 'exit', place };
    default:
      throw unexpected(token, COMMANDS);
  }
}

function parseDeleteAll(lexer: Lexer, place: Place): Statement {
  const lookup = parseLookup(lexer);
  const src = parseHost(lexer, 'a source address');
  const dst = parseHost(lexer, 'a destination address');
  return { command: 'deleteall', place, lookup, src, dst, satype: parseOptionalType(lexer) };
}

function parseOptionalType(lexer: Lexer): SaType {
  return lexer.peek().kind === 'word' ? saTypeOf(parseProtocol(lexer)) : 'unspec';
}
