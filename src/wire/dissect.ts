/**
 * IP packets for people: one line as tcpdump would write it, and a hexadecimal dump. Nothing here
 * throws on any octets.
 */
import { addressFrom, formatAddress } from '../base/address.ts';
import { DROPS } from '../base/drop.ts';
import * as ah from './ah.ts';
import { toHex, u8, u32 } from './bytes.ts';
import { Cursor, decode } from './cursor.ts';
import * as esp from './esp.ts';
import * as icmp from './icmp.ts';
import * as ipv4 from './ipv4.ts';
import * as ipv6 from './ipv6.ts';
import { PROTO } from './protocol.ts';
import * as tcp from './tcp.ts';
import * as udp from './udp.ts';

/** Packets within packets are followed this far. */
const DEPTH_MAX = 8;

export interface DissectOptions {
  /** UDP datagrams to or from this port carry ESP or IKE (RFC 3948); usually 4500. */
  readonly natPort?: number;
}

/** What all the writers below are handed: octets `at` to `end` of an upper layer. */
interface Part {
  readonly p: Uint8Array;
  readonly at: number;
  readonly end: number;
  readonly cursor: Cursor;
  readonly options: DissectOptions;
  readonly depth: number;
}

/**
 * One line about the IP packet at octets `at` to `end`, such as `IP 10.0.0.1 > 10.0.0.2: ESP spi
 * 0x00001001 seq 7, length 132`.
 */
export function dissect(
  p: Uint8Array,
  at = 0,
  end = p.length,
  options: DissectOptions = {},
): string {
  return packetLine(p, at, end, options, 0);
}

/** 16 octets a line: offset, hexadecimal in pairs, printable characters. */
export function hexDump(p: Uint8Array, at = 0, end = p.length): string {
  const lines: string[] = [];
  for (let i = at; i < end; i += 16) {
    const stop = Math.min(i + 16, end);
    const pairs = toHex(p, i, stop).replace(/(.{4})(?=.)/g, '$1 ');
    const text = Array.from(p.subarray(i, stop), printable).join('');
    const offset = (i - at).toString(16).padStart(4, '0');
    lines.push(`0x${offset}:  ${pairs.padEnd(39)}  ${text}`);
  }
  return lines.join('\n');
}

function printable(octet: number): string {
  return octet >= 0x20 && octet < 0x7f ? String.fromCharCode(octet) : '.';
}

function packetLine(
  p: Uint8Array,
  at: number,
  end: number,
  options: DissectOptions,
  depth: number,
): string {
  const cursor = new Cursor();
  const bad = decode(p, at, end, cursor);
  if (bad !== undefined) return `IP, unreadable: ${DROPS[bad].text}, length ${end - at}`;
  const part: Part = { p, at: cursor.upperAt, end: cursor.end, cursor, options, depth };
  const ports = hasPorts(cursor);
  const src = formatAddress(addressFrom(cursor.family, p, cursor.srcAt));
  const dst = formatAddress(addressFrom(cursor.family, p, cursor.dstAt));
  const from = ports ? `${src}.${cursor.sport}` : src;
  const to = ports ? `${dst}.${cursor.dport}` : dst;
  const name = cursor.family === 4 ? 'IP' : 'IP6';
  const upper =
    cursor.fragmentOffset === 0
      ? upperLine(cursor.protocol, part)
      : `${protocolName(cursor.protocol)}, length ${cursor.end - cursor.upperAt}`;
  return `${name} ${from} > ${to}: ${upper}${cursor.isFragment ? fragmentNote(p, cursor) : ''}`;
}

function hasPorts(cursor: Cursor): boolean {
  const { protocol } = cursor;
  const known = protocol === PROTO.TCP || protocol === PROTO.UDP || protocol === PROTO.SCTP;
  return known && cursor.portsKnown;
}

function fragmentNote(p: Uint8Array, cursor: Cursor): string {
  const id =
    cursor.family === 4 ? ipv4.id(p, cursor.at) : ipv6.fragmentId(p, cursor.fragmentHeaderAt);
  const more = cursor.moreFragments ? ', more follow' : '';
  return ` (fragment of ${hex32(id)} at ${cursor.fragmentOffset}${more})`;
}

