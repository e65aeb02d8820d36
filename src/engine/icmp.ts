import { ADDRESS_LEN, type Family } from '../base/address.ts';
import { copy, u8 } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';

/**
 * RFC 1812 §4.3.2.3 and RFC 4443 §2.4(c): no error message is larger than what every path carries.
 */
const ERROR_LEN_MAX = { 4: 576, 6: 1280 } as const;
const TTL = 64;

/** What an error says about the packet that it quotes. */
export interface IcmpError {
  readonly type: number;
  readonly code: number;
  /** The 32 bits behind the checksum: an MTU, or 0. */
  readonly rest: number;
}

/** RFC 1191 §4, RFC 4443 §3.2: what size would fit. */
export function tooBig(family: Family, mtu: number): IcmpError {
  return family === 4
    ? { type: icmp.TYPE4.UNREACHABLE, code: icmp.CODE4.TOO_BIG, rest: mtu & 0xffff }
    : { type: icmp.TYPE6.TOO_BIG, code: 0, rest: mtu };
}

/** RFC 1122 §4.1.3.1, RFC 4443 §3.1: nobody listens there. */
export function portUnreachable(family: Family): IcmpError {
  return family === 4
    ? { type: icmp.TYPE4.UNREACHABLE, code: icmp.CODE4.PORT, rest: 0 }
    : { type: icmp.TYPE6.UNREACHABLE, code: icmp.CODE6.PORT, rest: 0 };
}

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
 * Fills `error` with the message to the sender of `packet`. Its source is the packet's destination:
 * that is an address from which the sender's host accepts packets, whichever addresses this host
 * has itself.
 */
export function writeError(
  error: Packet,
  packet: Packet,
  cursor: Cursor,
  { type, code, rest }: IcmpError,
  id: number,
): void {
  const { family } = cursor;
  const header = family === 4 ? ipv4 : ipv6;
  const headersLen = header.HEADER_LEN + icmp.HEADER_LEN;
  const quotedLen = Math.min(packet.len, ERROR_LEN_MAX[family] - headersLen);
  const e = error.bytes;
  const at = error.at;
  const icmpAt = at + header.HEADER_LEN;
  error.end = at + headersLen + quotedLen;
  const p = packet.bytes;
  icmp.write(e, icmpAt, type, code, rest);
  copy(p, packet.at, e, icmpAt + icmp.HEADER_LEN, quotedLen);
  const protocol = icmp.protocolOf(family);
  const len = error.end - icmpAt;
  if (family === 4) ipv4.write(e, at, 0, error.len, id, 0, TTL, protocol);
  else ipv6.write(e, at, 0, 0, len, protocol, TTL);
  const [srcAt, dstAt] = [at + header.SRC_AT, at + header.DST_AT];
  copy(p, cursor.dstAt, e, srcAt, ADDRESS_LEN[family]);
  copy(p, cursor.srcAt, e, dstAt, ADDRESS_LEN[family]);
  if (family === 4) ipv4.updateChecksum(e, at);
  const pseudo = family === 4 ? 0 : checksum.pseudoHeader(e, 6, srcAt, dstAt, protocol, len);
  icmp.setChecksum(e, icmpAt, checksum.finish(checksum.add(e, icmpAt, error.end, pseudo)));
}
