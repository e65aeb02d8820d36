/**
 * AH (RFC 4302 §2). After `check`, no accessor can fail.
 *
 *      0               8               16              24            31
 *     +---------------+---------------+-------------------------------+
 *   0 |  next header  |    length     |           reserved            |
 *     +---------------+---------------+-------------------------------+
 *   4 |              security parameters index (SPI)                  |
 *     +---------------------------------------------------------------+
 *   8 |                      sequence number                          |
 *     +---------------------------------------------------------------+
 *  12 |        integrity check value (ICV), padding                   |
 *     +---------------------------------------------------------------+
 *
 * The length counts 32-bit words less 2, because it was an IPv6 extension header that began life in
 * IPv4's units.
 */
import type { DropReason } from '../base/drop.ts';
import { setU8, setU16, setU32, u8, u32 } from './bytes.ts';

/** Octets in front of the ICV. */
export const HEADER_LEN = 12;
export const NEXT_HEADER_AT = 0;

/**
 * Whether the header, by its own length field, fits. Whether the length fits the SA is for the SA
 * to say.
 */
export function check(p: Uint8Array, at: number, end: number): DropReason | undefined {
  if (end - at < HEADER_LEN) return 'ah-truncated';
  const headerLen = len(p, at);
  if (headerLen < HEADER_LEN) return 'ah-bad-length';
  return headerLen > end - at ? 'ah-truncated' : undefined;
}

export function nextHeader(p: Uint8Array, at: number): number {
  return u8(p, at);
}

/** Octets of the whole header, with ICV and padding. */
export function len(p: Uint8Array, at: number): number {
  return (u8(p, at + 1) + 2) << 2;
}

export function spi(p: Uint8Array, at: number): number {
  return u32(p, at + 4);
}

/** The low 32 bits of the sequence number. */
export function seq(p: Uint8Array, at: number): number {
  return u32(p, at + 8);
}

/**
 * Writes what stands in front of the ICV. `len`: octets of the whole header, a multiple of 4 (IPv6:
 * of 8).
 */
export function write(
  p: Uint8Array,
  at: number,
  nextHeader: number,
  len: number,
  spi: number,
  seq: number,
): void {
  setU8(p, at, nextHeader);
  setU8(p, at + 1, (len >>> 2) - 2);
  setU16(p, at + 2, 0);
  setU32(p, at + 4, spi);
  setU32(p, at + 8, seq);
}
