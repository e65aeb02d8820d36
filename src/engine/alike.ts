import { copyWords, half, sameWords, word } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import { decode } from '../wire/cursor.ts';
import * as espHeader from '../wire/esp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import { PACKET_LEN_MAX, type Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';
import type { Core } from './core.ts';
import type { Flight } from './flight.ts';
import { isPlain, UPPER_LEN_MIN } from './same-flow.ts';
import { isEncapsulationPort } from './settings.ts';

/**
 * Packets that came together and have the same headers in front (`countFollowers`): what was found
 * out about the first of them, the leader, is not found out again, and neither is it when what they
 * carry is alike, too. Functions for rows deal with as many as they can, and say how many: the one
 * behind these is different in some way, nothing was changed about it, and it goes the usual way.
 *
 * Rows are packets `from` to `to` of a batch, which begins at packet `base`; `seqs` has their
 * sequence numbers, by their places in the batch.
 */

/** How many followers are ESP by the SA that their leader is being opened with. */
export function prepareRow(
  leader: Flight,
  packets: readonly Packet[],
  base: number,
  from: number,
  to: number,
  seqs: Float64Array,
): number {
  const { packet, cursor, sa, udpDport } = leader;
  if (!leader.opening || leader.owned || leader.layerCount > 0 || sa === undefined) return 0;
  if (sa.spec.protocol !== 'esp' || packet.end !== cursor.end) return 0;
  const isIpv4 = cursor.family === 4;
  // A UDP checksum over what is sealed.
  if (!isIpv4 && udpDport !== 0) return 0;
  const { bytes, view: leaderView, at: leaderAt, end: leaderEnd } = packet;
  const len = leaderEnd - leaderAt;
  const by = leader.jobAt - leaderAt;
  const checksumBy = by - udp.HEADER_LEN + udp.CHECKSUM_AT;
  const outerSum = isIpv4 ? ipv4.sumInCommon(leaderView, leaderAt) : 0;
  const spi = word(leaderView, leader.jobAt);
  const { replay } = sa;
  const { ivLen, icvLen, authenticates } = sa.spec.esp!;
  leader.jobBy = by;
  leader.jobLen = leader.jobEnd - leader.jobAt;
  leader.textBy = by + espHeader.HEADER_LEN + ivLen;
  leader.trailerBy = by + leader.jobLen - icvLen - espHeader.TRAILER_LEN;
  leader.outerTos = isIpv4 ? ipv4.tos(bytes, leaderAt) : ipv6.trafficClass(bytes, leaderAt);
  let i = from;
  for (; i < to; i++) {
    const { view, at, end } = packets[base + i]!;
    if (end - at !== len || word(view, at + by) !== spi) break;
    if (isIpv4 && !ipv4.checksumOkBy(view, at, outerSum)) break;
    // A UDP checksum that is there is not checked here.
    if (udpDport !== 0 && half(view, at + checksumBy) !== 0) break;
    // As `esp.prepareOpen`, whose other checks are about lengths.
    const low = word(view, at + by + espHeader.SEQ_AT) >>> 0;
    const seq = authenticates ? replay.check(low) : 0;
    if (seq < 0) break;
    seqs[i] = seq;
  }
  return i - from;
}

/** What an opened leader says of its followers, if theirs is like it. */
export function leadOf(core: Core, leader: Flight): Flight['lead'] {
  const { layerCount, owned, udpDport, sa } = leader;
  if (layerCount !== 1 || owned) return 'nothing';
  const { tunnel, foreign } = leader.layers[0]!;
  if (foreign) return 'nothing';
  // If it was the newest, `noteMapping` knows where it came from, and so do they.
  const isNewest = !sa!.spec.esp!.authenticates || sa!.replay.top === leader.seq;
  if (udpDport !== 0 && !isNewest) return 'nothing';
  if (isPattern(core, leader, tunnel)) return 'packet';
  return tunnel ? 'layer' : 'nothing';
}

/** Whether what was in the packet of a leader can be what others are compared with. */
function isPattern(core: Core, leader: Flight, tunnel: boolean): boolean {
  const { active, cursor, packet, udpDport } = leader;
  if (!active || !isPlain(cursor)) return false;
  // What is wrong with its checksum must be due to the NAT, and so the same as ever.
  if (udpDport !== 0 && !tunnel) {
    const sa = leader.sa!;
    const { checksumBy } = sa;
    sa.checksumBy = leader.checksumBy;
    if (leader.checksumBy < 0 || leader.checksumBy !== checksumBy) return false;
  }
  if (cursor.family === 4) leader.innerSum = ipv4.sumInCommon(packet.view, cursor.at);
  // More that could be for us to open.
  return cursor.protocol === PROTO.TCP || !isEncapsulationPort(core.settings, cursor.dport);
}

/**
 * How many followers, whose ICVs are right, had the same layer off as their leader: they are what
 * was in it from now on, in transport mode a packet like that of the leader.
 */
export function completeRow(
  core: Core,
  leader: Flight,
  packets: readonly Packet[],
  base: number,
  from: number,
  to: number,
  seqs: Float64Array,
): number {
  const sa = leader.sa!;
  if (!sa.isUsable) return 0;
  const count = countIntact(leader, packets, base + from, base + to);
  if (count === 0) return 0;
  if (sa.staysBelowLimits(count, count * PACKET_LEN_MAX)) {
    return unwrapRow(core, leader, packets, base, from, from + count, seqs);
  }
  let done = 0;
  while (done < count && sa.isUsable && sa.staysBelowLimits(1, PACKET_LEN_MAX)) {
    const i = from + done;
    if (unwrapRow(core, leader, packets, base, i, i + 1, seqs) === 0) break;
    done++;
  }
  return done;
}

