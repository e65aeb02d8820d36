import { formatAddress, parseAddress } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import { h16 } from '../wire/pfkey-bytes.ts';
import { decodeExtension } from '../wire/pfkey-decode.ts';
import { encodeExtension } from '../wire/pfkey-encode.ts';
import type { Dialect, Endpoint, PolicyExtension, PolicyRequest } from '../wire/pfkey-message.ts';
import {
  DIRECTION,
  extensionRow,
  LEVEL,
  MODE,
  POLICY_TYPE,
  REQID_MANUAL_MAX,
  UNIT,
} from '../wire/pfkey-table.ts';
import { PolicyText } from './policy-text.ts';

/**
 * The policy language of ipsec_set_policy(3), both ways:
 *
 *   policy   = direction [priority] [action]               direction alone names a policy to delete
 *   priority = ("prio" | "priority") (["-"] N | ("low" | "def" | "high") [("+" | "-") N])
 *   action   = "discard" | "none" | "bypass" | "entrust" | "ipsec" request*
 *   request  = protocol "/" mode ["/" [ends] ["/" level]]
 *   ends     = address ["[" port "]"] "-" address ["[" port "]"] | "me-any" | "any-me"
 *   level    = "default" | "use" | "require" | "unique" [":" reqid]
 *
 * Deviation: KAME's `protocol/level` and `encap/a-b` are refused, as ipsec-tools does and as KAME's
 * own test table wants; `ipsec` without requests is accepted, as ipsec-tools does, and refused by
 * the host. A reqid may follow every level and may be written with "#", so that what `formatPolicy`
 * prints can be read again.
 */

const PROTOCOL = { esp: 50, ah: 51, ipcomp: 108 } as const;
const BASE = { low: 0xc0000000, def: 0x80000000, high: 0x40000000 } as const;

/** Stored priority of a policy without a clause; smaller is earlier. */
export const PRIORITY_DEFAULT = BASE.def;

/**
 * How far `prio low + N` and its like may go, so that the three ranges do not overlap (ipsec-tools'
 * limit).
 */
const OFFSET_MAX = 0x3fffffff;

/**
 * `prio N` counts both ways from the middle: up to the priority 0, which goes before all others,
 * and down to the last.
 */
const ABOVE_MAX = 0x8000_0000;
const BELOW_MAX = 0x7fff_ffff;

/** More layers than any host accepts; the bound is on what a text can make us build. */
const REQUESTS_MAX = 64;

/** Reads a policy; throws EINVAL with the column and what was expected there. */
export function parsePolicy(source: string): PolicyExtension {
  const text = new PolicyText(source);
  const direction = keyword(text, pick(DIRECTION, 'in', 'out', 'fwd'), 'in, out or fwd');
  const none = { type: 'X_POLICY', policyType: 0, direction, reserved: 0, id: 0 } as const;
  if (text.atEnd()) return { ...none, priority: 0, requests: [] };
  const priority = parsePriority(text);
  const policyType = keyword(text, POLICY_TYPE, 'discard, none, bypass, entrust or ipsec');
  const requests: PolicyRequest[] = [];
  while (policyType === POLICY_TYPE.ipsec && !text.atEnd()) {
    if (requests.length === REQUESTS_MAX) throw text.unexpected('no more requests');
    requests.push(parseRequest(text, direction));
  }
  if (!text.atEnd()) throw text.unexpected('the end of the policy');
  return { ...none, policyType, priority, requests };
}

/**
 * What ipsec_set_policy(3) makes of a text: one `sadb_x_policy` with its requests, for setsockopt
 * and PF_KEY. EINVAL as `parsePolicy`, and for a reqid that the BSD dialect has no room for.
 */
export function policyToBytes(source: string, dialect: Dialect): Uint8Array {
  return encodeExtension(parsePolicy(source), dialect);
}

