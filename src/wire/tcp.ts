/**
 * The TCP header (RFC 9293 §3.1). After `check`, no accessor can fail.
 *
 *      0               8               16              24            31
 *     +-------------------------------+-------------------------------+
 *   0 |          source port          |       destination port        |
 *     +-------------------------------+-------------------------------+
 *   4 |                        sequence number                        |
 *     +---------------------------------------------------------------+
 *   8 |                     acknowledgment number                     |
 *     +-------+-------+---------------+-------------------------------+
 *  12 |offset |   0   |C E U A P R S F|            window             |
 *     +-------+-------+---------------+-------------------------------+
 *  16 |           checksum            |        urgent pointer         |
 *     +-------------------------------+-------------------------------+
 *  20 |             options, 0 to 40 octets, a multiple of 4          |
 *     +---------------------------------------------------------------+
 */
import type { DropReason } from '../base/drop.ts';
import { setU8, setU16, setU32, u8, u16, u32 } from './bytes.ts';

export const HEADER_LEN = 20;
export const CHECKSUM_AT = 16;
export const FLAG = {
  FIN: 0x01,
  SYN: 0x02,
  RST: 0x04,
  PSH: 0x08,
  ACK: 0x10,
  URG: 0x20,
  ECE: 0x40,
  CWR: 0x80,
} as const;
export const OPTION = { END: 0, NOP: 1, MSS: 2 } as const;

export function check(p: Uint8Array, at: number, end: number): DropReason | undefined {
  if (end - at < HEADER_LEN) return 'truncated-header';
  const len = headerLen(p, at);
  if (len < HEADER_LEN) return 'bad-header-length';
  return len > end - at ? 'truncated-header' : undefined;
}

export function sport(p: Uint8Array, at: number): number {
  return u16(p, at);
}

export function dport(p: Uint8Array, at: number): number {
  return u16(p, at + 2);
}

export function seq(p: Uint8Array, at: number): number {
  return u32(p, at + 4);
}

export function setSeq(p: Uint8Array, at: number, value: number): void {
  setU32(p, at + 4, value);
}

export function ack(p: Uint8Array, at: number): number {
  return u32(p, at + 8);
}

/** Octets of the header with its options: 20 to 60. */
export function headerLen(p: Uint8Array, at: number): number {
  return (u8(p, at + 12) >>> 4) << 2;
}

export function flags(p: Uint8Array, at: number): number {
  return u8(p, at + 13);
}

export function setFlags(p: Uint8Array, at: number, value: number): void {
  setU8(p, at + 13, value);
}

export function window(p: Uint8Array, at: number): number {
  return u16(p, at + 14);
}

export function checksum(p: Uint8Array, at: number): number {
  return u16(p, at + CHECKSUM_AT);
}

export function setChecksum(p: Uint8Array, at: number, value: number): void {
  setU16(p, at + CHECKSUM_AT, value);
}

/**
 * Where the 16-bit value of the maximum segment size option stands (RFC 9293 §3.2), or 0 if there
 * is none.
 */
export function mssAt(p: Uint8Array, at: number): number {
  const end = at + headerLen(p, at);
  for (let i = at + HEADER_LEN; i < end; ) {
    const kind = u8(p, i);
    if (kind === OPTION.END) return 0;
    if (kind === OPTION.NOP) {
      i++;
      continue;
    }
    if (i + 1 >= end) return 0;
    const len = u8(p, i + 1);
    if (len < 2 || i + len > end) return 0;
    if (kind === OPTION.MSS && len === 4) return i + 2;
    i += len;
  }
  return 0;
}
