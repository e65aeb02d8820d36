/**
 * ESP (RFC 4303 §2). After `check`, the header can be read; what follows depends on the SA.
 *
 *      0               8               16              24            31
 *     +---------------------------------------------------------------+
 *   0 |              security parameters index (SPI)                  |
 *     +---------------------------------------------------------------+
 *   4 |                      sequence number                          |
 *     +---------------------------------------------------------------+
 *   8 |        IV, payload (encrypted from behind the IV)             |
 *     +               +-----------------------------------------------+
 *     |               |  padding, 0 to 255 octets                     |
 *     +---------------+---------------+---------------+---------------+
 *     |                               |  pad length   |  next header  |
 *     +-------------------------------+---------------+---------------+
 *     |                 integrity check value (ICV)                   |
 *     +---------------------------------------------------------------+
 */
import type { DropReason } from '../base/drop.ts';
import { setWord, u32 } from './bytes.ts';

export const HEADER_LEN = 8;
/** Pad length and next header. */
export const TRAILER_LEN = 2;
export const PADDING_MAX = 255;
export const SEQ_AT = 4;

export function check(_p: Uint8Array, at: number, end: number): DropReason | undefined {
  return end - at < HEADER_LEN ? 'esp-truncated' : undefined;
}

export function spi(p: Uint8Array, at: number): number {
  return u32(p, at);
}

/** The low 32 bits of the sequence number. */
export function seq(p: Uint8Array, at: number): number {
  return u32(p, at + SEQ_AT);
}

/** `seq`: its low half counts. */
export function write(view: DataView, at: number, spi: number, seq: number): void {
  setWord(view, at, spi);
  setWord(view, at + SEQ_AT, seq);
}
