/**
 * The IPv4 header (RFC 791 §3.1). After `check`, no accessor can fail.
 *
 *      0               8               16              24            31
 *     +-------+-------+---------------+-------------------------------+
 *   0 |   4   |  IHL  |  TOS (DS+ECN) |         total length          |
 *     +-------+-------+---------------+-+-+-+-------------------------+
 *   4 |        identification         |0|D|M| fragment offset, in 8s  |
 *     +---------------+---------------+-+-+-+-------------------------+
 *   8 |      TTL      |   protocol    |        header checksum        |
 *     +---------------+---------------+-------------------------------+
 *  12 |                        source address                         |
 *     +---------------------------------------------------------------+
 *  16 |                      destination address                      |
 *     +---------------------------------------------------------------+
 *  20 |             options, 0 to 40 octets, a multiple of 4          |
 *     +---------------------------------------------------------------+
 */
import type { DropReason } from '../base/drop.ts';
import { half, setU8, setU16, setWord, u8, u16, word } from './bytes.ts';
import * as checksum from './checksum.ts';

export const HEADER_LEN = 20;
export const HEADER_LEN_MAX = 60;
export const TOTAL_LEN_MAX = 65_535;
/** Offsets from the start of the header. */
export const TOS_AT = 1;
export const ID_AT = 4;
export const FRAGMENT_AT = 6;
export const TTL_AT = 8;
export const PROTOCOL_AT = 9;
export const CHECKSUM_AT = 10;
export const SRC_AT = 12;
export const DST_AT = 16;
/** Flags of the fragment field, as they stand in its 16 bits. */
export const FLAG_DF = 0x4000;
export const FLAG_MF = 0x2000;

export const OPTION = {
  END: 0,
  NOP: 1,
  RECORD_ROUTE: 7,
  TIMESTAMP: 68,
  SECURITY: 130,
  LOOSE_ROUTE: 131,
  CIPSO: 134,
  STRICT_ROUTE: 137,
  ROUTER_ALERT: 148,
} as const;
/** Set in an option's type: it goes into every fragment (RFC 791 §3.1, copied flag). */
export const OPTION_COPIED = 0x80;

/**
 * Whether octets `at` to `end` begin with an IPv4 packet. Octets behind its total length are link
 * padding.
 */
export function check(p: Uint8Array, at: number, end: number): DropReason | undefined {
  if (end - at < HEADER_LEN) return 'truncated-header';
  if (u8(p, at) >>> 4 !== 4) return 'bad-version';
  const len = headerLen(p, at);
  if (len < HEADER_LEN) return 'bad-header-length';
  const total = totalLen(p, at);
  if (total < len || total > end - at) return 'bad-total-length';
  return len === HEADER_LEN ? undefined : checkOptions(p, at + HEADER_LEN, at + len);
}

/**
 * Whether each option's length leads to the next one, so that walking them cannot leave the header.
 */
function checkOptions(p: Uint8Array, at: number, end: number): DropReason | undefined {
  for (let i = at; i < end; ) {
    const type = u8(p, i);
    if (type === OPTION.END) return undefined;
    if (type !== OPTION.NOP && (i + 1 >= end || u8(p, i + 1) < 2)) return 'bad-option';
    i += optionLen(p, i);
    if (i > end) return 'bad-option';
  }
  return undefined;
}

/** Octets of the header with its options: 20 to 60. */
export function headerLen(p: Uint8Array, at: number): number {
  return (u8(p, at) & 15) << 2;
}

export function setHeaderLen(p: Uint8Array, at: number, len: number): void {
  setU8(p, at, 0x40 | (len >>> 2));
}

/** DS field and ECN (RFC 2474, RFC 3168). */
export function tos(p: Uint8Array, at: number): number {
  return u8(p, at + TOS_AT);
}

export function setTos(p: Uint8Array, at: number, value: number): void {
  setU8(p, at + TOS_AT, value);
}

export function totalLen(p: Uint8Array, at: number): number {
  return u16(p, at + 2);
}

export function setTotalLen(p: Uint8Array, at: number, value: number): void {
  setU16(p, at + 2, value);
}

export function id(p: Uint8Array, at: number): number {
  return u16(p, at + 4);
}

export function setId(p: Uint8Array, at: number, value: number): void {
  setU16(p, at + 4, value);
}

export function dontFragment(p: Uint8Array, at: number): boolean {
  return (u16(p, at + FRAGMENT_AT) & FLAG_DF) !== 0;
}

export function moreFragments(p: Uint8Array, at: number): boolean {
  return (u16(p, at + FRAGMENT_AT) & FLAG_MF) !== 0;
}

/** In octets. */
export function fragmentOffset(p: Uint8Array, at: number): number {
  return (u16(p, at + FRAGMENT_AT) & 0x1fff) << 3;
}

/** Whether this is one of several fragments. */
export function isFragment(p: Uint8Array, at: number): boolean {
  return (u16(p, at + FRAGMENT_AT) & (FLAG_MF | 0x1fff)) !== 0;
}

/** `flags` out of FLAG_DF and FLAG_MF; `offset` in octets, a multiple of 8. */
export function setFragment(p: Uint8Array, at: number, flags: number, offset: number): void {
  setU16(p, at + FRAGMENT_AT, flags | (offset >>> 3));
}

