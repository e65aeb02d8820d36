/**
 * Where everything is in an IP packet: one walk over its headers, done once per packet into a
 * cursor that is used again for the next one. Fields are offsets into the octets that were decoded,
 * as numbers, so that nothing is allocated.
 */
import type { Family } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import { u8, u16 } from './bytes.ts';
import * as ipv4 from './ipv4.ts';
import * as ipv6 from './ipv6.ts';
import { PROTO } from './protocol.ts';

/** Bounds the work for one packet, as RFC 8883 §2.1 foresees; nothing real has more than seven. */
export const EXTENSION_HEADERS_MAX = 16;

/**
 * Its fields are only meaningful after `decode` returned undefined, and until the packet changes.
 */
export class Cursor {
  family: Family = 4;
  /**
   * The IP packet, from its header to the end by its own length field. What follows is link
   * padding.
   */
  at = 0;
  end = 0;
  srcAt = 0;
  dstAt = 0;

  /**
   * The upper protocol behind all extension headers: also ESP, AH and IPComp, where the walk stops.
   * In a non-first fragment of IPv6 it is what the fragment header names, which may be an extension
   * header that only the first fragment has.
   */
  protocol = 0;
  /** The octet that holds `protocol`. */
  protocolAt = 0;
  /** The upper header, or the data of a non-first fragment; equal to `end` if there is nothing. */
  upperAt = 0;

  /**
   * A fragment, or IPv6 with a fragment header that says offset 0 and no more (an atomic fragment,
   * RFC 6946).
   */
  isFragment = false;
  /** In octets. */
  fragmentOffset = 0;
  moreFragments = false;
  /** IPv6: the fragment header; 0 if there is none. */
  fragmentHeaderAt = 0;

  /**
   * Where ESP or AH goes in transport mode (RFC 4303 §3.1.1), and the octet that names what follows
   * there.
   */
  insertAt = 0;
  insertProtocolAt = 0;

  /**
   * IPv6: the hop-by-hop options header, and the routing header that has segments left (else the
   * first); 0 if none.
   */
  hopOptionsAt = 0;
  routingAt = 0;
  segmentsLeft = 0;

  /**
   * TCP, UDP, UDP-Lite, DCCP, SCTP: the ports. ICMP and ICMPv6: type and code, mobility: type and
   * 0, as in KAME. Others: 0.
   */
  sport = 0;
  dport = 0;
  /**
   * False if the packet should have ports but they are not in it: a non-first fragment, or cut off.
   * Then both are 0.
   */
  portsKnown = false;
}

/**
 * Fills `cursor` from the IP packet at octets `at` to `end`. Never reads outside them, never
 * throws. The IPv4 header checksum is not looked at: see `ipv4.checksumOk`.
 */
export function decode(
  p: Uint8Array,
  at: number,
  end: number,
  cursor: Cursor,
): DropReason | undefined {
  if (at >= end) return 'truncated-header';
  const version = u8(p, at) >>> 4;
  if (version === 4) return decodeIpv4(p, at, end, cursor);
  return version === 6 ? decodeIpv6(p, at, end, cursor) : 'bad-version';
}

function decodeIpv4(
  p: Uint8Array,
  at: number,
  end: number,
  cursor: Cursor,
): DropReason | undefined {
  const bad = ipv4.check(p, at, end);
  if (bad !== undefined) return bad;
  cursor.family = 4;
  cursor.at = at;
  cursor.end = at + ipv4.totalLen(p, at);
  cursor.srcAt = at + ipv4.SRC_AT;
  cursor.dstAt = at + ipv4.DST_AT;
  cursor.protocol = ipv4.protocol(p, at);
  cursor.protocolAt = at + ipv4.PROTOCOL_AT;
  cursor.upperAt = at + ipv4.headerLen(p, at);
  const isFragment = ipv4.isFragment(p, at);
  cursor.isFragment = isFragment;
  cursor.fragmentOffset = isFragment ? ipv4.fragmentOffset(p, at) : 0;
  cursor.moreFragments = isFragment && ipv4.moreFragments(p, at);
  cursor.fragmentHeaderAt = 0;
  cursor.insertAt = cursor.upperAt;
  cursor.insertProtocolAt = cursor.protocolAt;
  cursor.hopOptionsAt = 0;
  cursor.routingAt = 0;
  cursor.segmentsLeft = 0;
  readPorts(p, cursor);
  return undefined;
}

