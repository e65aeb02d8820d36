import { copy, setU8 } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';

/**
 * Opens a gap of `len` octets in front of the payload at `cursor.insertAt`, by moving the headers
 * forward into the headroom (they are short, the payload is not), and moves the cursor along.
 * Returns where the gap begins.
 */
export function openGap(packet: Packet, cursor: Cursor, len: number): number {
  const headersLen = cursor.insertAt - cursor.at;
  copy(packet.bytes, cursor.at, packet.bytes, cursor.at - len, headersLen);
  packet.at -= len;
  shift(cursor, -len);
  return packet.at + headersLen;
}

/** The reverse: takes `len` octets out between the headers and `gapAt + len`. */
export function closeGap(packet: Packet, cursor: Cursor, gapAt: number, len: number): void {
  copy(packet.bytes, cursor.at, packet.bytes, cursor.at + len, gapAt - cursor.at);
  packet.at += len;
  shift(cursor, len);
}

/**
 * After the headers moved: everything the cursor knows about them. What lies behind them stays
 * where it is.
 */
function shift(cursor: Cursor, by: number): void {
  cursor.at += by;
  cursor.srcAt += by;
  cursor.dstAt += by;
  cursor.protocolAt += by;
  cursor.insertAt += by;
  cursor.insertProtocolAt += by;
  if (cursor.hopOptionsAt !== 0) cursor.hopOptionsAt += by;
  if (cursor.routingAt !== 0) cursor.routingAt += by;
}

/**
 * The packet now ends at `packet.end`, and the octet at `protocolAt` names what follows: lengths
 * and checksum follow.
 */
export function finishHeader(
  packet: Packet,
  cursor: Cursor,
  protocolAt: number,
  next: number,
): void {
  const p = packet.bytes;
  const at = packet.at;
  setU8(p, protocolAt, next);
  if (cursor.family === 4) {
    ipv4.setTotalLen(p, at, packet.end - at);
    ipv4.updateChecksum(p, at);
  } else {
    ipv6.setPayloadLen(p, at, packet.end - at - ipv6.HEADER_LEN);
  }
}
