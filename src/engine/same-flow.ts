import { ADDRESS_LEN } from '../base/address.ts';
import { equal, u16, u32 } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';
import type { Flight } from './flight.ts';

/**
 * Whether a packet that nobody has decoded yet is TCP or UDP of the same flow as one that has a
 * plain header (`isPlain`), and as right: the same in all but length, identification and what is
 * behind the ports. `at` to `end`: what there is of it.
 */
export function isSameStream(
  p: Uint8Array,
  at: number,
  end: number,
  { packet: { bytes: q }, cursor: { family, at: other }, innerSum }: Flight,
): boolean {
  if (family === 6) {
    return (
      end - at >= ipv6.HEADER_LEN + udp.HEADER_LEN &&
      ipv6.payloadLen(p, at) === end - at - ipv6.HEADER_LEN &&
      u32(p, at) === u32(q, other) &&
      u16(p, at + ipv6.NEXT_HEADER_AT) === u16(q, other + ipv6.NEXT_HEADER_AT) &&
      // Addresses and ports.
      equal(p, at + ipv6.SRC_AT, q, other + ipv6.SRC_AT, 36)
    );
  }
  return (
    end - at >= ipv4.HEADER_LEN + udp.HEADER_LEN &&
    ipv4.totalLen(p, at) === end - at &&
    u16(p, at) === u16(q, other) &&
    u32(p, at + ipv4.FRAGMENT_AT) === u32(q, other + ipv4.FRAGMENT_AT) &&
    u32(p, at + ipv4.SRC_AT) === u32(q, other + ipv4.SRC_AT) &&
    u32(p, at + ipv4.DST_AT) === u32(q, other + ipv4.DST_AT) &&
    u32(p, at + ipv4.HEADER_LEN) === u32(q, other + ipv4.HEADER_LEN) &&
    ipv4.checksumOkBy(p, at, innerSum)
  );
}

/** Whether a decoded packet is TCP or UDP right behind a header without options or extensions. */
export function isPlain({
  protocol,
  portsKnown,
  isFragment,
  family,
  at,
  upperAt,
}: Cursor): boolean {
  const headerLen = family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
  return (
    (protocol === PROTO.TCP || protocol === PROTO.UDP) &&
    portsKnown &&
    !isFragment &&
    upperAt - at === headerLen
  );
}

/**
 * Whether two decoded packets have everything in common that policy goes by, and headers of one
 * length. Only for TCP and UDP: fragments, and what ICMP errors quote, are told apart by more.
 */
export function isSameFlow(packet: Packet, cursor: Cursor, other: Packet, before: Cursor): boolean {
  const { family, protocol } = cursor;
  return (
    (protocol === PROTO.TCP || protocol === PROTO.UDP) &&
    protocol === before.protocol &&
    cursor.sport === before.sport &&
    cursor.dport === before.dport &&
    family === before.family &&
    cursor.portsKnown &&
    before.portsKnown &&
    !cursor.isFragment &&
    !before.isFragment &&
    cursor.insertAt - cursor.at === before.insertAt - before.at &&
    // Both headers have the destination right behind the source.
    equal(packet.bytes, cursor.srcAt, other.bytes, before.srcAt, 2 * ADDRESS_LEN[family])
  );
}
