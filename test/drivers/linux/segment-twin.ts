/**
 * The plainest version of the byte loops: what segments of one stream look like, which packets
 * belong together, and what a large packet is cut into. Made of the wire layer's own functions,
 * checksums from scratch.
 */
import * as checksum from '../../../src/wire/checksum.ts';
import { Cursor, decode } from '../../../src/wire/cursor.ts';
import * as ipv4 from '../../../src/wire/ipv4.ts';
import * as ipv6 from '../../../src/wire/ipv6.ts';
import { PROTO } from '../../../src/wire/protocol.ts';
import * as tcp from '../../../src/wire/tcp.ts';
import * as udp from '../../../src/wire/udp.ts';
import { concat, ipv4Packet, ipv6Packet } from '../../wire/octets.ts';

const { FIN, SYN, RST, PSH, URG, CWR } = tcp.FLAG;

/** One packet of a stream; what is left out is zero. */
export interface Fields {
  readonly family: 4 | 6;
  readonly protocol: 'tcp' | 'udp';
  readonly payload: Uint8Array;
  readonly sport?: number;
  readonly seq?: number;
  readonly ack?: number;
  readonly flags?: number;
  readonly window?: number;
  /** TCP options, a multiple of 4. */
  readonly options?: Uint8Array;
  readonly id?: number;
  readonly df?: boolean;
  readonly hopLimit?: number;
  readonly tos?: number;
  /** What is added to the right transport checksum, as damage would. */
  readonly damage?: number;
}

export function packetOf(fields: Fields): Uint8Array {
  const { family, protocol, payload, options = new Uint8Array(0) } = fields;
  const upper = new Uint8Array(protocol === 'tcp' ? tcp.HEADER_LEN : udp.HEADER_LEN);
  if (protocol === 'tcp') writeTcp(upper, fields, options.length);
  else udp.write(upper, 0, fields.sport ?? 1, 7, udp.HEADER_LEN + payload.length);
  const body = concat(upper, protocol === 'tcp' ? options : new Uint8Array(0), payload);
  const number = protocol === 'tcp' ? PROTO.TCP : PROTO.UDP;
  const packet =
    family === 4
      ? ipv4Packet(
          { protocol: number, id: fields.id ?? 0, flags: fields.df ? ipv4.FLAG_DF : 0 },
          body,
        )
      : ipv6Packet(number, body);
  if (family === 4) {
    ipv4.setTtl(packet, 0, fields.hopLimit ?? 64);
    ipv4.setTos(packet, 0, fields.tos ?? 0);
    ipv4.updateChecksum(packet, 0);
  } else {
    ipv6.setHopLimit(packet, 0, fields.hopLimit ?? 64);
    ipv6.setTrafficClass(packet, 0, fields.tos ?? 0);
  }
  const cursor = cursorOf(packet);
  checksum.updateTransportChecksum(packet, cursor);
  const field = cursor.upperAt + checksum.fieldAt(cursor.protocol);
  packet[field + 1]! ^= fields.damage ?? 0;
  return packet;
}

function writeTcp(p: Uint8Array, fields: Fields, optionsLen: number): void {
  const view = new DataView(p.buffer);
  view.setUint16(0, fields.sport ?? 1);
  view.setUint16(2, 7);
  view.setUint32(4, fields.seq ?? 0);
  view.setUint32(8, fields.ack ?? 0);
  view.setUint8(12, ((tcp.HEADER_LEN + optionsLen) / 4) << 4);
  view.setUint8(13, fields.flags ?? 0);
  view.setUint16(14, fields.window ?? 0);
}

export function cursorOf(packet: Uint8Array): Cursor {
  const cursor = new Cursor();
  const wrong = decode(packet, 0, packet.length, cursor);
  if (wrong !== undefined) throw new Error(`not a packet: ${wrong}`);
  return cursor;
}

/** Octets of all headers. */
export function headersLen(packet: Uint8Array): number {
  const { upperAt, protocol } = cursorOf(packet);
  return upperAt + (protocol === PROTO.TCP ? tcp.headerLen(packet, upperAt) : udp.HEADER_LEN);
}

/** The segments as one, with the sum of the pseudo header where the checksum goes. */
export function join(packets: readonly Uint8Array[]): Uint8Array {
  const [first] = packets;
  const len = headersLen(first!);
  const whole = concat(first!, ...packets.slice(1).map((packet) => packet.subarray(len)));
  const { family, upperAt, protocol, srcAt, dstAt } = cursorOf(first!);
  if (family === 4) {
    ipv4.setTotalLen(whole, 0, whole.length);
    ipv4.updateChecksum(whole, 0);
  } else {
    ipv6.setPayloadLen(whole, 0, whole.length - ipv6.HEADER_LEN);
  }
  const upperLen = whole.length - upperAt;
  if (protocol === PROTO.UDP) udp.setLen(whole, upperAt, upperLen);
  else whole[upperAt + 13]! |= packets.at(-1)![upperAt + 13]! & (FIN | PSH);
  const pseudo = checksum.pseudoHeader(whole, family, srcAt, dstAt, protocol, upperLen);
  const field = upperAt + checksum.fieldAt(protocol);
  new DataView(whole.buffer).setUint16(field, ~checksum.finish(pseudo) & 0xffff);
  return whole;
}

