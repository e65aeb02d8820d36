import { isUnspecified } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import type { Sa } from '../sad/sa.ts';
import { equal } from '../wire/bytes.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import type { Core } from './core.ts';
import type { Flight } from './flight.ts';
import { closeGap, finishHeader } from './header.ts';
import { decapsulate, ecnRule } from './tunnel.ts';

/**
 * ESP in transport mode does not cover the source address, so somebody on the way may have changed
 * it; a NAT may do so. An SA without a source is for all.
 */
export function isForeign(flight: Flight, sa: Sa): boolean {
  const { src, encapsulation } = sa.spec;
  if (encapsulation !== undefined || isUnspecified(src)) return false;
  const { packet, cursor } = flight;
  return !equal(packet.bytes, cursor.srcAt, src.bytes, 0, src.bytes.length);
}

/** The headers up to `headersEnd` go back in front of the payload of an opened layer. */
export function leaveTransport(flight: Flight, headersEnd: number): undefined {
  const { packet, cursor, payloadAt, next } = flight;
  const gap = payloadAt - headersEnd;
  const { protocolAt } = cursor;
  closeGap(packet, cursor, headersEnd, gap);
  finishHeader(packet, cursor, protocolAt + gap, next);
}

/** The packet in the payload of an opened layer is the packet from now on. */
export function leaveTunnel(core: Core, flight: Flight, sa: Sa): DropReason | undefined {
  const { packet, cursor, payloadAt, next } = flight;
  const { bytes: p } = packet;
  const { family, at } = cursor;
  const outerTos = family === 4 ? ipv4.tos(p, at) : ipv6.trafficClass(p, at);
  return enterInner(core, packet, payloadAt, next, outerTos, sa);
}

/**
 * As `leaveTunnel`: what is at `payloadAt` is the packet. `next`: its protocol; `outerTos`: of the
 * header of the tunnel.
 */
export function enterInner(
  core: Core,
  packet: Packet,
  payloadAt: number,
  next: number,
  outerTos: number,
  sa: Sa,
): DropReason | undefined {
  const p = packet.bytes;
  const outerEcn = 3 & outerTos;
  const ecn = ecnRule(sa, core.settings);
  const family = next === PROTO.IPIP ? 4 : 6;
  // The fragments were the tunnel's; what was in it has never been cut.
  packet.fragmentMax = 0;
  const bad =
    family === 4 ? ipv4.check(p, payloadAt, packet.end) : ipv6.check(p, payloadAt, packet.end);
  return bad ?? decapsulate(packet, payloadAt, family, outerEcn, ecn);
}
