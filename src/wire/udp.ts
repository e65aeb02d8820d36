/**
 * The UDP header (RFC 768). After `check`, no accessor can fail.
 *
 *      0               16            31
 *     +---------------+---------------+
 *   0 |  source port  |   dest. port  |
 *     +---------------+---------------+
 *   4 |    length     |   checksum    |
 *     +---------------+---------------+
 */
import type { DropReason } from '../base/drop.ts';
import { setU16, setWord, u16 } from './bytes.ts';

export const HEADER_LEN = 8;
export const LEN_AT = 4;
export const CHECKSUM_AT = 6;

/** Whether the datagram at `at` fits; octets behind its length are ignored by those who read it. */
export function check(p: Uint8Array, at: number, end: number): DropReason | undefined {
  if (end - at < HEADER_LEN) return 'truncated-header';
  const datagramLen = len(p, at);
  return datagramLen < HEADER_LEN || datagramLen > end - at ? 'bad-udp-length' : undefined;
}

export function sport(p: Uint8Array, at: number): number {
  return u16(p, at);
}

export function dport(p: Uint8Array, at: number): number {
  return u16(p, at + 2);
}

/** Octets of header and data. */
export function len(p: Uint8Array, at: number): number {
  return u16(p, at + 4);
}

export function setLen(p: Uint8Array, at: number, value: number): void {
  setU16(p, at + 4, value);
}

/** 0: none was computed, which only IPv4 allows (and RFC 6935 for some tunnels over IPv6). */
export function checksum(p: Uint8Array, at: number): number {
  return u16(p, at + CHECKSUM_AT);
}

export function setChecksum(p: Uint8Array, at: number, value: number): void {
  setU16(p, at + CHECKSUM_AT, value);
}

/** Writes a header with checksum 0. `len`: octets of header and data. */
export function write(p: Uint8Array, at: number, sport: number, dport: number, len: number): void {
  setU16(p, at, sport);
  setU16(p, at + 2, dport);
  setU16(p, at + 4, len);
  setU16(p, at + CHECKSUM_AT, 0);
}

/** As `write`, by words. */
export function writeWords(
  view: DataView,
  at: number,
  sport: number,
  dport: number,
  len: number,
): void {
  setWord(view, at, (sport << 16) | dport);
  setWord(view, at + 4, len << 16);
}
