import { copy, u8, u16, u32 } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import { decode } from '../wire/cursor.ts';
import * as espHeader from '../wire/esp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { PACKET_LEN_MAX, type Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';
import type { Core } from './core.ts';
import type { Flight } from './flight.ts';
import { isPlain, isSameStream } from './same-flow.ts';

/**
 * Packets that came together and have the same headers in front (`Packet.follows`): what was found
 * out about the first of them, the leader, is not found out again, and neither is it when what they
 * carry is alike, too. Each function says false when a packet is different in any way, before it
 * has changed anything: it then goes the usual way.
 */

/** Of UDP; TCP has more. */
const UPPER_LEN_MIN = udp.HEADER_LEN;

/** Whether a follower is ESP by the SA that its leader is being opened with; describes the job. */
export function prepareAs(flight: Flight, leader: Flight): boolean {
  const { packet, cursor, sa } = leader;
  if (!leader.opening || leader.owned || leader.layerCount > 0 || sa === undefined) return false;
  if (sa.spec.protocol !== 'esp' || packet.end !== cursor.end) return false;
  const { bytes: p, at, end } = flight.packet;
  const isIpv6 = cursor.family === 6;
  // A UDP checksum over what is sealed.
  if (isIpv6 && leader.udpDport !== 0) return false;
  const by = at - packet.at;
  if (end !== packet.end + by) return false;
  if (!isIpv6) {
    if (leader.outerSum < 0) leader.outerSum = ipv4.sumInCommon(packet.bytes, packet.at);
    if (!ipv4.checksumOkBy(p, at, leader.outerSum)) return false;
  }
  const espAt = leader.jobAt + by;
  // A UDP checksum that is there is not checked here.
  if (leader.udpDport !== 0 && udp.checksum(p, espAt - udp.HEADER_LEN) !== 0) return false;
  if (espHeader.spi(p, espAt) !== sa.spec.spi) return false;
  // As `esp.prepareOpen`, whose other checks are about lengths.
  flight.seq = sa.spec.esp!.authenticates ? sa.replay.check(espHeader.seq(p, espAt)) : 0;
  if (flight.seq < 0) return false;
  flight.jobAt = espAt;
  flight.jobEnd = leader.jobEnd + by;
  flight.sa = sa;
  return true;
}

/**
 * Whether what was in the packet of an opened leader can be what its followers are compared with.
 */
export function isPattern(core: Core, leader: Flight): boolean {
  const { active, layerCount, owned, cursor, udpDport, sa } = leader;
  if (!active || layerCount !== 1 || owned) return false;
  const { tunnel, foreign } = leader.layers[0]!;
  if (foreign) return false;
  if (!isPlain(cursor)) return false;
  // If it was the newest, `noteMapping` knows where it came from, and so do they.
  if (udpDport !== 0 && sa!.spec.esp!.authenticates && sa!.replay.top !== leader.seq) return false;
  // What is wrong with its checksum must be due to the NAT, and so the same as ever.
  if (udpDport !== 0 && !tunnel) {
    const { checksumBy } = sa!;
    sa!.checksumBy = leader.checksumBy;
    if (leader.checksumBy < 0 || leader.checksumBy !== checksumBy) return false;
  }
  if (cursor.family === 4) leader.innerSum = ipv4.sumInCommon(leader.packet.bytes, cursor.at);
  // More that could be for us to open.
  const ports = core.settings.encapsulationPorts;
  return cursor.protocol === PROTO.TCP || !ports.includes(cursor.dport);
}

/**
 * Whether an opened follower carries a packet like the one that its leader, a pattern, carried:
 * then it is that packet from now on.
 */
export function completeAs(core: Core, flight: Flight, leader: Flight): boolean {
  const sa = flight.sa!;
  const { packet } = flight;
  const p = packet.bytes;
  if (!flight.jobOk || !sa.isUsable || !sa.staysBelowLimits(1, PACKET_LEN_MAX)) return false;
  // As `esp.completeOpen`.
  const { ivLen, icvLen, authenticates } = sa.spec.esp!;
  const textAt = flight.jobAt + espHeader.HEADER_LEN + ivLen;
  const trailerAt = flight.jobEnd - icvLen - espHeader.TRAILER_LEN;
  const end = trailerAt - u8(p, trailerAt);
  if (end <= textAt || u8(p, trailerAt + 1) !== leader.next) return false;
  const { tunnel } = leader.layers[0]!;
  const isSame = tunnel
    ? isSameStream(p, textAt, end, leader)
    : isSameUpper(p, textAt, end, leader);
  if (!isSame || (authenticates && !sa.replay.commit(flight.seq))) return false;
  packet.at = tunnel ? textAt : restoreHeader(packet, textAt, leader);
  packet.end = end;
  packet.follows = false;
  core.sad.count(sa, 1, end - textAt);
  core.stats.families[sa.spec.dst.family].opened.count(sa, end - textAt);
  flight.opening = false;
  flight.finished = true;
  flight.isAlike = true;
  return true;
}

/** In transport mode: as long, and between the same ports. */
function isSameUpper(p: Uint8Array, at: number, end: number, leader: Flight): boolean {
  const len = leader.payloadEnd - leader.payloadAt;
  return (
    end - at === len &&
    len >= UPPER_LEN_MIN &&
    u32(p, at) === u32(leader.packet.bytes, leader.cursor.upperAt)
  );
}

/**
 * In transport mode: the header that the leader got back, in front of what the packet carries, and
 * what was wrong with its checksum because of a NAT. Returns where the header begins.
 */
function restoreHeader({ bytes: p, at: outerAt }: Packet, upperAt: number, leader: Flight): number {
  const { packet, cursor, checksumBy } = leader;
  const headerLen = cursor.upperAt - cursor.at;
  const at = upperAt - headerLen;
  const id = u16(p, outerAt + ipv4.ID_AT);
  copy(packet.bytes, cursor.at, p, at, headerLen);
  if (cursor.family === 4) ipv4.stampId(p, at, id, leader.innerSum);
  if (checksumBy > 0) checksum.change(p, upperAt, cursor.protocol, checksumBy);
  return at;
}

/**
 * A follower gets everything that it shared with its leader until now: one that is being opened, or
 * one that was, and is alike.
 */
export function standAlone(flight: Flight): void {
  const { packet, sa, isAlike } = flight;
  const { udpSport, udpDport, layers } = flight.leader!;
  flight.begin(packet, false);
  decode(packet.bytes, packet.at, packet.end, flight.cursor);
  flight.sa = sa;
  if (isAlike) {
    flight.push(sa!, layers[0]!.tunnel);
    flight.finished = true;
  } else {
    flight.opening = true;
    flight.udpSport = udpSport;
    flight.udpDport = udpDport;
  }
}
