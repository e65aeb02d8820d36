import type { Address } from '../base/address.ts';
import { addressFrom } from '../base/address.ts';
import { DROPS } from '../base/drop.ts';
import * as checksum from '../wire/checksum.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';

/** One end of a UDP conversation. */
export interface Endpoint {
  readonly address: Address;
  readonly port: number;
}

/** What a socket tells about the IP header of a datagram; the rest of the header is gone. */
export interface UdpMeta {
  /** The IPv4 type of service or IPv6 traffic class, with ECN. */
  readonly trafficClass: number;
  /** The IPv4 time to live or IPv6 hop limit. */
  readonly hopLimit: number;
}

export const UDP_META: UdpMeta = { trafficClass: 0, hopLimit: 64 };

/** The longest UDP payload that fits an IP packet. */
export const UDP_PAYLOAD_MAX = {
  4: ipv4.TOTAL_LEN_MAX - ipv4.HEADER_LEN - udp.HEADER_LEN,
  6: ipv6.PAYLOAD_LEN_MAX - udp.HEADER_LEN,
} as const;

/**
 * Writes IP and UDP headers in front of a UDP payload of at most `UDP_PAYLOAD_MAX` octets. The UDP
 * checksum is 0 on IPv4, as RFC 3948 §2.1 wants it for ESP in UDP, and true on IPv6, where 0 is not
 * allowed (RFC 8200 §8.1): the kernel has checked the one that came.
 */
export function prependUdp(p: Packet, from: Endpoint, to: Endpoint, meta = UDP_META): void {
  p.at -= udp.HEADER_LEN;
  const udpAt = p.at;
  udp.write(p.bytes, udpAt, from.port, to.port, p.len);
  if (from.address.family === 4) {
    p.at -= ipv4.HEADER_LEN;
    // No identification, and "do not fragment": an atomic datagram (RFC 6864 §4.1), since it
    // arrived whole.
    const { trafficClass, hopLimit } = meta;
    ipv4.write(p.bytes, p.at, trafficClass, p.len, 0, ipv4.FLAG_DF, hopLimit, PROTO.UDP);
    p.bytes.set(from.address.bytes, p.at + ipv4.SRC_AT);
    p.bytes.set(to.address.bytes, p.at + ipv4.DST_AT);
    ipv4.updateChecksum(p.bytes, p.at);
  } else {
    prependIpv6(p, from.address, to.address, { ...meta, flowLabel: 0, nextHeader: PROTO.UDP });
    udp.setChecksum(p.bytes, udpAt, udpChecksum6(p, udpAt));
  }
}

export interface Ipv6Meta extends UdpMeta {
  readonly flowLabel: number;
  readonly nextHeader: number;
}

/** Writes a fixed IPv6 header in front of what is in the packet, at most 65,535 octets. */
export function prependIpv6(p: Packet, from: Address, to: Address, meta: Ipv6Meta): void {
  const payloadLen = p.len;
  const { trafficClass, flowLabel, nextHeader, hopLimit } = meta;
  p.at -= ipv6.HEADER_LEN;
  ipv6.write(p.bytes, p.at, trafficClass, flowLabel, payloadLen, nextHeader, hopLimit);
  p.bytes.set(from.bytes, p.at + ipv6.SRC_AT);
  p.bytes.set(to.bytes, p.at + ipv6.DST_AT);
}

/** Who sends a UDP packet to whom, and where its payload is. */
export interface UdpPacket {
  readonly from: Endpoint;
  readonly to: Endpoint;
  readonly payloadAt: number;
  readonly payloadEnd: number;
}

/**
 * Reads a whole UDP packet without IPv6 extension headers; of anything else it says what is wrong.
 */
export function readUdp(p: Packet): UdpPacket | string {
  if (p.len < 1) return 'empty packet';
  const version = p.bytes[p.at]! >> 4;
  if (version === 4) return readUdp4(p);
  return version === 6 ? readUdp6(p) : 'not IPv4 or IPv6';
}

function readUdp4(p: Packet): UdpPacket | string {
  const wrong = ipv4.check(p.bytes, p.at, p.end);
  if (wrong) return DROPS[wrong].text;
  if (ipv4.isFragment(p.bytes, p.at)) return 'fragment';
  if (ipv4.protocol(p.bytes, p.at) !== PROTO.UDP) return 'not UDP';
  const udpAt = p.at + ipv4.headerLen(p.bytes, p.at);
  const end = p.at + ipv4.totalLen(p.bytes, p.at);
  const from = addressFrom(4, p.bytes, p.at + ipv4.SRC_AT);
  return readPorts(p, udpAt, end, from, addressFrom(4, p.bytes, p.at + ipv4.DST_AT));
}

function readUdp6(p: Packet): UdpPacket | string {
  const wrong = ipv6.check(p.bytes, p.at, p.end);
  if (wrong) return DROPS[wrong].text;
  const next = ipv6.nextHeader(p.bytes, p.at);
  if (next !== PROTO.UDP) return next === PROTO.FRAGMENT ? 'fragment' : 'not UDP';
  const udpAt = p.at + ipv6.HEADER_LEN;
  const end = udpAt + ipv6.payloadLen(p.bytes, p.at);
  const from = addressFrom(6, p.bytes, p.at + ipv6.SRC_AT);
  return readPorts(p, udpAt, end, from, addressFrom(6, p.bytes, p.at + ipv6.DST_AT));
}

function readPorts(
  p: Packet,
  at: number,
  end: number,
  from: Address,
  to: Address,
): UdpPacket | string {
  const wrong = udp.check(p.bytes, at, end);
  if (wrong) return DROPS[wrong].text;
  return {
    from: { address: from, port: udp.sport(p.bytes, at) },
    to: { address: to, port: udp.dport(p.bytes, at) },
    payloadAt: at + udp.HEADER_LEN,
    payloadEnd: at + udp.len(p.bytes, at),
  };
}

function udpChecksum6(p: Packet, udpAt: number): number {
  const srcAt = p.at + ipv6.SRC_AT;
  const dstAt = p.at + ipv6.DST_AT;
  const pseudo = checksum.pseudoHeader(p.bytes, 6, srcAt, dstAt, PROTO.UDP, p.end - udpAt);
  const value = checksum.finish(checksum.add(p.bytes, udpAt, p.end, pseudo));
  return value === 0 ? 0xffff : value;
}
