import { setU16, u8, u16, u32 } from '../../src/wire/bytes.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import * as udp from '../../src/wire/udp.ts';

const cursor = new Cursor();

/**
 * Makes lengths and IPv4 checksums right again, also of what is inside ESP that needs no keys
 * (`open` says which SPIs), so that a changed packet is not turned away at the first check.
 */
export function repair(
  p: Uint8Array,
  at: number,
  end: number,
  open: (spi: number) => boolean,
  depth = 0,
): void {
  if (depth > 8 || end - at < ipv4.HEADER_LEN) return;
  if (u8(p, at) >>> 4 === 4) {
    if (ipv4.headerLen(p, at) < ipv4.HEADER_LEN || at + ipv4.headerLen(p, at) > end) return;
    ipv4.setTotalLen(p, at, Math.min(end - at, ipv4.TOTAL_LEN_MAX));
    ipv4.updateChecksum(p, at);
  } else if (u8(p, at) >>> 4 === 6 && end - at >= ipv6.HEADER_LEN) {
    ipv6.setPayloadLen(p, at, Math.min(end - at - ipv6.HEADER_LEN, ipv6.PAYLOAD_LEN_MAX));
  }
  if (decode(p, at, end, cursor) !== undefined) return;
  repairUpper(p, cursor.protocol, cursor.upperAt, end, open, depth);
}

function repairUpper(
  p: Uint8Array,
  protocol: number,
  at: number,
  end: number,
  open: (spi: number) => boolean,
  depth: number,
): void {
  if (end - at < 12) return;
  if (protocol === PROTO.IPIP || protocol === PROTO.IPV6) {
    repair(p, at, end, open, depth + 1);
  } else if (protocol === PROTO.UDP) {
    setU16(p, at + 4, end - at);
    if (u16(p, at + 2) === 4500) {
      repairUpper(p, PROTO.ESP, at + udp.HEADER_LEN, end, open, depth + 1);
    }
  } else if (protocol === PROTO.AH) {
    const headerLen = (u8(p, at + 1) + 2) << 2;
    repairUpper(p, u8(p, at), at + headerLen, end, open, depth + 1);
  } else if (protocol === PROTO.ESP && open(u32(p, at))) {
    const textEnd = end - 2 - u8(p, end - 2);
    if (textEnd > at) repairUpper(p, u8(p, end - 1), at + 8, textEnd, open, depth + 1);
  }
}
