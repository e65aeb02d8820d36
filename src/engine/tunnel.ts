import type { DropReason } from '../base/drop.ts';
import type { Sa } from '../sad/sa.ts';
import { copy, u32 } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import type { Settings } from './settings.ts';

/** RFC 4301 §5.1.2.1 leaves the outer TTL to us; what hosts use. */
const OUTER_TTL = 64;

const ECN_MASK = 3;
const NOT_ECT = 0;
const ECT_0 = 2;
const ECT_1 = 1;
const CE = 3;

/** Which of IPv4 and IPv6 the next-header octet of a tunnel names. */
export function innerProtocol(family: 4 | 6): number {
  return family === 4 ? PROTO.IPIP : PROTO.IPV6;
}

/**
 * Puts a tunnel header in front of the packet, with a gap of `gapLen` octets between them, and
 * points the cursor at it. Lengths and checksum are filled in when the layer is complete. DSCP is
 * copied, the TTL is a new one, ECN follows the SA or the host (RFC 4301 §5.1.2, RFC 6040 §4.1),
 * and so does DF, by `outerDf`.
 */
export function encapsulate(
  packet: Packet,
  cursor: Cursor,
  sa: Sa,
  gapLen: number,
  id: number,
  settings: Settings,
  df: boolean,
): void {
  const p = packet.bytes;
  const { src } = sa.spec;
  const dst = sa.peer?.address ?? sa.spec.dst;
  const isInner4 = cursor.family === 4;
  const innerClass = isInner4 ? ipv4.tos(p, packet.at) : ipv6.trafficClass(p, packet.at);
  const tos = outerClass(innerClass, ecnRule(sa, settings));
  const gapAt = packet.at - gapLen;
  if (src.family === 4) {
    const at = gapAt - ipv4.HEADER_LEN;
    const flags = df ? ipv4.FLAG_DF : 0;
    ipv4.begin(packet.view, at, tos, id, flags, OUTER_TTL, u32(src.bytes, 0), u32(dst.bytes, 0));
    packet.at = at;
    cursor.srcAt = at + ipv4.SRC_AT;
    cursor.dstAt = at + ipv4.DST_AT;
    cursor.protocolAt = at + ipv4.PROTOCOL_AT;
  } else {
    const at = gapAt - ipv6.HEADER_LEN;
    ipv6.write(p, at, tos, 0, 0, 0, OUTER_TTL);
    copy(src.bytes, 0, p, at + ipv6.SRC_AT, 16);
    copy(dst.bytes, 0, p, at + ipv6.DST_AT, 16);
    packet.at = at;
    cursor.srcAt = at + ipv6.SRC_AT;
    cursor.dstAt = at + ipv6.DST_AT;
    cursor.protocolAt = at + ipv6.NEXT_HEADER_AT;
  }
  cursor.family = src.family;
  pointAtHeader(cursor, packet.at, gapAt, packet.end);
}

/**
 * Whether the sender of a packet wants it to stay whole. IPv6 is never fragmented on the way, which
 * stands for DF, unless it is so small that its sender will not make it smaller (RFC 2473 §7.1).
 */
export function wantsWhole(packet: Packet, family: 4 | 6): boolean {
  if (family === 6) return packet.len > ipv6.MTU_MIN;
  return ipv4.dontFragment(packet.bytes, packet.at);
}

/**
 * DF of the header of a tunnel, where `df` is that of the packet in it. An IPv6 header has none and
 * passes on what it is around: in a tunnel in a tunnel the sender's wish counts, not what we have
 * put around it.
 */
export function outerDf(sa: Sa, settings: Settings, df: boolean): boolean {
  if (sa.spec.src.family === 6) return df;
  const rule = sa.spec.tunnel.df ?? settings.dfbit;
  return rule === 'copy' ? df : rule === 'set';
}

/**
 * What the inner packet keeps of the outer header: congestion that was met on the way (RFC 6040
 * §4.2). The combination that cannot be honest is a reason to drop.
 */
export function decapsulate(
  packet: Packet,
  innerAt: number,
  innerFamily: 4 | 6,
  outerEcn: number,
  ecn: -1 | 0 | 1,
): DropReason | undefined {
  const p = packet.bytes;
  const tos = innerFamily === 4 ? ipv4.tos(p, innerAt) : ipv6.trafficClass(p, innerAt);
  const inner = tos & ECN_MASK;
  packet.at = innerAt;
  if (ecn === -1) return undefined;
  if (outerEcn === CE && inner === NOT_ECT) return 'ecn-invalid';
  let merged = inner;
  if (outerEcn === CE) merged = CE;
  else if (outerEcn === ECT_1 && inner === ECT_0) merged = ECT_1;
  if (merged === inner) return undefined;
  if (innerFamily === 4) {
    ipv4.setTos(p, innerAt, (tos & ~ECN_MASK) | merged);
    ipv4.updateChecksum(p, innerAt);
  } else {
    ipv6.setTrafficClass(p, innerAt, (tos & ~ECN_MASK) | merged);
  }
  return undefined;
}

/** What the SA says about ECN, else the host for the family of the tunnel header. */
export function ecnRule(sa: Sa, settings: Settings): -1 | 0 | 1 {
  const { ecn } = sa.spec.tunnel;
  if (ecn !== undefined) return ecn ? 1 : 0;
  return (sa.spec.src.family === 4 ? settings.inet : settings.inet6).ecn;
}

/**
 * RFC 6040 §4.1: normal mode copies the field; compatibility mode makes the outer header not ECN
 * capable.
 */
function outerClass(innerClass: number, ecn: -1 | 0 | 1): number {
  return ecn === 0 ? innerClass & ~ECN_MASK : innerClass;
}

/** A plain header without options or extensions, which ends at `gapAt`. */
function pointAtHeader(cursor: Cursor, at: number, gapAt: number, end: number): void {
  cursor.at = at;
  cursor.end = end;
  cursor.insertProtocolAt = cursor.protocolAt;
  cursor.protocol = 0;
  cursor.upperAt = gapAt;
  cursor.insertAt = gapAt;
  cursor.isFragment = false;
  cursor.fragmentOffset = 0;
  cursor.moreFragments = false;
  cursor.fragmentHeaderAt = 0;
  cursor.hopOptionsAt = 0;
  cursor.routingAt = 0;
  cursor.segmentsLeft = 0;
  cursor.sport = 0;
  cursor.dport = 0;
  cursor.portsKnown = true;
}