export function ttl(p: Uint8Array, at: number): number {
  return u8(p, at + TTL_AT);
}

export function setTtl(p: Uint8Array, at: number, value: number): void {
  setU8(p, at + TTL_AT, value);
}

export function protocol(p: Uint8Array, at: number): number {
  return u8(p, at + PROTOCOL_AT);
}

export function setProtocol(p: Uint8Array, at: number, value: number): void {
  setU8(p, at + PROTOCOL_AT, value);
}

export function headerChecksum(p: Uint8Array, at: number): number {
  return u16(p, at + CHECKSUM_AT);
}

/** Not part of `check`: packets from the own host may leave it to the network card. */
export function checksumOk(view: DataView, at: number): boolean {
  return checksum.finish(headerSum(view, at)) === 0;
}

/** Computes and writes the header checksum; call it last. */
export function updateChecksum(p: Uint8Array, at: number): void {
  setU16(p, at + CHECKSUM_AT, 0);
  const end = at + headerLen(p, at);
  setU16(p, at + CHECKSUM_AT, checksum.finish(checksum.add(p, at, end, 0)));
}

/** The sum over all of a header, for `checksum.finish`. */
function headerSum(view: DataView, at: number): number {
  let sum = 0;
  const end = at + ((view.getUint8(at) & 15) << 2);
  for (let i = at; i < end; i += 4) sum += wordSum(word(view, i));
  return sum;
}

function wordSum(value: number): number {
  return (value >>> 16) + (value & 0xffff);
}

/**
 * The sum over a header without its length, identification and checksum: what headers of one flow
 * have in common.
 */
export function sumInCommon(view: DataView, at: number): number {
  const own = half(view, at + 2) + half(view, at + ID_AT) + half(view, at + CHECKSUM_AT);
  return headerSum(view, at) - own;
}

/**
 * Gives a header, whose `sumInCommon` is known, another identification, and its checksum. All else
 * is as it will be sent.
 */
export function stampId(view: DataView, at: number, id: number, inCommon: number): void {
  const sum = inCommon + half(view, at + 2) + id;
  setWord(view, at + ID_AT, withId(word(view, at + ID_AT), id));
  setWord(view, at + TTL_AT, withChecksum(word(view, at + TTL_AT), sum));
}

/** The word of a header that begins with the identification, with another one. */
export function withId(value: number, id: number): number {
  return (id << 16) | (value & 0xffff);
}

/** The word of a header that ends with the checksum, with that for a sum over all else. */
export function withChecksum(value: number, sum: number): number {
  return (value & ~0xffff) | checksum.finish(sum);
}

/** As `checksumOk`, of a header whose `sumInCommon` is known. */
export function checksumOkBy(view: DataView, at: number, inCommon: number): boolean {
  const own = half(view, at + 2) + half(view, at + ID_AT) + half(view, at + CHECKSUM_AT);
  return checksum.finish(inCommon + own) === 0;
}

/**
 * Writes a header without options, but for what `complete` adds. `flags` out of FLAG_DF and
 * FLAG_MF; `src` and `dst` as words.
 */
export function begin(
  view: DataView,
  at: number,
  tos: number,
  id: number,
  flags: number,
  ttl: number,
  src: number,
  dst: number,
): void {
  setWord(view, at, 0x4500_0000 | (tos << 16));
  setWord(view, at + ID_AT, (id << 16) | flags);
  setWord(view, at + TTL_AT, ttl << 24);
  setWord(view, at + SRC_AT, src);
  setWord(view, at + DST_AT, dst);
}

/**
 * Gives a header its total length, protocol and checksum. In whole words: a processor that reads a
 * word of which only a part was written just now waits for that part.
 */
export function complete(view: DataView, at: number, totalLen: number, protocol: number): void {
  const ttlAndProtocol = (word(view, at + TTL_AT) & 0xff00_0000) | (protocol << 16);
  setWord(view, at, (word(view, at) & ~0xffff) | totalLen);
  setWord(view, at + TTL_AT, ttlAndProtocol);
  setWord(view, at + TTL_AT, ttlAndProtocol | checksum.finish(headerSum(view, at)));
}

/**
 * Writes a header without options. The caller fills in the addresses at SRC_AT and DST_AT, then
 * calls `updateChecksum`. `flags` out of FLAG_DF and FLAG_MF.
 */
export function write(
  p: Uint8Array,
  at: number,
  tos: number,
  totalLen: number,
  id: number,
  flags: number,
  ttl: number,
  protocol: number,
): void {
  setU16(p, at, 0x4500 | tos);
  setU16(p, at + 2, totalLen);
  setU16(p, at + 4, id);
  setU16(p, at + FRAGMENT_AT, flags);
  setU16(p, at + TTL_AT, (ttl << 8) | protocol);
  setU16(p, at + CHECKSUM_AT, 0);
}

/**
 * Octets of the option at `at`, for a walk over checked options: NOP and END have no length octet.
 */
export function optionLen(p: Uint8Array, at: number): number {
  return u8(p, at) <= OPTION.NOP ? 1 : u8(p, at + 1);
}