/** What `join` has joined, apart again. */
export function cut(whole: Uint8Array, segment: number): Uint8Array[] {
  const len = headersLen(whole);
  const { family, upperAt, protocol } = cursorOf(whole);
  const pieces: Uint8Array[] = [];
  for (let at = len, number = 0; at < whole.length; at += segment, number++) {
    const piece = concat(whole.subarray(0, len), whole.subarray(at, at + segment));
    const view = new DataView(piece.buffer);
    if (family === 4) {
      ipv4.setTotalLen(piece, 0, piece.length);
      ipv4.setId(piece, 0, (ipv4.id(whole, 0) + number) & 0xffff);
      ipv4.updateChecksum(piece, 0);
    } else {
      ipv6.setPayloadLen(piece, 0, piece.length - ipv6.HEADER_LEN);
    }
    if (protocol === PROTO.UDP) {
      udp.setLen(piece, upperAt, piece.length - upperAt);
    } else {
      view.setUint32(upperAt + 4, view.getUint32(upperAt + 4) + at - len);
      if (at + segment < whole.length) piece[upperAt + 13]! &= ~(FIN | PSH);
      if (number > 0) piece[upperAt + 13]! &= ~CWR;
    }
    checksum.updateTransportChecksum(piece, cursorOf(piece));
    pieces.push(piece);
  }
  return pieces;
}

/** Which packets of a batch are one stream, as numbers of packets that belong together. */
export function groups(batch: readonly Uint8Array[], withUdp: boolean): number[][] {
  const found: number[][] = [];
  for (const [i, packet] of batch.entries()) {
    const last = found.at(-1);
    if (
      last &&
      belongs(
        last.map((member) => batch[member]!),
        packet,
        withUdp,
      )
    )
      last.push(i);
    else found.push([i]);
  }
  return found;
}

/** As `groups`, for packets as they are: short headers without options, right lengths. */
function belongs(group: readonly Uint8Array[], packet: Uint8Array, withUdp: boolean): boolean {
  const first = group[0]!;
  const all = [...group, packet];
  const cursors = all.map(cursorOf);
  const { family, protocol, upperAt } = cursors[0]!;
  const isUdp = protocol === PROTO.UDP;
  if (!cursors.every((cursor) => cursor.family === family && cursor.protocol === protocol))
    return false;
  if (isUdp ? !withUdp : protocol !== PROTO.TCP) return false;
  if (!all.every((one, i) => checksum.transportChecksumOk(one, cursors[i]!))) return false;
  if (isUdp && all.some((one) => udp.checksum(one, upperAt) === 0)) return false;
  const len = headersLen(first);
  const payload = first.length - len;
  if (!all.every((one) => headersLen(one) === len && one.length > len)) return false;
  if (!group.every((one) => one.length === first.length) || packet.length > first.length)
    return false;
  const total = len + group.length * payload + packet.length - len;
  if (total - (family === 6 ? ipv6.HEADER_LEN : 0) > 65_535) return false;
  return isSameIp(all) && (isUdp ? isSamePorts(all) : isSameTcp(all, payload));
}

function isSameIp(all: readonly Uint8Array[]): boolean {
  const [first] = all as [Uint8Array];
  const isIpv4 = first[0]! >> 4 === 4;
  const same = (from: number, to: number) =>
    all.every((one) => one.subarray(from, to).join() === first.subarray(from, to).join());
  if (!isIpv4) return same(0, 4) && same(6, 40);
  const id = (one: Uint8Array) => ipv4.id(one, 0);
  const countsUp = (one: Uint8Array, i: number) => id(one) === ((id(first) + i) & 0xffff);
  const stays = (one: Uint8Array) => ipv4.dontFragment(one, 0) && id(one) === id(first);
  const hasId = all.every((one, i) => countsUp(one, i) || stays(one));
  return hasId && same(0, 2) && same(6, 10) && same(12, 20);
}

function isSamePorts(all: readonly Uint8Array[]): boolean {
  const { upperAt } = cursorOf(all[0]!);
  const ports = all.map((one) => one.subarray(upperAt, upperAt + 4).join());
  return ports.every((one) => one === ports[0]);
}

function isSameTcp(all: readonly Uint8Array[], payload: number): boolean {
  const { upperAt } = cursorOf(all[0]!);
  const views = all.map((one) => new DataView(one.buffer, one.byteOffset + upperAt));
  const flags = views.map((view) => view.getUint8(13));
  const stop = FIN | SYN | RST | PSH | URG | CWR;
  if (flags.slice(0, -1).some((flag) => (flag & stop) !== 0)) return false;
  if ((flags.at(-1)! & (SYN | RST | URG | CWR)) !== 0) return false;
  const seq = views[0]!.getUint32(4);
  const rest = all.map((one, i) => {
    const header = one.slice(upperAt, headersLen(one));
    header.fill(0, 4, 8);
    header.fill(0, 16, 18);
    header[13]! &= ~(FIN | PSH);
    return `${(views[i]!.getUint32(4) - i * payload) >>> 0} ${header.join()}`;
  });
  return rest.every((one) => one === rest[0]) && seq === views[0]!.getUint32(4);
}
