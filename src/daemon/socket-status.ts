import { address, formatAddress } from '../base/address.ts';
import { AF_INET, AF_INET6 } from '../drivers/linux/libc.ts';
import type { SocketEnds } from '../engine/socket-policies.ts';
import type { SocketDirection, SocketRule } from '../engine/socket-rule.ts';
import type { DirectionProtection, Protection, ProtectionLayer } from '../engine/socket-status.ts';
import { formatPolicy } from '../spd/set-policy.ts';
import { setH32, setH64 } from '../wire/pfkey-bytes.ts';
import type { PolicySocket, SocketRules } from './socket-with-policy.ts';

/**
 * What a program is told about a socket: `struct testudo_ipsec_status` of native/testudo_ipsec.h,
 * with numbers as the machine has them.
 *
 *     status         0 version   8 in   440 out
 *     direction      0 state     1 rule     2 number of SAs   8 packets   16 SAs (4 of them)
 *     SA             0 spi       4 protocol 5 mode   6 family   8 local end   24 remote end
 *                    40 encryption          72 authentication
 */
const VERSION = 1;
const HEAD_LEN = 8;
const DIRECTION_LEN = 432;
const SAS_AT = 16;
const SA_LEN = 104;
const SAS_MAX = 4;
const LOCAL_AT = 8;
const REMOTE_AT = 24;
const ENCRYPTION_AT = 40;
const AUTHENTICATION_AT = 72;
const NAME_LEN = 32;
const STATES = {
  clear: 0,
  open: 0,
  lacking: 1,
  protected: 2,
  ready: 2,
  blocked: 3,
} as const satisfies Readonly<Record<DirectionProtection['state'], number>>;
const RULES = { entrust: 0, bypass: 1, ipsec: 2 } as const;
const PROTOCOLS = { esp: 50, ah: 51 } as const;
const MODES = { transport: 1, tunnel: 2 } as const;

export function encodeStatus(protection: Protection, rules: SocketRules): Uint8Array {
  const p = new Uint8Array(HEAD_LEN + 2 * DIRECTION_LEN);
  setH32(p, 0, VERSION);
  (['in', 'out'] as const).forEach((direction, i) => {
    const at = HEAD_LEN + i * DIRECTION_LEN;
    encodeDirection(p, at, direction, protection[direction], rules[direction]);
  });
  return p;
}

function encodeDirection(
  p: Uint8Array,
  at: number,
  direction: SocketDirection,
  { state, packets, layers }: DirectionProtection,
  rule: SocketRule,
): void {
  const outermostFirst = direction === 'in' ? layers : [...layers].reverse();
  p[at] = STATES[state];
  p[at + 1] = RULES[rule.type];
  p[at + 2] = layers.length;
  setH64(p, at + 8, packets);
  outermostFirst.slice(0, SAS_MAX).forEach((layer, i) => {
    encodeSa(p, at + SAS_AT + i * SA_LEN, direction, layer);
  });
}

function encodeSa(
  p: Uint8Array,
  at: number,
  direction: SocketDirection,
  { spi, protocol, mode, src, dst, algorithms }: ProtectionLayer,
): void {
  const [first = '', second = ''] = algorithms;
  const [encryption, authentication] = protocol === 'ah' ? ['', first] : [first, second];
  const ends = (direction === 'out' ? [src, dst] : [dst, src]).map(address);
  setH32(p, at, spi);
  p[at + 4] = PROTOCOLS[protocol];
  p[at + 5] = MODES[mode];
  p[at + 6] = ends[0]!.family === 4 ? AF_INET : AF_INET6;
  p.set(ends[0]!.bytes, at + LOCAL_AT);
  p.set(ends[1]!.bytes, at + REMOTE_AT);
  writeText(p, at + ENCRYPTION_AT, NAME_LEN, encryption);
  writeText(p, at + AUTHENTICATION_AT, NAME_LEN, authentication);
}

/** With a zero at its end, whatever its length. */
function writeText(p: Uint8Array, at: number, len: number, text: string): void {
  new TextEncoder().encodeInto(text, p.subarray(at, at + len - 1));
}

/** A socket as `testudo status --sockets` shows it. */
export interface SocketLine {
  readonly protocol: string;
  /** `10.0.0.1:5000`, `[2001:db8::1]:5000`, `*:5000`; without a port for raw sockets. */
  readonly local: string;
  readonly remote: string;
  readonly isListening: boolean;
  /** Who asked for the policy. */
  readonly pid: number;
  readonly uid: number;
  readonly privileged: boolean;
  /** In the language of ipsec_set_policy(3). */
  readonly in: string;
  readonly out: string;
  /** Packets that came in and were not as the policy wants them. */
  readonly refused: number;
  readonly protection: Protection;
}

/** One line for each address family that the socket takes. */
export function socketLines(
  socket: PolicySocket,
  protectionOf: (entry: PolicySocket['entries'][number]) => Protection,
): SocketLine[] {
  const { origin, isListening } = socket;
  return socket.entries.map((entry) => {
    const { ends, rules, refused } = entry;
    return {
      protocol: protocolName(ends),
      local: endText(
        ends.family,
        ends.local && formatAddress(ends.local),
        ends.localPort,
        ends.raw,
      ),
      remote: endText(
        ends.family,
        ends.remote && formatAddress(ends.remote),
        ends.remotePort,
        ends.raw,
      ),
      isListening,
      pid: origin.asker.pid,
      uid: origin.asker.uid,
      privileged: origin.privileged,
      in: ruleText(rules.in),
      out: ruleText(rules.out),
      refused,
      protection: protectionOf(entry),
    };
  });
}

function protocolName({ family, protocol, raw }: SocketEnds): string {
  const name = { 6: 'tcp', 17: 'udp', 1: 'icmp', 58: 'icmp6' }[protocol] ?? String(protocol);
  const version = family === 6 && (protocol === 6 || protocol === 17) ? '6' : '';
  return `${raw ? 'raw ' : ''}${name}${version}`;
}

function endText(
  family: 4 | 6,
  address: string | undefined,
  port: number,
  isRaw: boolean | undefined,
): string {
  const host = address === undefined ? '*' : family === 6 ? `[${address}]` : address;
  return isRaw ? host : `${host}:${port === 0 ? '*' : port}`;
}

function ruleText({ option }: SocketRule): string {
  return formatPolicy(option, { ports: false }).replace(/\s+/g, ' ');
}