/** The upper header, in a first fragment as far as it goes. */
function upperLine(protocol: number, part: Part): string {
  const length = `length ${part.end - part.at}`;
  if (part.depth >= DEPTH_MAX) return `${protocolName(protocol)}, ${length}`;
  switch (protocol) {
    case PROTO.TCP:
      return tcpLine(part) ?? `TCP, cut off, ${length}`;
    case PROTO.UDP:
      return udpLine(part) ?? `UDP, cut off, ${length}`;
    case PROTO.ICMP:
    case PROTO.ICMPV6:
      return icmpLine(part) ?? `${protocolName(protocol)}, cut off, ${length}`;
    case PROTO.ESP:
      return espLine(part) ?? `ESP, cut off, ${length}`;
    case PROTO.AH:
      return ahLine(part) ?? `AH, cut off, ${length}`;
    case PROTO.IPIP:
    case PROTO.IPV6:
      return packetLine(part.p, part.at, part.end, part.options, part.depth + 1);
    default:
      return `${protocolName(protocol)}, ${length}`;
  }
}

const TCP_FLAGS: readonly (readonly [number, string])[] = [
  [tcp.FLAG.FIN, 'F'],
  [tcp.FLAG.SYN, 'S'],
  [tcp.FLAG.RST, 'R'],
  [tcp.FLAG.PSH, 'P'],
  [tcp.FLAG.ACK, '.'],
  [tcp.FLAG.URG, 'U'],
  [tcp.FLAG.ECE, 'E'],
  [tcp.FLAG.CWR, 'W'],
];

function tcpLine({ p, at, end }: Part): string | undefined {
  if (tcp.check(p, at, end) !== undefined) return undefined;
  const flags = tcp.flags(p, at);
  const letters = TCP_FLAGS.map(([bit, letter]) => (flags & bit ? letter : '')).join('');
  const ack = flags & tcp.FLAG.ACK ? `, ack ${tcp.ack(p, at)}` : '';
  const length = end - at - tcp.headerLen(p, at);
  const seq = `seq ${tcp.seq(p, at)}${ack}, win ${tcp.window(p, at)}`;
  return `Flags [${letters || 'none'}], ${seq}, length ${length}`;
}

function udpLine(part: Part): string | undefined {
  const { p, at, end, cursor, options } = part;
  if (end - at < udp.HEADER_LEN) return undefined;
  const bad = udp.check(p, at, end);
  // The first fragment of a datagram is shorter than the datagram.
  if (bad !== undefined && !cursor.isFragment) return `UDP, bad length ${udp.len(p, at)}`;
  const port = options.natPort;
  const encapsulated = port !== undefined && (cursor.sport === port || cursor.dport === port);
  const dataEnd = bad === undefined ? at + udp.len(p, at) : end;
  if (!encapsulated) return `UDP, length ${udp.len(p, at) - udp.HEADER_LEN}`;
  return `UDP-encap: ${encapsulatedLine({ ...part, at: at + udp.HEADER_LEN, end: dataEnd })}`;
}

/** RFC 3948 §2: one octet 0xff, or four octets of zero and IKE, or ESP. */
function encapsulatedLine(part: Part): string {
  const { p, at, end } = part;
  if (end - at === 1 && u8(p, at) === 0xff) return 'NAT keep-alive';
  if (end - at >= 4 && u32(p, at) === 0) return `IKE, length ${end - at - 4}`;
  return espLine(part) ?? `ESP, cut off, length ${end - at}`;
}

function espLine({ p, at, end }: Part): string | undefined {
  if (esp.check(p, at, end) !== undefined) return undefined;
  return `ESP spi ${hex32(esp.spi(p, at))} seq ${esp.seq(p, at)}, length ${end - at}`;
}

function ahLine(part: Part): string | undefined {
  const { p, at, end } = part;
  if (ah.check(p, at, end) !== undefined) return undefined;
  const next = ah.nextHeader(p, at);
  const inner: Part = { ...part, at: at + ah.len(p, at), depth: part.depth + 1 };
  const title = `AH spi ${hex32(ah.spi(p, at))} seq ${ah.seq(p, at)}`;
  return `${title}: ${portsBehind(next, inner)}${upperLine(next, inner)}`;
}

