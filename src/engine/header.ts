import { copy, copyWords, setU8 } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';

/**
 * Opens a gap of `len` octets in front of the payload at `cursor.insertAt`, by moving the headers
 * forward into the headroom (they are short, the payload is not), and moves the cursor along: the
 * gap begins at `insertAt`.
 */
export function openGap(packet: Packet, cursor: Cursor, len: number): void {
  const headersLen = cursor.insertAt - cursor.at;
  copyWords(packet.view, cursor.at, packet.view, cursor.at - len, headersLen);
  packet.at -= len;
  shift(cursor, -len);
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
  const { bytes, view, at, end } = packet;
  if (cursor.family === 4) {
    ipv4.complete(view, at, end - at, next);
  } else {
    setU8(bytes, protocolAt, next);
    ipv6.setPayloadLen(bytes, at, end - at - ipv6.HEADER_LEN);
  }
}
