import { KeyError } from '../base/error.ts';
import { columnOf, parsePolicy } from '../spd/set-policy.ts';
import type { PolicyExtension } from '../wire/pfkey-message.ts';
import { expectWord, parseContext, parseLookup, parseNet, unexpected, wrong } from './cursor.ts';
import { parseIpv4Number } from './gre-key.ts';
import type { Lexer } from './lexer.ts';
import { type Place, SetkeyError } from './place.ts';
import type { PolicyStatement, SecurityContext, SelectorSpec } from './statement.ts';
import { isIcmp, PROTO, protocolNumber } from './upper.ts';

/**
 * `spdadd src dst upper [misc] [-ctx …] -P policy` or `spdadd tagged "TAG" -P policy`; up to the
 * semicolon.
 */
export function parseSpd(
  lexer: Lexer,
  command: PolicyStatement['command'],
  place: Place,
): PolicyStatement {
  const lookup = parseLookup(lexer);
  const first = lexer.peek();
  if (first.kind === 'word' && first.text === 'tagged') {
    lexer.next();
    const tag = lexer.next();
    if (tag.kind !== 'string' || tag.text === '') throw unexpected(tag, 'a tag in quotes');
    const policy = parsePolicyClause(lexer, command, place);
    return { command, place, lookup, selector: undefined, context: undefined, policy };
  }
  const selector = parseSelector(lexer);
  const context = parseOptionalContext(lexer);
  const policy = parsePolicyClause(lexer, command, place);
  return { command, place, lookup, selector, context, policy };
}

function parseSelector(lexer: Lexer): SelectorSpec {
  const src = parseNet(lexer, 'a source, address[/length][port]');
  const dst = parseNet(lexer, 'a destination, address[/length][port]');
  const expected = 'an upper protocol (any, tcp, udp, icmp, icmp6, a number …)';
  const token = expectWord(lexer, expected);
  const proto = protocolNumber(token.text);
  if (proto === undefined) throw unexpected(token, expected);
  return {
    src: src.host,
    dst: dst.host,
    srcPrefixLen: src.prefixLen,
    dstPrefixLen: dst.prefixLen,
    proto,
    misc: parseMisc(lexer, proto),
  };
}

/** ICMP `type,code` or a GRE key, whichever the protocol has. */
function parseMisc(lexer: Lexer, proto: number): SelectorSpec['misc'] {
  const token = lexer.peek();
  if (token.kind !== 'word' || token.text.startsWith('-')) return undefined;
  lexer.next();
  if (isIcmp(proto)) {
    const match = /^([0-9]{1,3})(?:,([0-9]{1,3}))?$/.exec(token.text);
    const type = Number(match?.[1]);
    const code = Number(match?.[2] ?? 0);
    if (!match || type > 255 || code > 255) throw unexpected(token, 'type,code (0 to 255 each)');
    return { src: type, dst: code };
  }
  if (proto === PROTO.gre) {
    const key = parseIpv4Number(token.text);
    if (key === undefined) throw unexpected(token, 'a GRE key, a number or a.b.c.d');
    return { src: key >>> 16, dst: key & 0xffff };
  }
  throw unexpected(token, '-ctx or -P');
}

function parseOptionalContext(lexer: Lexer): SecurityContext | undefined {
  if (lexer.peek().text !== '-ctx') return undefined;
  lexer.next();
  return parseContext(lexer);
}

/**
 * Columns of the policy language become places in the file. A direction alone says which policy is
 * to be deleted, and nothing about one that is to be made.
 */
function parsePolicyClause(
  lexer: Lexer,
  command: PolicyStatement['command'],
  statement: Place,
): PolicyExtension {
  const token = expectWord(lexer, '-P and a policy');
  if (token.text !== '-P') throw unexpected(token, '-P and a policy');
  const { text, place } = lexer.policyText();
  try {
    const policy = parsePolicy(text);
    if (command === 'spddelete' || /\S\s+\S/.test(text)) return policy;
    throw wrong(statement, `${command} needs an action: discard, none or ipsec`);
  } catch (error) {
    if (error instanceof SetkeyError || !(error instanceof KeyError)) throw error;
    const column = columnOf(error.message) ?? 1;
    const sentence = error.message.replace(/^column [0-9]+: /, '');
    throw wrong(lexer.placeIn(text, place, column - 1), sentence);
  }
}
