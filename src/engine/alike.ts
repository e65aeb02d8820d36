import { u8 } from '../wire/bytes.ts';
import { decode } from '../wire/cursor.ts';
import * as espHeader from '../wire/esp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { PACKET_LEN_MAX } from '../wire/packet.ts';
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
  if (end !== packet.end + by || (!isIpv6 && !ipv4.checksumOk(p, at))) return false;
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
  if (!active || layerCount !== 1 || owned || !leader.layers[0]!.tunnel) return false;
  if (!isPlain(cursor)) return false;
  // If it was the newest, `noteMapping` knows where it came from, and so do they.
  if (udpDport !== 0 && sa!.spec.esp!.authenticates && sa!.replay.top !== leader.seq) return false;
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
  if (!isSameStream(p, textAt, end, leader.packet, leader.cursor)) return false;
  if (authenticates && !sa.replay.commit(flight.seq)) return false;
  packet.at = textAt;
  packet.end = end;
  packet.follows = false;
  core.sad.count(sa, 1, end - textAt);
  flight.opening = false;
  flight.finished = true;
  flight.isAlike = true;
  return true;
}

/** A follower that is being opened, with everything that it shared with its leader until now. */
export function standAlone(flight: Flight): void {
  const { packet, sa } = flight;
  const { udpSport, udpDport } = flight.leader!;
  flight.begin(packet, false);
  decode(packet.bytes, packet.at, packet.end, flight.cursor);
  flight.sa = sa;
  flight.opening = true;
  flight.udpSport = udpSport;
  flight.udpDport = udpDport;
}

/** The same for one that was opened, and is alike. */
export function standAloneOpened(flight: Flight): void {
  const { packet, sa } = flight;
  flight.begin(packet, false);
  decode(packet.bytes, packet.at, packet.end, flight.cursor);
  flight.push(sa!, true);
  flight.sa = sa;
  flight.finished = true;
}
