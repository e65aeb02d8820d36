import { KeyError } from '../base/error.ts';
import { type End, familyOfEnds, parseEnd } from '../daemon/end-text.ts';
import { protocolNumber } from '../setkey/upper.ts';
import { fromHex, setU8, setU16 } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import { PACKET_LEN_MAX } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';

const TTL = 64;
/** What a program would bind if it did not choose. */
const PORT_USUAL = 49_152;
/** Their headers begin with the ports. */
const WITH_PORTS: readonly number[] = [
  ...[PROTO.TCP, PROTO.UDP, PROTO.DCCP, PROTO.SCTP, PROTO.UDPLITE],
];

export interface PacketSpec {
  readonly protocol: string;
  readonly src: string;
  readonly dst: string;
  /** Octets of the whole packet; as few as there can be if undefined. */
  readonly size?: number | undefined;
  /** Don't fragment, IPv4. */
  readonly df: boolean;
}

/** A packet as a program would send it: a TCP SYN, an echo request, a datagram. Throws EINVAL. */
export function buildPacket(spec: PacketSpec): Uint8Array {
  const [src, dst] = [hostEnd(spec.src), hostEnd(spec.dst)];
  const family = familyOfEnds(src, dst)!;
  const protocol = protocolOf(spec.protocol, family);
  const headerLen = family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
  const least = headerLen + upperLen(protocol);
  const size = spec.size ?? least;
  const most = family === 4 ? ipv4.TOTAL_LEN_MAX : PACKET_LEN_MAX;
  if (size < least || size > most) {
    throw new KeyError('EINVAL', `such a packet has from ${least} to ${most} octets, not ${size}`);
  }
  if (spec.df && family === 6) throw new KeyError('EINVAL', 'IPv6 has no DF: no router fragments');
  const p = new Uint8Array(size);
  writeUpper(p, headerLen, protocol, src.port ?? PORT_USUAL, dst.port ?? PORT_USUAL);
  if (family === 4) {
    ipv4.write(p, 0, 0, size, 1, spec.df ? ipv4.FLAG_DF : 0, TTL, protocol);
  } else {
    ipv6.write(p, 0, 0, 0, size - headerLen, protocol, TTL);
  }
  const header = family === 4 ? ipv4 : ipv6;
  p.set(src.prefix!.address.bytes, header.SRC_AT);
  p.set(dst.prefix!.address.bytes, header.DST_AT);
  if (family === 4) ipv4.updateChecksum(p, 0);
  const cursor = new Cursor();
  decode(p, 0, size, cursor);
  if (checksum.fieldAt(protocol) >= 0) checksum.updateTransportChecksum(p, cursor);
  return p;
}

function hostEnd(text: string): End {
  const end = parseEnd(text);
  const { prefix } = end;
  const isHost = prefix && prefix.length === 8 * prefix.address.bytes.length;
  if (!isHost) throw new KeyError('EINVAL', `"${text}": a packet has one address, not a network`);
  return end;
}

function protocolOf(text: string, family: 4 | 6): number {
  const protocol = protocolNumber(text);
  if (protocol === undefined || text === 'any') {
    throw new KeyError('EINVAL', `"${text}" is not an upper protocol, such as tcp, udp or icmp`);
  }
  return protocol === PROTO.ICMP && family === 6 ? PROTO.ICMPV6 : protocol;
}

function upperLen(protocol: number): number {
  if (protocol === PROTO.TCP) return tcp.HEADER_LEN;
  if (protocol === PROTO.UDP || protocol === PROTO.UDPLITE) return udp.HEADER_LEN;
  if (protocol === PROTO.ICMP || protocol === PROTO.ICMPV6) return icmp.HEADER_LEN;
  return protocol === PROTO.SCTP || protocol === PROTO.DCCP ? 12 : 0;
}

function writeUpper(
  p: Uint8Array,
  at: number,
  protocol: number,
  sport: number,
  dport: number,
): void {
  if (WITH_PORTS.includes(protocol)) {
    setU16(p, at, sport);
    setU16(p, at + 2, dport);
  }
  if (protocol === PROTO.TCP) {
    setU8(p, at + 12, (tcp.HEADER_LEN / 4) << 4);
    tcp.setFlags(p, at, tcp.FLAG.SYN);
  } else if (protocol === PROTO.UDP) {
    setU16(p, at + 4, p.length - at);
  } else if (protocol === PROTO.ICMP) {
    icmp.write(p, at, icmp.TYPE4.ECHO, 0, 0);
  } else if (protocol === PROTO.ICMPV6) {
    icmp.write(p, at, icmp.TYPE6.ECHO, 0, 0);
  }
}

/**
 * Reads a packet as text: bare hexadecimal, or a dump of tcpdump -x or -X, xxd or hexdump -C.
 * Throws EINVAL.
 */
export function readHex(text: string): Uint8Array {
  const digits = text
    .split('\n')
    .map((line) => {
      const withColon = /^\s*(?:0x)?[0-9a-fA-F]{4,8}:\s*(.*)$/.exec(line);
      // The printable characters stand behind two blanks.
      if (withColon) return withColon[1]!.split(/\s{2,}/)[0]!;
      const canonical = /^[0-9a-fA-F]{8}(?:\s{2}(.*))?$/.exec(line.trimEnd());
      return canonical ? (canonical[1] ?? '').split('|')[0]! : line;
    })
    .join('')
    .replace(/\s+/g, '')
    .replace(/^0x/, '');
  if (digits.length === 0 || digits.length % 2 !== 0 || !/^[0-9a-fA-F]+$/.test(digits)) {
    throw new KeyError('EINVAL', 'expected a packet in hexadecimal, or a dump of tcpdump -x');
  }
  if (digits.length > 2 * PACKET_LEN_MAX) {
    throw new KeyError('EINVAL', `no packet is longer than ${PACKET_LEN_MAX} octets`);
  }
  return fromHex(digits);
}
