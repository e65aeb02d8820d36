import type { Family } from '../../base/address.ts';
import { equal, u8, u16, u32 } from '../../wire/bytes.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import type { Packet } from '../../wire/packet.ts';
import { PROTO } from '../../wire/protocol.ts';
import * as udp from '../../wire/udp.ts';
import { UDP_HEADERS_LEN } from '../udp-packet.ts';

/** Version 4 and five words of header. */
const PLAIN_IPV4 = 0x45;
const MORE_AND_OFFSET = 0x3fff;

/**
 * The family of a packet that a UDP socket bound to `port` can send as it is: a whole datagram from
 * that port with payload, behind a plain header whose fields the socket can be told. Undefined of
 * any other packet.
 */
export function familyOfRow({ bytes: p, at, len }: Packet, port: number): Family | undefined {
  if (len <= UDP_HEADERS_LEN[4]) return undefined;
  const version = u8(p, at) >>> 4;
  const family = version === 4 ? 4 : 6;
  if (len <= UDP_HEADERS_LEN[family]) return undefined;
  if (version === 4) {
    if (u8(p, at) !== PLAIN_IPV4 || (u16(p, at + 6) & MORE_AND_OFFSET) !== 0) return undefined;
    if (ipv4.protocol(p, at) !== PROTO.UDP) return undefined;
  } else if (version !== 6 || ipv6.nextHeader(p, at) !== PROTO.UDP || ipv6.flowLabel(p, at) !== 0) {
    return undefined;
  }
  const udpAt = at + UDP_HEADERS_LEN[family] - udp.HEADER_LEN;
  return udp.sport(p, udpAt) === port && hasRightLen(p, at, len, family) ? family : undefined;
}

/**
 * How many packets from `from` on, before `end`, are a row: the same in all that a socket sets, and
 * the same in length but for the last, which may be shorter. `familyOfRow` holds for the first.
 */
export function rowLen(
  packets: readonly Packet[],
  from: number,
  end: number,
  family: Family,
): number {
  const first = packets[from]!;
  let i = from + 1;
  for (; i < end; i++) {
    const next = packets[i]!;
    if (next.bytes !== first.bytes || next.len > first.len || next.len <= UDP_HEADERS_LEN[family])
      break;
    if (next.follows && next.len === first.len) continue;
    if (!isAlike(first.bytes, first.at, next.at, family)) break;
    if (!hasRightLen(next.bytes, next.at, next.len, family)) break;
    if (next.len < first.len) return i + 1 - from;
  }
  return i - from;
}

/** All of the headers but lengths, identification and checksums. */
function isAlike(p: Uint8Array, a: number, b: number, family: Family): boolean {
  if (family === 6) {
    return (
      u32(p, a) === u32(p, b) && u16(p, a + 6) === u16(p, b + 6) && equal(p, a + 8, p, b + 8, 36)
    );
  }
  return (
    u16(p, a) === u16(p, b) &&
    u32(p, a + 6) === u32(p, b + 6) &&
    u32(p, a + 12) === u32(p, b + 12) &&
    u32(p, a + 16) === u32(p, b + 16) &&
    u32(p, a + 20) === u32(p, b + 20)
  );
}

function hasRightLen(p: Uint8Array, at: number, len: number, family: Family): boolean {
  if (family === 4) {
    return ipv4.totalLen(p, at) === len && udp.len(p, at + ipv4.HEADER_LEN) === len - 20;
  }
  return ipv6.payloadLen(p, at) === len - 40 && udp.len(p, at + ipv6.HEADER_LEN) === len - 40;
}
