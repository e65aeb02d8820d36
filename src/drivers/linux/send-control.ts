import type { Family } from '../../base/address.ts';
import { copy, zero } from '../../wire/bytes.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import type { Packet } from '../../wire/packet.ts';
import {
  IP_PKTINFO,
  IP_TOS,
  IP_TTL,
  IPV6_HOPLIMIT,
  IPV6_PKTINFO,
  IPV6_TCLASS,
  SOL_UDP,
  UDP_SEGMENT,
} from './control.ts';
import type { MessageVector } from './messages.ts';
import { IPPROTO_IP, IPPROTO_IPV6 } from './socket.ts';

/** The longest control data that `writeSendControl` writes: 40 and three times 24 octets. */
export const SEND_CONTROL_LEN = 112;
const CMSG_LEN = 16;

/**
 * Tells the kernel the header of message `i`: the source, TTL and traffic class of `packet`, and
 * how many octets of payload each datagram has.
 */
export function writeSendControl(
  vector: MessageVector,
  i: number,
  family: Family,
  packet: Packet,
  segment: number,
): void {
  const { bytes: p, at } = packet;
  const start = vector.controlAt(i);
  const { bytes, view } = vector;
  let dataAt: number;
  let ends: number;
  if (family === 4) {
    // in_pktinfo: device (any), source, and a field that only counts when receiving.
    dataAt = begin(vector, start, IPPROTO_IP, IP_PKTINFO, 12);
    zero(bytes, dataAt, 12);
    copy(p, at + ipv4.SRC_AT, bytes, dataAt + 4, 4);
    ends = putInt(vector, start + 32, IPPROTO_IP, IP_TTL, ipv4.ttl(p, at));
    ends = putInt(vector, ends, IPPROTO_IP, IP_TOS, ipv4.tos(p, at));
  } else {
    // in6_pktinfo: source, device (any).
    dataAt = begin(vector, start, IPPROTO_IPV6, IPV6_PKTINFO, 20);
    copy(p, at + ipv6.SRC_AT, bytes, dataAt, 16);
    view.setUint32(dataAt + 16, 0, true);
    ends = putInt(vector, start + 40, IPPROTO_IPV6, IPV6_HOPLIMIT, ipv6.hopLimit(p, at));
    ends = putInt(vector, ends, IPPROTO_IPV6, IPV6_TCLASS, ipv6.trafficClass(p, at));
  }
  dataAt = begin(vector, ends, SOL_UDP, UDP_SEGMENT, 2);
  view.setUint16(dataAt, segment, true);
  vector.setControlLen(i, ends + 24 - start);
}

function putInt(
  vector: MessageVector,
  at: number,
  level: number,
  type: number,
  value: number,
): number {
  vector.view.setInt32(begin(vector, at, level, type, 4), value, true);
  return at + 24;
}

/** Writes the header of a piece of control data; returns where its data goes. */
function begin(
  { view }: MessageVector,
  at: number,
  level: number,
  type: number,
  len: number,
): number {
  view.setUint32(at, CMSG_LEN + len, true);
  view.setUint32(at + 4, 0, true);
  view.setInt32(at + 8, level, true);
  view.setInt32(at + 12, type, true);
  return at + CMSG_LEN;
}
