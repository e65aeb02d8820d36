import { u8 } from './bytes.ts';
import type { Cursor } from './cursor.ts';

/** Whether a decoded packet is from or to the loopback network: 127.0.0.0/8 and ::1. */
export function isLoopbackPacket(p: Uint8Array, cursor: Cursor): boolean {
  if (cursor.family === 4) return u8(p, cursor.srcAt) === 127 || u8(p, cursor.dstAt) === 127;
  return isOne(p, cursor.srcAt) || isOne(p, cursor.dstAt);
}

function isOne(p: Uint8Array, at: number): boolean {
  if (u8(p, at + 15) !== 1) return false;
  for (let i = 0; i < 15; i++) if (u8(p, at + i) !== 0) return false;
  return true;
}
