import type { DropReason } from '../base/drop.ts';
import type { Encapsulation, Sa } from '../sad/sa.ts';
import { setU8, setU16, u8, u16, zero } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import * as esp from '../wire/esp.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';
import type { Core } from './core.ts';
import type { Flight } from './flight.ts';
import { finishHeader } from './header.ts';

const LOW = 2 ** 32;
/** Its length stands in one octet. */
const PAD_LEN_MAX = 255;

/**
 * How many octets a payload takes as ESP: header, IV, padding, trailer and ICV included, and UDP if
 * it is in UDP.
 */
export function sealedLen(sa: Sa, payloadLen: number): number {
  const { alignLen, ivLen, icvLen } = sa.spec.esp!;
  // The next multiple of a power of two: divisions cost more than all else here.
  const textLen = (payloadLen + esp.TRAILER_LEN + alignLen - 1) & -alignLen;
  return udpLen(sa) + esp.HEADER_LEN + ivLen + textLen + icvLen;
}

/** The largest payload whose ESP form fits into `len` octets. */
export function payloadMax(sa: Sa, len: number): number {
  const { alignLen, ivLen, icvLen } = sa.spec.esp!;
  const textLen = len - udpLen(sa) - esp.HEADER_LEN - ivLen - icvLen;
  return (textLen & -alignLen) - esp.TRAILER_LEN;
}

/** Octets in front of the payload: UDP header, ESP header and IV. */
export function frontLen(sa: Sa): number {
  return udpLen(sa) + esp.HEADER_LEN + sa.spec.esp!.ivLen;
}

/**
 * Writes header, IV, padding and trailer around the payload, into the gap that is there for them,
 * ready for `seal`; and what is in front of them.
 */
export function prepare(core: Core, flight: Flight, sa: Sa, next: number): void {
  const { ivLen, icvLen, alignLen } = sa.spec.esp!;
  const { packet, cursor, payloadLen, seq } = flight;
  const { bytes: p, view, end } = packet;
  const espAt = cursor.insertAt + udpLen(sa);
  esp.write(view, espAt, sa.spec.spi, seq);
  writeIv(core, packet, sa, espAt + esp.HEADER_LEN, ivLen, seq);
  // RFC 4303 §2.4: padding, then its length and the next header, end on the cipher's boundary.
  const least = -(payloadLen + esp.TRAILER_LEN) & (alignLen - 1);
  const padLen = least + randomPadLen(core, flight, payloadLen, alignLen);
  writePadding(core, sa, p, end, padLen);
  setU8(p, end + padLen, padLen);
  setU8(p, end + padLen + 1, next);
  flight.jobAt = espAt;
  flight.jobEnd = end + padLen + esp.TRAILER_LEN;
  packet.end = flight.jobEnd + icvLen;
  if (sa.spec.encapsulation === undefined) {
    finishHeader(packet, cursor, cursor.insertProtocolAt, PROTO.ESP);
  } else {
    writeUdp(flight, sa, sa.spec.encapsulation);
  }
}

function writeUdp(flight: Flight, sa: Sa, { srcPort, dstPort }: Encapsulation): void {
  const { packet, cursor } = flight;
  const udpAt = cursor.insertAt;
  udp.writeWords(packet.view, udpAt, srcPort, sa.peer?.port ?? dstPort, packet.end - udpAt);
  finishHeader(packet, cursor, cursor.insertProtocolAt, PROTO.UDP);
  cursor.protocol = PROTO.UDP;
  cursor.upperAt = udpAt;
  cursor.end = packet.end;
}

/** What depends on the sealed octets: a checksum over them. */
export function complete({ packet, cursor }: Flight, sa: Sa): void {
  // RFC 3948 §2.1 wants 0 on IPv4. IPv6 has no such thing as no checksum (RFC 8200 §8.1).
  if (sa.spec.encapsulation === undefined || cursor.family === 4) return;
  checksum.updateTransportChecksum(packet.bytes, cursor);
}

/** Checks what can be checked before the ICV, and describes the job. `espAt`: where ESP begins. */
export function prepareOpen(flight: Flight, sa: Sa, espAt: number): DropReason | undefined {
  const { alignLen, ivLen, icvLen, authenticates } = sa.spec.esp!;
  const p = flight.packet.bytes;
  const textLen = flight.packet.end - espAt - esp.HEADER_LEN - ivLen - icvLen;
  if (textLen < esp.TRAILER_LEN) return 'esp-truncated';
  if ((textLen & (alignLen - 1)) !== 0) return 'esp-bad-alignment';
  // Without integrity anybody could move the window (RFC 4303 §3.4.3).
  flight.seq = authenticates ? sa.replay.check(esp.seq(p, espAt)) : 0;
  if (flight.seq < 0) {
    sa.replays++;
    return 'esp-replay';
  }
  flight.jobAt = espAt;
  flight.jobEnd = flight.packet.end;
  return undefined;
}

