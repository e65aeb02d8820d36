import { assert } from '../base/assert.ts';
import type { Sa } from '../sad/sa.ts';
import { copy, copyWords, setU32, u16, wordsOf } from '../wire/bytes.ts';
import * as espHeader from '../wire/esp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import { PACKET_LEN_MAX, type Packet } from '../wire/packet.ts';
import { type Core, nextId } from './core.ts';
import * as esp from './esp.ts';
import { BATCH_MAX, type Flight } from './flight.ts';

/**
 * Rows: packets that were cut from one large packet, with the same headers but for what counts up.
 * The first is decided on and gets its new headers; the others get a copy of them, in which the
 * counters have counted on.
 */

/**
 * Whether packets that follow this one, which was decided on, may go as it does without being
 * looked at: one layer of ESP, no limit of the SA anywhere near, nothing that is drawn by lot for
 * each packet, and no fragments.
 */
export function mayLead(core: Core, flight: Flight): boolean {
  if (!flight.active || flight.layerCount !== 1 || flight.owned || flight.lacks.length > 0) {
    return false;
  }
  const { packet, cursor, socket } = flight;
  const { sa, tunnel } = flight.layers[0]!;
  const { spec } = sa;
  if (core.shard !== undefined && sa.owner !== core.shard.self) return false;
  if (socket !== undefined || spec.esp === undefined || spec.padding === 'random') return false;
  const outer = tunnel ? spec.src.family : cursor.family;
  // A UDP checksum over what is sealed.
  if (outer === 6 && spec.encapsulation !== undefined) return false;
  const headersLen = tunnel ? 0 : cursor.insertAt - cursor.at;
  const payloadLen = packet.len - headersLen;
  const tunnelLen = outer === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
  const frontLen = tunnel ? tunnelLen : headersLen;
  const { inet, inet6 } = core.settings;
  if (payloadLen < (outer === 4 ? inet : inet6).espRandpad) return false;
  return (
    esp.sealedLen(sa, payloadLen) + frontLen <= flight.mtu &&
    sa.hasSeqFor(BATCH_MAX) &&
    sa.staysBelowLimits(BATCH_MAX, BATCH_MAX * PACKET_LEN_MAX)
  );
}

/**
 * Writes the headers, and the trailer, of all packets of a row that follow the first, whose own are
 * complete. `packets`: of the batch.
 */
export function stampRow(core: Core, leader: Flight, sa: Sa, packets: readonly Packet[]): void {
  const { packet, cursor, payloadLen } = leader;
  const p = packet.bytes;
  const { ivLen, icvLen } = sa.spec.esp!;
  const frontLen = leader.jobAt + espHeader.HEADER_LEN + ivLen - packet.at;
  const trailerAt = packet.at + frontLen + payloadLen;
  const trailerLen = leader.jobEnd - trailerAt;
  const words = wordsOf(p);
  const isIpv4 = cursor.family === 4;
  const { tunnel } = leader.layers[0]!;
  const inCommon = isIpv4 ? ipv4.sumInCommon(p, packet.at) : 0;
  for (let k = 1; k < leader.rowLen; k++) {
    const follower = packets[leader.index + k]!;
    const q = follower.bytes;
    const payloadAt = follower.end - payloadLen;
    const at = payloadAt - frontLen;
    assert(at >= follower.slotAt, 'headers fit in front');
    // In transport mode the packet keeps its own, which is where the copy goes.
    const id = isIpv4 && !tunnel ? u16(q, follower.at + ipv4.ID_AT) : 0;
    if (words !== undefined && q === p && ((packet.at | at | frontLen) & 3) === 0) {
      copyWords(words, packet.at, at, frontLen);
    } else {
      copy(p, packet.at, q, at, frontLen);
    }
    copy(p, trailerAt, q, follower.end, trailerLen);
    if (isIpv4) ipv4.stampId(q, at, id === 0 ? nextId(core) : id, inCommon);
    const espAt = at + frontLen - ivLen - espHeader.HEADER_LEN;
    const seq = leader.seq + k;
    setU32(q, espAt + espHeader.SEQ_AT, seq >>> 0);
    esp.writeIv(core, q, sa, espAt + espHeader.HEADER_LEN, seq);
    follower.at = at;
    follower.end += trailerLen + icvLen;
  }
}
