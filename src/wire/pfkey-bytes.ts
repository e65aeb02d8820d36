/**
 * PF_KEY is an interface within one machine: numbers are in its byte order, which is little-endian
 * on every machine that runs Node. Only SPIs, ports and addresses are in network order (bytes.ts).
 * All host-order access is here.
 */

export function h16(p: Uint8Array, at: number): number {
  return p[at]! | (p[at + 1]! << 8);
}

export function h32(p: Uint8Array, at: number): number {
  return (p[at]! | (p[at + 1]! << 8) | (p[at + 2]! << 16) | (p[at + 3]! << 24)) >>> 0;
}

/**
 * Exact up to 2^53 - 1, and that for anything above: a limit that large is never reached, and does
 * not wrap.
 */
export function h64(p: Uint8Array, at: number): number {
  return Math.min(h32(p, at + 4) * 0x1_0000_0000 + h32(p, at), Number.MAX_SAFE_INTEGER);
}

export function setH16(p: Uint8Array, at: number, value: number): void {
  p[at] = value;
  p[at + 1] = value >>> 8;
}

export function setH32(p: Uint8Array, at: number, value: number): void {
  setH16(p, at, value);
  setH16(p, at + 2, value >>> 16);
}

export function setH64(p: Uint8Array, at: number, value: number): void {
  setH32(p, at, value % 0x1_0000_0000);
  setH32(p, at + 4, Math.floor(value / 0x1_0000_0000));
}