/**
 * After `open`: the ICV's verdict, the window again, and where the payload is (left in the flight).
 */
export function completeOpen(flight: Flight, sa: Sa): DropReason | undefined {
  const { ivLen, icvLen, authenticates } = sa.spec.esp!;
  const p = flight.packet.bytes;
  if (!flight.jobOk) {
    sa.badIcvs++;
    return 'esp-bad-icv';
  }
  if (authenticates && !sa.replay.commit(flight.seq)) {
    sa.replays++;
    return 'esp-replay';
  }
  const textAt = flight.jobAt + esp.HEADER_LEN + ivLen;
  const textEnd = flight.jobEnd - icvLen;
  const padLen = u8(p, textEnd - 2);
  if (padLen + esp.TRAILER_LEN > textEnd - textAt) return 'esp-bad-padding';
  flight.payloadAt = textAt;
  flight.payloadEnd = textEnd - esp.TRAILER_LEN - padLen;
  flight.next = u8(p, textEnd - 1);
  return flight.next === PROTO.NONE ? 'esp-dummy' : undefined;
}

/** The high half that an extended sequence number adds to the ICV, or -1 without ESN. */
export function seqHigh(sa: Sa, seq: number): number {
  return sa.spec.esn ? Math.floor(seq / LOW) : -1;
}

function udpLen(sa: Sa): number {
  return sa.spec.encapsulation === undefined ? 0 : udp.HEADER_LEN;
}

function writeIv(core: Core, packet: Packet, sa: Sa, at: number, ivLen: number, seq: number): void {
  const { iv } = sa.spec.esp!;
  if (iv === 'unique') core.ivs.writeUnique(packet.view, at, sa, seq);
  else if (iv === 'unpredictable') core.ivs.writeRandom(packet.bytes, at, ivLen);
}

/**
 * What `esp_randpad` adds to the padding of short payloads, so that their length says less: a
 * random number of whole blocks, as far as the setting and the pad length octet allow. Sizes of
 * packets are decided without it: it only makes long what is far shorter than any MTU.
 */
function randomPadLen(core: Core, flight: Flight, payloadLen: number, alignLen: number): number {
  const { inet, inet6 } = core.settings;
  const { espRandpad } = flight.cursor.family === 4 ? inet : inet6;
  if (payloadLen >= espRandpad) return 0;
  const most = Math.min(espRandpad - payloadLen, PAD_LEN_MAX - alignLen);
  const { bytes, end } = flight.packet;
  core.ivs.writeRandom(bytes, end, 1);
  return (u8(bytes, end) % (Math.floor(most / alignLen) + 1)) * alignLen;
}

function writePadding(core: Core, sa: Sa, p: Uint8Array, at: number, len: number): void {
  if (sa.spec.padding === 'zero') zero(p, at, len);
  else if (sa.spec.padding === 'random') core.ivs.writeRandom(p, at, len);
  else for (let i = 0; i < len; i++) setU8(p, at + i, i + 1);
}

/**
 * Takes the ESP layer's UDP header, if it has one, into account when the payload moves to the
 * front.
 */
export function headersEnd(flight: Flight): number {
  return flight.udpDport === 0 ? flight.jobAt : flight.jobAt - udp.HEADER_LEN;
}

/**
 * A transport-mode packet that crossed a NAT carries checksums made with addresses that are no
 * longer there (RFC 3948 §3.1.2). Its octets are authenticated, so a new checksum hides nothing. By
 * how much it was wrong is left in the flight: the same for all packets, if it was due to the NAT.
 */
export function repairChecksum(flight: Flight): void {
  const { packet, cursor } = flight;
  if (cursor.protocol !== PROTO.TCP && cursor.protocol !== PROTO.UDP) return;
  if (cursor.protocol === PROTO.UDP && cursor.family === 4) {
    const field = cursor.upperAt + udp.CHECKSUM_AT;
    if (field + 2 > cursor.end) return;
    // 0 says that the sender computed none, and may stay so.
    if (udp.checksum(packet.bytes, cursor.upperAt) === 0) return;
  }
  const value = checksum.transportChecksum(packet.bytes, cursor);
  if (value < 0) return;
  const at = cursor.upperAt + checksum.fieldAt(cursor.protocol);
  flight.checksumBy = checksum.difference(u16(packet.bytes, at), value);
  setU16(packet.bytes, at, value);
}

/** A one-octet datagram that keeps a NAT's mapping alive (RFC 3948 §2.3). */
export function writeKeepalive(p: Uint8Array, udpAt: number, sport: number, dport: number): number {
  udp.write(p, udpAt, sport, dport, udp.HEADER_LEN + 1);
  setU8(p, udpAt + udp.HEADER_LEN, 0xff);
  return udpAt + udp.HEADER_LEN + 1;
}
