/**
 * The IPv6 header and its extension headers (RFC 8200 §3, §4). After `check`, no accessor can fail.
 *
 *      0     4               12    16              24            31
 *     +-----+---------------+-----+-----------------------------------+
 *   0 |  6  | traffic class |            flow label                   |
 *     +-----+---------------+---------+---------------+---------------+
 *   4 |       payload length          |  next header  |   hop limit   |
 *     +-------------------------------+---------------+---------------+
 *   8 |                   source address, 16 octets                   |
 *     +---------------------------------------------------------------+
 *  24 |                 destination address, 16 octets                |
 *     +---------------------------------------------------------------+
 *
 * Hop-by-hop and destination options; length in units of 8 octets behind the first 8:
 *     +---------------+---------------+-------------------------------+
 *   0 |  next header  |    length     | options: type, length, data   |
 *     +---------------+---------------+-------------------------------+
 * Routing:
 *     +---------------+---------------+---------------+---------------+
 *   0 |  next header  |    length     |     type      | segments left |
 *     +---------------+---------------+---------------+---------------+
 * Fragment:
 *     +---------------+---------------+-------------------------+---+-+
 *   0 |  next header  |       0       | fragment offset, in 8s  | 0 |M|
 *     +---------------+---------------+-------------------------+---+-+
 *   4 |                        identification                         |
 *     +---------------------------------------------------------------+
 */
import type { DropReason } from '../base/drop.ts';
import { setU8, setU16, setU32, u8, u16, u32 } from './bytes.ts';
import { PROTO } from './protocol.ts';

export const HEADER_LEN = 40;
export const PAYLOAD_LEN_MAX = 65_535;
/** Every link carries packets of this many octets (RFC 8200 §5). */
export const MTU_MIN = 1280;
export const NEXT_HEADER_AT = 6;
export const HOP_LIMIT_AT = 7;
export const SRC_AT = 8;
export const DST_AT = 24;
export const FRAGMENT_HEADER_LEN = 8;

export const OPTION = {
  PAD1: 0,
  PADN: 1,
  ROUTER_ALERT: 5,
  HOME_ADDRESS: 0xc9,
  JUMBO: 0xc2,
} as const;
/** Set in an option's type: its data may change on the way (RFC 8200 §4.2). */
export const OPTION_MUTABLE = 0x20;

/**
 * Types of routing header that name the final destination; segment routing (RFC 8754) lists it
 * first.
 */
export const ROUTING = { SOURCE: 0, MOBILE: 2, SEGMENT: 4 } as const;

/**
 * Whether octets `at` to `end` begin with an IPv6 packet. Octets behind its payload are link
 * padding.
 */
export function check(p: Uint8Array, at: number, end: number): DropReason | undefined {
  if (end - at < HEADER_LEN) return 'truncated-header';
  if (u8(p, at) >>> 4 !== 6) return 'bad-version';
  const payload = payloadLen(p, at);
  if (payload > end - at - HEADER_LEN) return 'bad-total-length';
  if (payload !== 0) return undefined;
  // RFC 2675 §3: length 0 says that the true length is in a hop-by-hop option, if anything follows
  // at all.
  const next = nextHeader(p, at);
  if (next === PROTO.HOPOPTS) return 'jumbogram';
  return end - at > HEADER_LEN && next !== PROTO.NONE ? 'jumbogram' : undefined;
}

export function trafficClass(p: Uint8Array, at: number): number {
  return (u16(p, at) >>> 4) & 255;
}

export function setTrafficClass(p: Uint8Array, at: number, value: number): void {
  setU16(p, at, (u16(p, at) & 0xf00f) | (value << 4));
}

export function flowLabel(p: Uint8Array, at: number): number {
  return u32(p, at) & 0xf_ffff;
}

export function setFlowLabel(p: Uint8Array, at: number, value: number): void {
  setU32(p, at, (u32(p, at) & 0xfff0_0000) | value);
}

export function payloadLen(p: Uint8Array, at: number): number {
  return u16(p, at + 4);
}

export function setPayloadLen(p: Uint8Array, at: number, value: number): void {
  setU16(p, at + 4, value);
}

