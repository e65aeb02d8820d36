import { assert } from '../base/assert.ts';
import type { Sa } from '../sad/sa.ts';
import { copyOctets, copyWords, half, setWord, word } from '../wire/bytes.ts';
import * as espHeader from '../wire/esp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import { PACKET_LEN_MAX, type Packet } from '../wire/packet.ts';
import { type Core, nextId } from './core.ts';
import * as esp from './esp.ts';
import { BATCH_MAX, type Flight } from './flight.ts';

/**
 * Rows: packets behind one another that get the same headers in front, but for what counts up. The
 * first gets its headers in the usual way, and the others a copy of them in which the counters have
 * counted on. They are of one flow, with the same headers of their own (`countFollowers`), and then
 * only the first is decided on; or as long as one another and through one tunnel.
 */

/**
 * Whether packets may go in a row behind this one, which was decided on: one layer of ESP, no limit
 * of the SA anywhere near, nothing that is drawn by lot for each packet, and no fragments.
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
 * Whether a packet that was decided on can go in the row that it stands behind: through the same
 * tunnel, as long, and the same in all that the tunnel's header has of it.
 */
export function fitsBehind(flight: Flight, head: Flight): boolean {
  if (!flight.active || flight.owned || flight.layerCount !== 1 || flight.lacks.length > 0) {
    return false;
  }
  if (head.index + head.rowLen !== flight.index || head.layerCount !== 1) return false;
  const [{ sa, tunnel }, other] = [flight.layers[0]!, head.layers[0]!];
  const { packet, cursor } = flight;
  return (
    tunnel &&
    other.tunnel &&
    sa === other.sa &&
    flight.socket === undefined &&
    flight.mtu === head.mtu &&
    flight.df === head.df &&
    packet.len === head.packet.len &&
    cursor.family === head.cursor.family &&
    trafficClass(packet, cursor.family) === trafficClass(head.packet, cursor.family)
  );
}

function trafficClass({ bytes, at }: Packet, family: 4 | 6): number {
  return family === 4 ? ipv4.tos(bytes, at) : ipv6.trafficClass(bytes, at);
}

/**
 * Writes the headers, and the trailer, of all packets of a row that follow the first, whose own are
 * ready to be sealed. `packets`: of the batch.
 */
export function stampRow(core: Core, leader: Flight, sa: Sa, packets: readonly Packet[]): void {
  const { packet, cursor, payloadLen, jobAt, jobEnd, index, rowLen } = leader;
  const { view, at: firstAt } = packet;
  const { iv, ivLen, icvLen } = sa.spec.esp!;
  const seqBy = jobAt + espHeader.SEQ_AT - firstAt;
  const frontLen = jobAt + espHeader.HEADER_LEN + ivLen - firstAt;
  const trailerAt = firstAt + frontLen + payloadLen;
  const trailerLen = jobEnd - trailerAt;
  const isUnique = iv === 'unique';
  // Of a unique IV only the last word changes, with the sequence number: see `Sa.hasSeqFor`.
  const ivBy = frontLen - 4;
  const ivHigh = isUnique ? word(view, firstAt + ivBy - 4) : 0;
  const ivMask = isUnique ? word(view, firstAt + ivBy) ^ leader.seq : 0;
  const isIpv4 = cursor.family === 4;
  const isTransport = !leader.layers[0]!.tunnel;
  const sum = isIpv4 ? ipv4.sumInCommon(view, firstAt) + packet.len : 0;
  // Words that are held cost half as much as words that are copied.
  const [first, second, third] = [
    word(view, firstAt),
    word(view, firstAt + 4),
    word(view, firstAt + 8),
  ];
  const [src, dst] = [word(view, firstAt + ipv4.SRC_AT), word(view, firstAt + ipv4.DST_AT)];
  const heldLen = isIpv4 ? ipv4.HEADER_LEN : 0;
  for (let k = 1; k < rowLen; k++) {
    const follower = packets[index + k]!;
    const { view: own, end } = follower;
    const at = end - payloadLen - frontLen;
    assert(at >= follower.slotAt, 'headers fit in front');
    if (isIpv4) {
      // In transport mode the packet keeps its own, which is where the copy goes.
      const ownId = isTransport ? half(own, follower.at + ipv4.ID_AT) : 0;
      const id = ownId === 0 ? nextId(core) : ownId;
      setWord(own, at, first);
      setWord(own, at + ipv4.ID_AT, ipv4.withId(second, id));
      setWord(own, at + ipv4.TTL_AT, ipv4.withChecksum(third, sum + id));
      setWord(own, at + ipv4.SRC_AT, src);
      setWord(own, at + ipv4.DST_AT, dst);
    }
    copyWords(view, firstAt + heldLen, own, at + heldLen, seqBy - heldLen);
    const seq = leader.seq + k;
    setWord(own, at + seqBy, seq);
    if (isUnique) {
      setWord(own, at + ivBy - 4, ivHigh);
      setWord(own, at + ivBy, ivMask ^ seq);
    } else if (ivLen > 0) {
      core.ivs.writeRandom(follower.bytes, at + frontLen - ivLen, ivLen);
    }
    copyOctets(view, trailerAt, own, end, trailerLen);
    follower.follows = true;
    follower.at = at;
    follower.end = end + trailerLen + icvLen;
  }
}
