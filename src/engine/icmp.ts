import { ADDRESS_LEN } from '../base/address.ts';
import { copy, setU8, setU16, setU32, u8 } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';

const ICMP_HEADER_LEN = 8;
/**
 * RFC 1812 §4.3.2.3 and RFC 4443 §2.4(c): no error message is larger than what every path carries.
 */
const ERROR_LEN_MAX = { 4: 576, 6: 1280 } as const;
const TTL = 64;

/**
 * Whether a packet may be answered with an error: not one that is an error itself, nor a later
 * fragment, nor one for many (RFC 1122 §3.2.2, RFC 4443 §2.4(e); we have no address of our own to
 * answer for a group).
 */
export function mayReport(packet: Packet, cursor: Cursor): boolean {
  const { family, protocol, upperAt } = cursor;
  const p = packet.bytes;
  if (cursor.fragmentOffset !== 0) return false;
  if (family === 4 ? u8(p, cursor.dstAt) >= 224 : u8(p, cursor.dstAt) === 0xff) return false;
  return (
    protocol !== icmp.protocolOf(family) || !cursor.portsKnown || !icmp.isError(p, upperAt, family)
  );
}

/**
 * Fills `error` with the ICMP message that tells the sender of `packet` what size would fit (RFC
 * 1191 §4, RFC 4443 §3.2). Its source is the packet's destination: that is an address from which
 * the sender's host accepts packets, whichever addresses this host has itself.
 */
export function writeTooBig(
  error: Packet,
  packet: Packet,
  cursor: Cursor,
  mtu: number,
  id: number,
): void {
  const { family } = cursor;
  const headerLen = family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
  const quotedLen = Math.min(packet.len, ERROR_LEN_MAX[family] - headerLen - ICMP_HEADER_LEN);
  const e = error.bytes;
  const at = error.at;
  const icmpAt = at + headerLen;
  error.end = icmpAt + ICMP_HEADER_LEN + quotedLen;
  const p = packet.bytes;
  const addressLen = ADDRESS_LEN[family];
  setU32(e, icmpAt, 0);
  copy(p, packet.at, e, icmpAt + ICMP_HEADER_LEN, quotedLen);
  if (family === 4) {
    ipv4.write(e, at, 0, error.len, id, 0, TTL, PROTO.ICMP);
    copy(p, cursor.dstAt, e, at + ipv4.SRC_AT, addressLen);
    copy(p, cursor.srcAt, e, at + ipv4.DST_AT, addressLen);
    ipv4.updateChecksum(e, at);
    // Destination unreachable, fragmentation needed and DF set; the next-hop MTU stands in the last
    // 16 bits.
    setU8(e, icmpAt, 3);
    setU8(e, icmpAt + 1, 4);
    setU32(e, icmpAt + 4, mtu & 0xffff);
    setU16(e, icmpAt + 2, checksum.finish(checksum.add(e, icmpAt, error.end, 0)));
  } else {
    const len = error.end - icmpAt;
    ipv6.write(e, at, 0, 0, len, PROTO.ICMPV6, TTL);
    copy(p, cursor.dstAt, e, at + ipv6.SRC_AT, addressLen);
    copy(p, cursor.srcAt, e, at + ipv6.DST_AT, addressLen);
    setU8(e, icmpAt, 2);
    setU32(e, icmpAt + 4, mtu);
    const pseudo = checksum.pseudoHeader(
      e,
      6,
      at + ipv6.SRC_AT,
      at + ipv6.DST_AT,
      PROTO.ICMPV6,
      len,
    );
    setU16(e, icmpAt + 2, checksum.finish(checksum.add(e, icmpAt, error.end, pseudo)));
  }
}