/** What follows the fixed header. Each extension header has the same field in its first octet. */
export function nextHeader(p: Uint8Array, at: number): number {
  return u8(p, at + NEXT_HEADER_AT);
}

export function setNextHeader(p: Uint8Array, at: number, value: number): void {
  setU8(p, at + NEXT_HEADER_AT, value);
}

export function hopLimit(p: Uint8Array, at: number): number {
  return u8(p, at + HOP_LIMIT_AT);
}

export function setHopLimit(p: Uint8Array, at: number, value: number): void {
  setU8(p, at + HOP_LIMIT_AT, value);
}

/** Writes the fixed header. The caller fills in the addresses at SRC_AT and DST_AT. */
export function write(
  p: Uint8Array,
  at: number,
  trafficClass: number,
  flowLabel: number,
  payloadLen: number,
  nextHeader: number,
  hopLimit: number,
): void {
  setU32(p, at, 0x6000_0000 | (trafficClass << 20) | flowLabel);
  setU16(p, at + 4, payloadLen);
  setU16(p, at + NEXT_HEADER_AT, (nextHeader << 8) | hopLimit);
}

/** Octets of a hop-by-hop, destination options, routing or mobility header. */
export function extensionLen(p: Uint8Array, at: number): number {
  return (u8(p, at + 1) + 1) << 3;
}

/**
 * Which octet says what the header at `headerAt` is, in the packet at `at`: the chain of extension
 * headers in front of it must have been walked by `decode`.
 */
export function namesHeaderAt(p: Uint8Array, at: number, headerAt: number): number {
  let nameAt = at + NEXT_HEADER_AT;
  for (let i = at + HEADER_LEN; i < headerAt; i += extensionLen(p, i)) nameAt = i;
  return nameAt;
}

/**
 * Whether the options of a hop-by-hop or destination options header from `at` to `end` lead from
 * one to the next, so that walking them with `optionLen` cannot leave the header.
 */
export function checkOptions(p: Uint8Array, at: number, end: number): DropReason | undefined {
  for (let i = at + 2; i < end; i += optionLen(p, i)) {
    const type = u8(p, i);
    if (type === OPTION.PAD1) continue;
    if (i + 2 > end || i + optionLen(p, i) > end) return 'bad-option';
    if (type === OPTION.JUMBO) return 'jumbogram';
  }
  return undefined;
}

/** Octets of the option at `at`, its type and length octets included; Pad1 is a single octet. */
export function optionLen(p: Uint8Array, at: number): number {
  return u8(p, at) === OPTION.PAD1 ? 1 : 2 + u8(p, at + 1);
}

export function routingType(p: Uint8Array, at: number): number {
  return u8(p, at + 2);
}

export function segmentsLeft(p: Uint8Array, at: number): number {
  return u8(p, at + 3);
}

/**
 * Where the final destination stands in the routing header at `at`, which checksums and AH are
 * computed with (RFC 8200 §8.1, RFC 4302 §3.3.3.1.2). 0: no segments are left, or the type does not
 * say.
 */
export function finalDestinationAt(p: Uint8Array, at: number): number {
  const type = routingType(p, at);
  const len = extensionLen(p, at);
  if (segmentsLeft(p, at) === 0 || len < 24) return 0;
  if (type === ROUTING.SEGMENT) return at + 8;
  if (type !== ROUTING.SOURCE && type !== ROUTING.MOBILE) return 0;
  return at + 8 + 16 * (((len - 8) >>> 4) - 1);
}

/** Offset in octets, of the fragment header at `at`. */
export function fragmentOffset(p: Uint8Array, at: number): number {
  return u16(p, at + 2) & 0xfff8;
}

export function moreFragments(p: Uint8Array, at: number): boolean {
  return (u16(p, at + 2) & 1) !== 0;
}

export function fragmentId(p: Uint8Array, at: number): number {
  return u32(p, at + 4);
}

/** `offset` in octets, a multiple of 8; `more` 0 or 1. */
export function writeFragmentHeader(
  p: Uint8Array,
  at: number,
  nextHeader: number,
  offset: number,
  more: number,
  id: number,
): void {
  setU16(p, at, nextHeader << 8);
  setU16(p, at + 2, offset | more);
  setU32(p, at + 4, id);
}
