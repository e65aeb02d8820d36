import { equal, u8, u16, u32 } from '../wire/bytes.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';

/** Version 4 and five words of header. */
const PLAIN_IPV4 = 0x45;
/** Ports and UDP's length; or of ESP its SPI and more. */
const UPPER_LEN = 6;

/**
 * Whether a packet that came by itself follows the one before it as if both had been cut from one
 * large packet (`Packet.follows`): TCP, UDP or ESP of one flow and one length, behind headers that
 * differ in identification and checksum alone. Whole packets only, without options or extensions.
 */
export function followsBefore(packet: Packet, before: Packet): boolean {
  const { bytes: p, at, len } = packet;
  const { bytes: q, at: other } = before;
  if (len !== before.len || len < ipv4.HEADER_LEN + UPPER_LEN) return false;
  const first = u8(p, at);
  if (first === PLAIN_IPV4) {
    return (
      isSameUpper(p, at + ipv4.HEADER_LEN, q, other + ipv4.HEADER_LEN, ipv4.protocol(p, at)) &&
      u32(p, at + ipv4.SRC_AT) === u32(q, other + ipv4.SRC_AT) &&
      u32(p, at + ipv4.DST_AT) === u32(q, other + ipv4.DST_AT) &&
      // Flags and offset, TTL, protocol; version, traffic class, length.
      u32(p, at + ipv4.FRAGMENT_AT) === u32(q, other + ipv4.FRAGMENT_AT) &&
      u32(p, at) === u32(q, other) &&
      !ipv4.isFragment(p, at) &&
      ipv4.totalLen(p, at) === len
    );
  }
  return (
    first >>> 4 === 6 &&
    len >= ipv6.HEADER_LEN + UPPER_LEN &&
    isSameUpper(p, at + ipv6.HEADER_LEN, q, other + ipv6.HEADER_LEN, ipv6.nextHeader(p, at)) &&
    u32(p, at) === u32(q, other) &&
    u32(p, at + 4) === u32(q, other + 4) &&
    equal(p, at + ipv6.SRC_AT, q, other + ipv6.SRC_AT, 32) &&
    ipv6.payloadLen(p, at) === len - ipv6.HEADER_LEN
  );
}

function isSameUpper(
  p: Uint8Array,
  at: number,
  q: Uint8Array,
  other: number,
  protocol: number,
): boolean {
  // Ports, or the SPI.
  if (u32(p, at) !== u32(q, other)) return false;
  if (protocol === PROTO.UDP) return u16(p, at + 4) === u16(q, other + 4);
  return protocol === PROTO.TCP || protocol === PROTO.ESP;
}