/**
 * The policy in such bytes. EINVAL for lengths that are wrong, EAFNOSUPPORT for tunnel ends of
 * other address families. The type of the extension is not looked at: OpenIKED writes that of
 * another into its socket options.
 */
export function policyFromBytes(p: Uint8Array, dialect: Dialect): PolicyExtension {
  const headLen = extensionRow('X_POLICY').minLen;
  if (p.length < headLen) {
    throw new KeyError('EINVAL', `${p.length} octets, a sadb_x_policy has at least ${headLen}`);
  }
  const said = h16(p, 0) * UNIT;
  if (said !== p.length) {
    throw new KeyError('EINVAL', `sadb_x_policy_len says ${said} octets, there are ${p.length}`);
  }
  return decodeExtension('X_POLICY', p, dialect) as PolicyExtension;
}

/** `column` of a KeyError of parsePolicy, for callers whose text starts somewhere in a file. */
export function columnOf(message: string): number | undefined {
  const match = /^column ([0-9]+): /.exec(message);
  return match ? Number(match[1]) : undefined;
}

export interface PolicyFormat {
  /** Endpoint ports as `address[port]`. */
  readonly ports: boolean;
}

/**
 * The text of a policy in the wording of ipsec_dump_policy(3): requests on lines of their own after
 * a tab, automatic reqids with `#`. What the language has no word for is shown by its number.
 */
export function formatPolicy(policy: PolicyExtension, { ports }: PolicyFormat): string {
  const direction = nameOf(DIRECTION, policy.direction) ?? `direction ${policy.direction}`;
  const action = nameOf(POLICY_TYPE, policy.policyType) ?? `type ${policy.policyType}`;
  const head = [direction, formatPriority(policy.priority), action].filter((one) => one !== '');
  const requests = policy.requests.map((request) => `\n\t${formatRequest(request, ports)}`);
  return head.join(' ') + requests.join('');
}

/** One request on one line, `esp/tunnel/192.0.2.1-192.0.2.2/unique:7`. */
export function formatRequest(request: PolicyRequest, ports: boolean): string {
  const protocol = nameOf(PROTOCOL, request.proto) ?? `${request.proto}`;
  const mode = nameOf(MODE, request.mode) ?? `${request.mode}`;
  const level = nameOf(LEVEL, request.level) ?? `${request.level}`;
  const { src, dst } = request;
  const ends = src && dst ? `${formatEnd(src, ports)}-${formatEnd(dst, ports)}` : '';
  return `${protocol}/${mode}/${ends}/${level}${formatReqid(request.reqid)}`;
}

function parsePriority(text: PolicyText): number {
  const word = text.peek();
  if (word !== 'prio' && word !== 'priority') return PRIORITY_DEFAULT;
  text.word();
  if (!Object.hasOwn(BASE, text.peek())) {
    const negative = text.take('-');
    const max = negative ? BELOW_MAX : ABOVE_MAX;
    const offset = number(text, max, 'low, def, high or a number');
    return BASE.def - (negative ? -offset : offset);
  }
  const base = keyword(text, BASE, 'low, def or high');
  const sign = text.take('+') ? 1 : text.take('-') ? -1 : 0;
  return sign === 0 ? base : base - sign * number(text, OFFSET_MAX, 'a number');
}

function parseRequest(text: PolicyText, direction: number): PolicyRequest {
  const proto = keyword(text, PROTOCOL, 'esp, ah or ipcomp');
  if (!text.take('/')) throw text.unexpected('"/" and a mode');
  const modes = pick(MODE, 'transport', 'tunnel');
  const modeAt = text.column();
  const mode = keyword(text, modes, 'transport or tunnel');
  const slash = text.take('/');
  const nextIsRequest = Object.hasOwn(PROTOCOL, text.peek());
  const ends = slash && !nextIsRequest ? parseEnds(text, direction) : undefined;
  if (mode === MODE.tunnel && ends === undefined) {
    throw text.wrong(modeAt, 'expected the two addresses of the tunnel after "tunnel/"');
  }
  let level = LEVEL.default as number;
  let reqid = 0;
  // "transport/a-b/" ends without a level, but "transport//" does not.
  if (slash && !nextIsRequest && text.take('/')) {
    if (ends === undefined || Object.hasOwn(LEVEL, text.peek())) {
      level = keyword(text, LEVEL, 'default, use, require or unique');
      if (text.take(':') || text.take('#')) reqid = number(text, 0xffffffff, 'a reqid');
    }
  }
  return { proto, mode, level, reqid, ...(ends === undefined ? {} : ends) };
}

