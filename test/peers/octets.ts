import { address } from '../../src/base/address.ts';
import { setU8, setU16, setU32 } from '../../src/wire/bytes.ts';
import * as checksum from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import { concat, counting } from '../wire/octets.ts';

/** A packet between any two addresses, with right checksums. `flags`: of IPv4, such as DF. */
export function packetOf(
  from: string,
  to: string,
  protocol: number,
  payload: Uint8Array,
  flags = 0,
): Uint8Array {
  const [src, dst] = [address(from), address(to)];
  const header = src.family === 4 ? ipv4 : ipv6;
  const p = concat(new Uint8Array(header.HEADER_LEN), payload);
  if (src.family === 4) ipv4.write(p, 0, 0, p.length, 0x1234, 0, 64, protocol);
  else ipv6.write(p, 0, 0, 0, payload.length, protocol, 64);
  p.set(src.bytes, header.SRC_AT);
  p.set(dst.bytes, header.SRC_AT + src.bytes.length);
  if (src.family === 4) {
    ipv4.setFragment(p, 0, flags, 0);
    ipv4.updateChecksum(p, 0);
  }
  const cursor = new Cursor();
  if (decode(p, 0, p.length, cursor) === undefined) checksum.updateTransportChecksum(p, cursor);
  return p;
}

export const TCP_HEADER_LEN = 20;
export const TCP = { FIN: 1, SYN: 2, PSH: 8, ACK: 16 } as const;

export interface Segment {
  readonly from: string;
  readonly to: string;
  readonly sport: number;
  readonly dport: number;
  readonly flags: number;
  readonly seq: number;
  readonly ack: number;
  readonly data?: Uint8Array;
}

export function tcpSegment(given: Segment): Uint8Array {
  const p = concat(new Uint8Array(TCP_HEADER_LEN), given.data ?? new Uint8Array(0));
  setU16(p, 0, given.sport);
  setU16(p, 2, given.dport);
  setU32(p, 4, given.seq);
  setU32(p, 8, given.ack);
  setU8(p, 12, (TCP_HEADER_LEN / 4) << 4);
  setU8(p, 13, given.flags);
  setU16(p, 14, 0xffff);
  return packetOf(given.from, given.to, PROTO.TCP, p);
}

/** A UDP packet of so many octets in all, which must not be cut. */
export function datagramOf(from: string, to: string, len: number, flags = 0): Uint8Array {
  const isIpv4 = !from.includes(':');
  const p = counting(len - (isIpv4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN));
  setU16(p, 0, 1000);
  setU16(p, 2, 2000);
  setU16(p, 4, p.length);
  setU16(p, 6, 0);
  return packetOf(from, to, PROTO.UDP, p, isIpv4 ? flags : 0);
}

/** What stands behind the headers of TCP. */
export function tcpData(octets: Uint8Array): Uint8Array {
  const cursor = new Cursor();
  const bad = decode(octets, 0, octets.length, cursor);
  if (bad !== undefined || cursor.protocol !== PROTO.TCP) throw new Error('not TCP');
  if (!checksum.transportChecksumOk(octets, cursor)) throw new Error('wrong checksum');
  return octets.slice(cursor.upperAt + TCP_HEADER_LEN, cursor.end);
}
