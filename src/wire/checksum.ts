/**
 * The Internet checksum (RFC 1071): the one's complement of the one's complement sum of 16-bit
 * words. A sum is carried unfolded, as a plain number, through any number of `add`, and folded once
 * by `finish`.
 */
import { ADDRESS_LEN, type Family } from '../base/address.ts';
import { setU16, u8, u16 } from './bytes.ts';
import type { Cursor } from './cursor.ts';
import * as ipv6 from './ipv6.ts';
import { PROTO } from './protocol.ts';

/**
 * Adds the octets from `at` to `end` as 16-bit words; an odd last octet counts as if a zero
 * followed.
 */
export function add(p: Uint8Array, at: number, end: number, sum: number): number {
  // High and low octets apart, so that 64 kB cannot overflow the small integers that V8 adds
  // fastest.
  let high = 0;
  let low = 0;
  let i = at;
  for (const whole = at + ((end - at) & ~7); i < whole; i += 8) {
    high += u8(p, i) + u8(p, i + 2) + u8(p, i + 4) + u8(p, i + 6);
    low += u8(p, i + 1) + u8(p, i + 3) + u8(p, i + 5) + u8(p, i + 7);
  }
  for (; i + 1 < end; i += 2) {
    high += u8(p, i);
    low += u8(p, i + 1);
  }
  if (i < end) high += u8(p, i);
  return sum + high * 256 + low;
}

/** Folds a sum to 16 bits and complements it. 0 if the sum ran over a right checksum. */
export function finish(sum: number): number {
  // The sum of a packet has 32 bits at most; a remainder of anything longer costs 30 ns.
  let folded =
    sum <= 0xffff_ffff
      ? (sum & 0xffff) + (sum >>> 16)
      : (sum % 0x1_0000) + Math.floor(sum / 0x1_0000);
  while (folded > 0xffff) folded = (folded & 0xffff) + (folded >>> 16);
  return ~folded & 0xffff;
}

/**
 * The pseudo header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1). `len`: octets of the
 * upper layer.
 */
export function pseudoHeader(
  p: Uint8Array,
  family: Family,
  srcAt: number,
  dstAt: number,
  protocol: number,
  len: number,
): number {
  const addressLen = ADDRESS_LEN[family];
  const sum = add(p, srcAt, srcAt + addressLen, protocol + (len & 0xffff) + (len >>> 16));
  return add(p, dstAt, dstAt + addressLen, sum);
}

/**
 * Offset of the checksum field in the upper header of a protocol that has an Internet checksum, or
 * -1.
 */
export function fieldAt(protocol: number): number {
  if (protocol === PROTO.TCP) return 16;
  if (protocol === PROTO.UDP) return 6;
  return protocol === PROTO.ICMP || protocol === PROTO.ICMPV6 ? 2 : -1;
}

/**
 * What the checksum field of the upper header should hold, whatever it holds now; -1 if the packet
 * has none (another protocol, a fragment, too short). A UDP checksum that would be 0 is 0xffff (RFC
 * 768).
 */
export function transportChecksum(p: Uint8Array, cursor: Cursor): number {
  const field = cursor.upperAt + fieldAt(cursor.protocol);
  if (field < cursor.upperAt || field + 2 > cursor.end || cursor.isFragment) return -1;
  const sum = add(p, field + 2, cursor.end, add(p, cursor.upperAt, field, pseudoSum(p, cursor)));
  const value = finish(sum);
  return value === 0 && cursor.protocol === PROTO.UDP ? 0xffff : value;
}

/** Writes `transportChecksum` into its field; a packet without one is left alone. */
export function updateTransportChecksum(p: Uint8Array, cursor: Cursor): void {
  const value = transportChecksum(p, cursor);
  if (value >= 0) setU16(p, cursor.upperAt + fieldAt(cursor.protocol), value);
}

/**
 * Whether the upper header's checksum is right; true if there is nothing to check, as for UDP over
 * IPv4 without one.
 */
export function transportChecksumOk(p: Uint8Array, cursor: Cursor): boolean {
  const field = cursor.upperAt + fieldAt(cursor.protocol);
  if (field < cursor.upperAt || field + 2 > cursor.end || cursor.isFragment) return true;
  const none = u8(p, field) === 0 && u8(p, field + 1) === 0;
  if (none && cursor.protocol === PROTO.UDP) return cursor.family === 4;
  return finish(add(p, cursor.upperAt, cursor.end, pseudoSum(p, cursor))) === 0;
}

/** By how much one checksum is larger than another, in one's complement (RFC 1624). */
export function difference(before: number, after: number): number {
  const sum = after + (~before & 0xffff);
  return (sum & 0xffff) + (sum >>> 16);
}

/** Adds a `difference` to the checksum of an upper header; UDP without one is left alone. */
export function change(p: Uint8Array, upperAt: number, protocol: number, by: number): void {
  const at = upperAt + fieldAt(protocol);
  const before = u16(p, at);
  const isUdp = protocol === PROTO.UDP;
  if (isUdp && before === 0) return;
  const sum = before + by;
  const value = ((sum & 0xffff) + (sum >>> 16)) % 0xffff;
  setU16(p, at, value === 0 && isUdp ? 0xffff : value);
}

/** ICMP for IPv4 has no pseudo header; with segments left, the final destination counts. */
function pseudoSum(p: Uint8Array, cursor: Cursor): number {
  if (cursor.protocol === PROTO.ICMP) return 0;
  const final = cursor.routingAt === 0 ? 0 : ipv6.finalDestinationAt(p, cursor.routingAt);
  const dstAt = final === 0 ? cursor.dstAt : final;
  const len = cursor.end - cursor.upperAt;
  return pseudoHeader(p, cursor.family, cursor.srcAt, dstAt, cursor.protocol, len);
}
