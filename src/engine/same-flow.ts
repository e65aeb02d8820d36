import { half, sameWords, word } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';

/** Of UDP, and of ESP; TCP has more. */
export const UPPER_LEN_MIN = udp.HEADER_LEN;

/** Whether a decoded packet is TCP or UDP right behind a header without options or extensions. */
export function isPlain(cursor: Cursor): boolean {
  const { protocol } = cursor;
  return (protocol === PROTO.TCP || protocol === PROTO.UDP) && isBare(cursor);
}

/**
 * Whether what a packet carries stands right behind a header without options or extensions, and has
 * a header of its own, of eight octets at least.
 */
export function isBare({ portsKnown, isFragment, family, at, upperAt, end }: Cursor): boolean {
  const headerLen = family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
  return portsKnown && !isFragment && upperAt - at === headerLen && end - upperAt >= UPPER_LEN_MIN;
}

/**
 * How many of the packets from `from` to `to` follow another one: those that say so
 * (`Packet.follows`) and, if the header of the other is bare, those that can be seen to. `cursor`
 * is that of the other, which is as it was when it was decoded.
 */
export function countFollowers(
  packets: readonly Packet[],
  from: number,
  to: number,
  first: Packet,
  cursor: Cursor,
  isBare: boolean,
): number {
  const isUdp = cursor.protocol === PROTO.UDP;
  let i = from;
  while (i < to) {
    const packet = packets[i]!;
    if (!packet.follows && !(isBare && isLike(packet, first, cursor.family, isUdp))) break;
    i++;
  }
  return i - from;
}

/** Whether a packet is as long as another and has the same headers, but for what counts up. */
function isLike(packet: Packet, first: Packet, family: 4 | 6, isUdp: boolean): boolean {
  const { view, at } = packet;
  const { view: other, at: otherAt } = first;
  if (packet.end - at !== first.end - otherAt) return false;
  if (word(view, at) !== word(other, otherAt)) return false;
  const headerLen = family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
  if (family === 4) {
    if (half(view, at + ipv4.FRAGMENT_AT) !== half(other, otherAt + ipv4.FRAGMENT_AT)) return false;
    if (half(view, at + ipv4.TTL_AT) !== half(other, otherAt + ipv4.TTL_AT)) return false;
    // Addresses, and ports or SPI.
    if (!sameWords(view, at + ipv4.SRC_AT, other, otherAt + ipv4.SRC_AT, 12)) return false;
  } else if (!sameWords(view, at + 4, other, otherAt + 4, 40)) {
    return false;
  }
  const lenAt = headerLen + udp.LEN_AT;
  return !isUdp || half(view, at + lenAt) === half(other, otherAt + lenAt);
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
    sameWords(packet.view, cursor.srcAt, other.view, before.srcAt, family === 4 ? 8 : 32)
  );
}
