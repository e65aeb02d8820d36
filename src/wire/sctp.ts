/**
 * The SCTP common header (RFC 9260 §3). After `check`, no accessor can fail. Its checksum is a
 * CRC32c, not the Internet's.
 *
 *      0               16            31
 *     +---------------+---------------+
 *   0 |  source port  |   dest. port  |
 *     +---------------+---------------+
 *   4 |       verification tag        |
 *     +-------------------------------+
 *   8 |            CRC32c             |
 *     +-------------------------------+
 */
import type { DropReason } from '../base/drop.ts';
import { u16, u32 } from './bytes.ts';

export const HEADER_LEN = 12;

export function check(_p: Uint8Array, at: number, end: number): DropReason | undefined {
  return end - at < HEADER_LEN ? 'truncated-header' : undefined;
}

export function sport(p: Uint8Array, at: number): number {
  return u16(p, at);
}

export function dport(p: Uint8Array, at: number): number {
  return u16(p, at + 2);
}

export function verificationTag(p: Uint8Array, at: number): number {
  return u32(p, at + 4);
}