function decodeIpv6(
  p: Uint8Array,
  at: number,
  end: number,
  cursor: Cursor,
): DropReason | undefined {
  const bad = ipv6.check(p, at, end);
  if (bad !== undefined) return bad;
  cursor.family = 6;
  cursor.at = at;
  cursor.end = at + ipv6.HEADER_LEN + ipv6.payloadLen(p, at);
  cursor.srcAt = at + ipv6.SRC_AT;
  cursor.dstAt = at + ipv6.DST_AT;
  cursor.protocol = ipv6.nextHeader(p, at);
  cursor.protocolAt = at + ipv6.NEXT_HEADER_AT;
  cursor.upperAt = at + ipv6.HEADER_LEN;
  cursor.isFragment = false;
  cursor.fragmentOffset = 0;
  cursor.moreFragments = false;
  cursor.fragmentHeaderAt = 0;
  cursor.insertAt = 0;
  cursor.hopOptionsAt = 0;
  cursor.routingAt = 0;
  cursor.segmentsLeft = 0;
  if (isExtension(cursor.protocol)) {
    const reason = walkExtensions(p, cursor);
    if (reason !== undefined) return reason;
  }
  if (cursor.insertAt === 0) setInsert(cursor);
  readPorts(p, cursor);
  return undefined;
}

/** The headers that `decode` walks over on its way to the upper protocol. */
export function isExtension(protocol: number): boolean {
  return (
    protocol === PROTO.HOPOPTS ||
    protocol === PROTO.ROUTING ||
    protocol === PROTO.FRAGMENT ||
    protocol === PROTO.DSTOPTS
  );
}

/** Moves `protocol`, `protocolAt` and `upperAt` over the extension headers. */
function walkExtensions(p: Uint8Array, cursor: Cursor): DropReason | undefined {
  for (let count = 0; isExtension(cursor.protocol); count++) {
    if (count === EXTENSION_HEADERS_MAX) return 'too-many-headers';
    const at = cursor.upperAt;
    if (cursor.end - at < 8) return 'truncated-header';
    const kind = cursor.protocol;
    const len = kind === PROTO.FRAGMENT ? ipv6.FRAGMENT_HEADER_LEN : ipv6.extensionLen(p, at);
    if (len > cursor.end - at) return 'truncated-header';
    const bad = noteExtension(p, kind, at, at + len, cursor);
    if (bad !== undefined) return bad;
    cursor.protocol = u8(p, at);
    cursor.protocolAt = at;
    cursor.upperAt = at + len;
    // What a non-first fragment carries has no headers at its front, whatever the fragment header
    // names.
    if (cursor.fragmentOffset !== 0) return undefined;
  }
  return undefined;
}

/** Checks one extension header and remembers what is asked for later. */
function noteExtension(
  p: Uint8Array,
  kind: number,
  at: number,
  end: number,
  cursor: Cursor,
): DropReason | undefined {
  if (kind === PROTO.HOPOPTS) {
    // RFC 8200 §4.1: only immediately behind the IPv6 header.
    if (at !== cursor.at + ipv6.HEADER_LEN) return 'bad-option';
    cursor.hopOptionsAt = at;
    return ipv6.checkOptions(p, at, end);
  }
  if (kind === PROTO.DSTOPTS) {
    // Behind a routing header they are for the final destination only, so ESP and AH cover them.
    if (cursor.routingAt !== 0 && cursor.insertAt === 0) setInsert(cursor);
    return ipv6.checkOptions(p, at, end);
  }
  if (kind === PROTO.ROUTING) {
    if (cursor.routingAt === 0 || cursor.segmentsLeft === 0) {
      cursor.routingAt = at;
      cursor.segmentsLeft = ipv6.segmentsLeft(p, at);
    }
    return undefined;
  }
  if (cursor.fragmentHeaderAt !== 0) return 'bad-option';
  if (cursor.insertAt === 0) setInsert(cursor);
  cursor.isFragment = true;
  cursor.fragmentHeaderAt = at;
  cursor.fragmentOffset = ipv6.fragmentOffset(p, at);
  cursor.moreFragments = ipv6.moreFragments(p, at);
  return undefined;
}

function setInsert(cursor: Cursor): void {
  cursor.insertAt = cursor.upperAt;
  cursor.insertProtocolAt = cursor.protocolAt;
}

function readPorts(p: Uint8Array, cursor: Cursor): void {
  cursor.sport = 0;
  cursor.dport = 0;
  cursor.portsKnown = cursor.fragmentOffset === 0;
  if (!cursor.portsKnown) return;
  const room = cursor.end - cursor.upperAt;
  const at = cursor.upperAt;
  switch (cursor.protocol) {
    case PROTO.TCP:
    case PROTO.UDP:
    case PROTO.UDPLITE:
    case PROTO.DCCP:
    case PROTO.SCTP:
      cursor.portsKnown = room >= 4;
      if (!cursor.portsKnown) return;
      cursor.sport = u16(p, at);
      cursor.dport = u16(p, at + 2);
      return;
    case PROTO.ICMP:
    case PROTO.ICMPV6:
      cursor.portsKnown = room >= 2;
      if (!cursor.portsKnown) return;
      cursor.sport = u8(p, at);
      cursor.dport = u8(p, at + 1);
      return;
    case PROTO.MOBILITY:
      cursor.portsKnown = room >= 3;
      if (cursor.portsKnown) cursor.sport = u8(p, at + 2);
  }
}