/** Ports that do not stand with the addresses, because a header is in between. */
function portsBehind(protocol: number, { p, at, end }: Part): string {
  const known = protocol === PROTO.TCP || protocol === PROTO.UDP;
  return known && end - at >= 4 ? `${udp.sport(p, at)} > ${udp.dport(p, at)} ` : '';
}

const ICMP4_NAMES = new Map<number, string>([
  [icmp.TYPE4.ECHO_REPLY, 'echo reply'],
  [icmp.TYPE4.UNREACHABLE, 'unreachable'],
  [icmp.TYPE4.SOURCE_QUENCH, 'source quench'],
  [icmp.TYPE4.REDIRECT, 'redirect'],
  [icmp.TYPE4.ECHO, 'echo request'],
  [icmp.TYPE4.TIME_EXCEEDED, 'time exceeded'],
  [icmp.TYPE4.PARAMETER_PROBLEM, 'parameter problem'],
]);

const ICMP6_NAMES = new Map<number, string>([
  [icmp.TYPE6.UNREACHABLE, 'unreachable'],
  [icmp.TYPE6.TOO_BIG, 'packet too big'],
  [icmp.TYPE6.TIME_EXCEEDED, 'time exceeded'],
  [icmp.TYPE6.PARAMETER_PROBLEM, 'parameter problem'],
  [icmp.TYPE6.ECHO, 'echo request'],
  [icmp.TYPE6.ECHO_REPLY, 'echo reply'],
  [icmp.TYPE6.ROUTER_SOLICITATION, 'router solicitation'],
  [icmp.TYPE6.ROUTER_ADVERTISEMENT, 'router advertisement'],
  [icmp.TYPE6.NEIGHBOR_SOLICITATION, 'neighbor solicitation'],
  [icmp.TYPE6.NEIGHBOR_ADVERTISEMENT, 'neighbor advertisement'],
  [icmp.TYPE6.REDIRECT, 'redirect'],
]);

function icmpLine({ p, at, end, cursor }: Part): string | undefined {
  if (icmp.check(p, at, end) !== undefined) return undefined;
  const { family } = cursor;
  const type = icmp.type(p, at);
  const names = family === 4 ? ICMP4_NAMES : ICMP6_NAMES;
  const length = `length ${end - at}`;
  const title = `${family === 4 ? 'ICMP' : 'ICMP6'} ${names.get(type) ?? `type ${type}`}`;
  if (icmp.isTooBig(p, at, family)) {
    const what = family === 4 ? ' - need to fragment' : '';
    return `${title}${what}, mtu ${icmp.mtu(p, at, family)}, ${length}`;
  }
  if (icmp.isEcho(p, at, family) || icmp.isEchoReply(p, at, family)) {
    return `${title}, id ${icmp.echoId(p, at)}, seq ${icmp.echoSeq(p, at)}, ${length}`;
  }
  return `${title}, code ${icmp.code(p, at)}, ${length}`;
}

const PROTOCOL_NAMES = new Map<number, string>([
  [PROTO.HOPOPTS, 'hop-by-hop options'],
  [PROTO.ICMP, 'ICMP'],
  [PROTO.IGMP, 'IGMP'],
  [PROTO.IPIP, 'IP in IP'],
  [PROTO.TCP, 'TCP'],
  [PROTO.UDP, 'UDP'],
  [PROTO.DCCP, 'DCCP'],
  [PROTO.IPV6, 'IPv6 in IP'],
  [PROTO.GRE, 'GRE'],
  [PROTO.ESP, 'ESP'],
  [PROTO.AH, 'AH'],
  [PROTO.ICMPV6, 'ICMP6'],
  [PROTO.NONE, 'no next header'],
  [PROTO.DSTOPTS, 'destination options'],
  [PROTO.OSPF, 'OSPF'],
  [PROTO.IPCOMP, 'IPComp'],
  [PROTO.SCTP, 'SCTP'],
  [PROTO.MOBILITY, 'mobility header'],
  [PROTO.UDPLITE, 'UDP-Lite'],
]);

function protocolName(protocol: number): string {
  return PROTOCOL_NAMES.get(protocol) ?? `protocol ${protocol}`;
}

function hex32(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