type Ends = { readonly src: Endpoint; readonly dst: Endpoint } | Record<never, never>;

/**
 * The two ends; an empty object for those that the kernel fills in; undefined when there are none.
 */
function parseEnds(text: PolicyText, direction: number): Ends | undefined {
  const column = text.column();
  const word = text.peek();
  if (word === '' && !text.startsWith(':')) return undefined;
  if (word === 'me' || word === 'any') {
    text.word();
    const other = word === 'me' ? 'any' : 'me';
    if (!text.take('-') || text.peek() !== other) throw text.unexpected(`"-${other}"`);
    text.word();
    const fits = word === 'me' ? direction === DIRECTION.out : direction === DIRECTION.in;
    if (fits) return {};
    throw text.wrong(column, 'me-any is for out policies, any-me for in policies');
  }
  const src = parseEnd(text);
  if (!text.take('-')) throw text.unexpected('"-" and the other address');
  const dst = parseEnd(text);
  if (src.address.family !== dst.address.family) {
    throw text.wrong(column, 'one end is IPv4 and the other IPv6; they must be of one family');
  }
  return { src, dst };
}

function parseEnd(text: PolicyText): Endpoint {
  const column = text.column();
  const word = text.address();
  const address = parseAddress(word);
  if (!address) {
    throw text.wrong(column, `expected an IPv4 or IPv6 address, got "${word.slice(0, 50)}"`);
  }
  if (!text.take('[')) return { address, port: 0 };
  const any = text.peek() === 'any';
  if (any) text.word();
  const port = any ? 0 : number(text, 0xffff, 'a port number or any');
  if (!text.take(']')) throw text.unexpected('"]"');
  return { address, port };
}

function keyword(
  text: PolicyText,
  table: Readonly<Record<string, number>>,
  expected: string,
): number {
  const word = text.peek();
  if (!Object.hasOwn(table, word)) throw text.unexpected(expected);
  text.word();
  return table[word]!;
}

function number(text: PolicyText, max: number, expected: string): number {
  const word = text.peek();
  if (!/^[0-9]{1,10}$/.test(word) || Number(word) > max) {
    throw text.unexpected(`${expected} (at most ${max})`);
  }
  text.word();
  return Number(word);
}

function formatPriority(priority: number): string {
  if (priority === 0) return '';
  const near = priority < 0x60000000 ? 'high' : priority < 0xa0000000 ? 'def' : 'low';
  const offset = BASE[near] - priority;
  if (offset === 0) return `prio ${near}`;
  return `prio ${near} ${offset > 0 ? '+' : '-'} ${Math.abs(offset)}`;
}

function formatReqid(reqid: number): string {
  if (reqid === 0) return '';
  return reqid > REQID_MANUAL_MAX ? `#${reqid}` : `:${reqid}`;
}

function formatEnd(end: Endpoint, ports: boolean): string {
  const address = formatAddress(end.address);
  return ports ? `${address}[${end.port === 0 ? 'any' : end.port}]` : address;
}

function nameOf(table: Readonly<Record<string, number>>, value: number): string | undefined {
  return Object.keys(table).find((name) => table[name] === value);
}

function pick<Name extends string>(
  table: Readonly<Record<Name, number>>,
  ...names: readonly Name[]
): Readonly<Record<string, number>> {
  return Object.fromEntries(names.map((name) => [name, table[name]]));
}
