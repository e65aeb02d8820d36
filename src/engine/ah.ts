import type { DropReason } from '../base/drop.ts';
import type { Sa } from '../sad/sa.ts';
import * as ah from '../wire/ah.ts';
import { zero } from '../wire/bytes.ts';
import { PROTO } from '../wire/protocol.ts';
import { mute } from './ah-mute.ts';
import type { Core } from './core.ts';
import { seqHigh } from './esp.ts';
import type { Flight } from './flight.ts';
import { finishHeader } from './header.ts';

/** Octets of the whole AH header, padding included (RFC 4302 §3.3.3.2.1). */
export function headerLen(sa: Sa, family: 4 | 6): number {
  const alignLen = family === 6 ? 8 : sa.spec.ahAlignLen;
  return Math.ceil((ah.HEADER_LEN + sa.spec.ah!.icvLen) / alignLen) * alignLen;
}

/**
 * Writes the header with an empty ICV into the gap that is there for it; everything that the ICV
 * covers is final after this.
 */
export function prepare(flight: Flight, sa: Sa, next: number): void {
  const { packet, cursor } = flight;
  const at = cursor.insertAt;
  const len = headerLen(sa, cursor.family);
  ah.write(packet.bytes, at, next, len, sa.spec.spi, flight.seq >>> 0);
  zero(packet.bytes, at + ah.HEADER_LEN, len - ah.HEADER_LEN);
  finishHeader(packet, cursor, cursor.insertProtocolAt, PROTO.AH);
  flight.jobAt = at;
}

export function sign(core: Core, flight: Flight, sa: Sa): DropReason | undefined {
  const { packet, cursor, jobAt } = flight;
  const transform = sa.spec.ah!;
  const icvAt = jobAt + ah.HEADER_LEN;
  // AES-GMAC's IV stands at the beginning of the ICV field, and is authenticated like the rest (RFC
  // 4543 §4).
  if (transform.ivLen > 0) core.ivs.writeUnique(packet.view, icvAt, sa, flight.seq);
  const muted = mute(packet.bytes, cursor, jobAt, packet.end, core.muted, core.settings);
  if (typeof muted === 'string') return muted;
  transform.sign(core.muted, 0, muted, seqHigh(sa, flight.seq), packet.bytes, icvAt);
  return undefined;
}

/** Checks what can be checked before the ICV. `ahAt`: where AH begins. */
export function prepareOpen(flight: Flight, sa: Sa, ahAt: number): DropReason | undefined {
  const { packet } = flight;
  const bad = ah.check(packet.bytes, ahAt, packet.end);
  if (bad !== undefined) return bad;
  const len = ah.len(packet.bytes, ahAt);
  // Both ways of padding are accepted: the padding is authenticated, and peers differ (RFC 4302
  // §3.3.3.2.1).
  const least = ah.HEADER_LEN + sa.spec.ah!.icvLen;
  if (len < least || len > Math.ceil(least / 8) * 8) return 'ah-bad-length';
  if (flight.cursor.family === 6 && len % 8 !== 0) return 'ah-bad-length';
  flight.seq = sa.replay.check(ah.seq(packet.bytes, ahAt));
  if (flight.seq < 0) {
    sa.replays++;
    return 'ah-replay';
  }
  flight.jobAt = ahAt;
  flight.jobEnd = ahAt + len;
  return undefined;
}

export function verify(core: Core, flight: Flight, sa: Sa): DropReason | undefined {
  const { packet, cursor, jobAt } = flight;
  const { muted } = core;
  const end = mute(packet.bytes, cursor, jobAt, packet.end, muted, core.settings);
  if (typeof end === 'string') return end;
  const { icvLen, ivLen } = sa.spec.ah!;
  zero(muted, jobAt - cursor.at + ah.HEADER_LEN + ivLen, icvLen - ivLen);
  const high = seqHigh(sa, flight.seq);
  flight.jobOk = sa.spec.ah!.verify(muted, 0, end, high, packet.bytes, jobAt + ah.HEADER_LEN);
  return undefined;
}

/** After `verify`: the ICV's verdict, and the window again. */
export function completeOpen(flight: Flight, sa: Sa): DropReason | undefined {
  if (!flight.jobOk) {
    sa.badIcvs++;
    return 'ah-bad-icv';
  }
  if (!sa.replay.commit(flight.seq)) {
    sa.replays++;
    return 'ah-replay';
  }
  flight.payloadAt = flight.jobEnd;
  flight.payloadEnd = flight.packet.end;
  flight.next = ah.nextHeader(flight.packet.bytes, flight.jobAt);
  return undefined;
}