/** How many have the padding that an opened packet must have, and in it what the leader's has. */
function countIntact(leader: Flight, packets: readonly Packet[], from: number, to: number): number {
  const { textBy, trailerBy, next } = leader;
  const { tunnel } = leader.layers[0]!;
  let i = from;
  for (; i < to; i++) {
    const { view, at } = packets[i]!;
    // As `esp.completeOpen`.
    const trailerAt = at + trailerBy;
    const end = trailerAt - view.getUint8(trailerAt);
    if (end < at + textBy || view.getUint8(trailerAt + 1) !== next) break;
    if (!tunnel && !isSameUpper(view, at + textBy, end, leader)) break;
  }
  return i - from;
}

/** Whether what an opened follower is now is like what its leader, which leads packets, is. */
export function isAlike({ view, at, end }: Packet, leader: Flight): boolean {
  return !leader.layers[0]!.tunnel || isSameStream(view, at, end, leader);
}

/**
 * Whether octets `at` to `end` are TCP or UDP of the same flow as a leader that has a plain header
 * (`isPlain`), and as right: the same in all but length, identification and what is behind the
 * ports.
 */
function isSameStream(view: DataView, at: number, end: number, leader: Flight): boolean {
  const { view: other } = leader.packet;
  const { at: otherAt, family } = leader.cursor;
  const len = end - at;
  if (family === 6) {
    return (
      len >= ipv6.HEADER_LEN + UPPER_LEN_MIN &&
      word(view, at) === word(other, otherAt) &&
      word(view, at + 4) === (((len - ipv6.HEADER_LEN) << 16) | half(other, otherAt + 6)) &&
      // Addresses and ports.
      sameWords(view, at + ipv6.SRC_AT, other, otherAt + ipv6.SRC_AT, 36)
    );
  }
  return (
    len >= ipv4.HEADER_LEN + UPPER_LEN_MIN &&
    word(view, at) === ((half(other, otherAt) << 16) | len) &&
    word(view, at + ipv4.FRAGMENT_AT) === word(other, otherAt + ipv4.FRAGMENT_AT) &&
    word(view, at + ipv4.SRC_AT) === word(other, otherAt + ipv4.SRC_AT) &&
    word(view, at + ipv4.DST_AT) === word(other, otherAt + ipv4.DST_AT) &&
    word(view, at + ipv4.HEADER_LEN) === word(other, otherAt + ipv4.HEADER_LEN) &&
    ipv4.checksumOkBy(view, at, leader.innerSum)
  );
}

/** In transport mode: as long, and between the same ports. */
function isSameUpper(view: DataView, at: number, end: number, leader: Flight): boolean {
  const len = leader.payloadEnd - leader.payloadAt;
  return (
    end - at === len &&
    len >= UPPER_LEN_MIN &&
    word(view, at) === word(leader.packet.view, leader.cursor.upperAt)
  );
}

/**
 * Intact packets become what was in them; how many, before the first that is a duplicate after all.
 */
function unwrapRow(
  core: Core,
  leader: Flight,
  packets: readonly Packet[],
  base: number,
  from: number,
  to: number,
  seqs: Float64Array,
): number {
  const sa = leader.sa!;
  const { textBy, trailerBy } = leader;
  const isAuthentic = sa.spec.esp!.authenticates;
  const count = isAuthentic ? sa.replay.commitRow(seqs, from, to) : to - from;
  if (count === 0) return 0;
  const { tunnel } = leader.layers[0]!;
  let octets = 0;
  for (let i = base + from; i < base + from + count; i++) {
    const packet = packets[i]!;
    const { view, at } = packet;
    const textAt = at + textBy;
    const trailerAt = at + trailerBy;
    const end = trailerAt - view.getUint8(trailerAt);
    octets += end - textAt;
    packet.at = tunnel ? textAt : restoreHeader(packet, textAt, leader);
    packet.end = end;
    packet.follows = false;
  }
  core.sad.count(sa, count, octets);
  core.stats.families[sa.spec.dst.family].opened.count(sa, count, octets);
  return count;
}

/**
 * In transport mode: the header that the leader got back, in front of what the packet carries, and
 * what was wrong with its checksum because of a NAT. Returns where the header begins.
 */
function restoreHeader(packet: Packet, upperAt: number, leader: Flight): number {
  const { view, bytes, at: outerAt } = packet;
  const { cursor, checksumBy } = leader;
  const headerLen = cursor.upperAt - cursor.at;
  const at = upperAt - headerLen;
  const id = half(view, outerAt + ipv4.ID_AT);
  copyWords(leader.packet.view, cursor.at, view, at, headerLen);
  if (cursor.family === 4) ipv4.stampId(view, at, id, leader.innerSum);
  if (checksumBy > 0) checksum.change(bytes, upperAt, cursor.protocol, checksumBy);
  return at;
}

/** A follower that is being opened gets everything that it shared with its leader until now. */
export function standAlone(flight: Flight, packet: Packet, leader: Flight, seq: number): void {
  flight.begin(packet, false);
  decode(packet.bytes, packet.at, packet.end, flight.cursor);
  flight.sa = leader.sa;
  flight.opening = true;
  flight.udpSport = leader.udpSport;
  flight.udpDport = leader.udpDport;
  flight.seq = seq;
  flight.jobAt = packet.at + leader.jobBy;
  flight.jobEnd = flight.jobAt + leader.jobLen;
}

/** A follower that was opened, and now is what was in it, has an SA of its own. */
export function standOpened(flight: Flight, packet: Packet, leader: Flight): void {
  const { sa, tunnel } = leader.layers[0]!;
  flight.begin(packet, false);
  flight.push(sa, tunnel);
}
