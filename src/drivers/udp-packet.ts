import type { Address, Family } from '../base/address.ts';
import { addressFrom } from '../base/address.ts';
import { DROPS } from '../base/drop.ts';
import * as bytes from '../wire/bytes.ts';
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

/** Octets of the IP and the UDP header together. */
export const UDP_HEADERS_LEN = {
  4: ipv4.HEADER_LEN + udp.HEADER_LEN,
  6: ipv6.HEADER_LEN + udp.HEADER_LEN,
} as const;

/** Where one end's address is, in octets as they go over the wire, and its port. */
export interface UdpEnd {
  readonly bytes: Uint8Array;
  readonly at: number;
  readonly port: number;
}

/** Writes IP and UDP headers at `at`, all of them but what depends on the payload. */
export function writeUdpHeaders(
  p: Uint8Array,
  at: number,
  family: Family,
  from: UdpEnd,
  to: UdpEnd,
  { trafficClass, hopLimit }: UdpMeta,
): void {
  if (family === 4) {
    // No identification, and "do not fragment": an atomic datagram (RFC 6864 §4.1), since it
    // arrived whole.
    ipv4.write(p, at, trafficClass, 0, 0, ipv4.FLAG_DF, hopLimit, PROTO.UDP);
    bytes.copy(from.bytes, from.at, p, at + ipv4.SRC_AT, 4);
    bytes.copy(to.bytes, to.at, p, at + ipv4.DST_AT, 4);
    udp.write(p, at + ipv4.HEADER_LEN, from.port, to.port, 0);
  } else {
    ipv6.write(p, at, trafficClass, 0, 0, PROTO.UDP, hopLimit);
    bytes.copy(from.bytes, from.at, p, at + ipv6.SRC_AT, 16);
    bytes.copy(to.bytes, to.at, p, at + ipv6.DST_AT, 16);
    udp.write(p, at + ipv6.HEADER_LEN, from.port, to.port, 0);
  }
}

/**
 * Completes the headers that `writeUdpHeaders` has put in front of a payload of at most
 * `UDP_PAYLOAD_MAX` octets. The UDP checksum is 0 on IPv4, as RFC 3948 §2.1 wants it for ESP in
 * UDP, and true on IPv6, where 0 is not allowed (RFC 8200 §8.1): the kernel has checked the one
 * that came.
 */
export function finishUdpHeaders(p: Packet, family: Family): void {
  if (family === 4) {
    ipv4.setTotalLen(p.bytes, p.at, p.len);
    udp.setLen(p.bytes, p.at + ipv4.HEADER_LEN, p.len - ipv4.HEADER_LEN);
    ipv4.updateChecksum(p.bytes, p.at);
    return;
  }
  const udpAt = p.at + ipv6.HEADER_LEN;
  ipv6.setPayloadLen(p.bytes, p.at, p.end - udpAt);
  udp.setLen(p.bytes, udpAt, p.end - udpAt);
  udp.setChecksum(p.bytes, udpAt, udpChecksum6(p, udpAt));
}

/** Writes IP and UDP headers in front of a payload of at most `UDP_PAYLOAD_MAX` octets. */
export function prependUdp(p: Packet, from: Endpoint, to: Endpoint, meta = UDP_META): void {
  const { family } = from.address;
  p.at -= UDP_HEADERS_LEN[family];
  writeUdpHeaders(p.bytes, p.at, family, endOf(from), endOf(to), meta);
  finishUdpHeaders(p, family);
}

function endOf({ address, port }: Endpoint): UdpEnd {
  return { bytes: address.bytes, at: 0, port };
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
