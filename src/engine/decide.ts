import { addressFrom } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import type { Sa } from '../sad/sa.ts';
import type { Policy, Request } from '../spd/policy.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import * as ah from './ah.ts';
import type { Core } from './core.ts';
import * as esp from './esp.ts';
import { isExempt, isLoopbackPacket, isNeighbourDiscovery, needsPorts } from './exempt.ts';
import type { Flight } from './flight.ts';
import type { FamilySettings, Settings } from './settings.ts';
import { outerDf } from './tunnel.ts';

/**
 * What becomes of an outgoing packet; `reassemble`: it is a fragment, and the answer needs the
 * whole datagram.
 */
export type Verdict = 'clear' | 'protect' | 'reassemble' | { readonly drop: DropReason };

/**
 * The policy for a decoded outgoing packet, and the SAs to protect it with (left in the flight,
 * innermost first). Changes nothing but the flight: the caller announces a missing SA.
 */
export function decideOutput(core: Core, flight: Flight): Verdict {
  const { packet, cursor } = flight;
  const found = core.spd.lookup('out', packet.bytes, cursor);
  if (found === 'ports-unknown') return 'reassemble';
  if (found === 'none') return defaultVerdict(core, flight);
  flight.policy = found;
  if (found.type === 'discard') return { drop: 'policy-discard' };
  if (found.type === 'none') return checkSize(core, flight);
  // Transport mode protects whole datagrams only (RFC 4303 §3.3.4).
  if (cursor.isFragment && found.requests[0]?.mode === 'transport') return 'reassemble';
  if (needsPorts(found, packet.bytes, cursor)) return 'reassemble';
  if (isExempt(found, 'out', packet.bytes, cursor, core.settings)) return checkSize(core, flight);
  const missing = chooseSas(core, flight, found);
  if (missing !== undefined) return { drop: missing };
  return checkSize(core, flight);
}

function defaultVerdict(core: Core, flight: Flight): Verdict {
  const { packet, cursor } = flight;
  const { defPolicy } = familySettings(core.settings, cursor.family);
  const passes =
    defPolicy === 'none' || isLoopbackPacket(packet.bytes, cursor) || isNeighbourDiscovery(cursor);
  return passes ? checkSize(core, flight) : { drop: 'policy-default-discard' };
}

function chooseSas(core: Core, flight: Flight, policy: Policy): DropReason | undefined {
  const { packet, cursor } = flight;
  // A request that wraps the packet changes the addresses that a later transport request goes by.
  let outer: Sa | undefined;
  for (const request of policy.requests) {
    const sa =
      outer === undefined || request.mode === 'tunnel'
        ? core.cache.outbound(core.sad, request, packet.bytes, cursor, core.settings.preferOldSa)
        : outboundBetween(core, request, outer);
    if (sa === undefined) {
      announce(core, flight, policy, request, outer);
      if (effectiveLevel(core.settings, request, cursor.family) === 'use') continue;
      return 'no-sa';
    }
    if (!flight.push(sa, request.mode === 'tunnel')) return 'too-many-layers';
    if (request.mode === 'tunnel') outer = sa;
  }
  return undefined;
}

function outboundBetween(core: Core, request: Request, outer: Sa): Sa | undefined {
  const { src, dst } = outer.spec;
  const { preferOldSa } = core.settings;
  return core.sad.outbound(request.protocol, 'transport', src, dst, request.reqid, preferOldSa);
}

function announce(
  core: Core,
  flight: Flight,
  policy: Policy,
  request: Request,
  outer: Sa | undefined,
): void {
  if (core.events.acquire === undefined) return;
  const { packet, cursor } = flight;
  const src =
    request.src ?? outer?.spec.src ?? addressFrom(cursor.family, packet.bytes, cursor.srcAt);
  const dst =
    request.dst ?? outer?.spec.dst ?? addressFrom(cursor.family, packet.bytes, cursor.dstAt);
  core.stats.acquires++;
  core.events.acquire(policy, request, src, dst, { bytes: packet.bytes, cursor });
}

/** `default` asks the host's setting; `unique` is `require` with a reqid. */
export function effectiveLevel(
  settings: Settings,
  request: Request,
  family: 4 | 6,
): 'use' | 'require' {
  if (request.level !== 'default') return request.level === 'use' ? 'use' : 'require';
  const rows = familySettings(settings, family);
  if (request.protocol === 'esp')
    return request.mode === 'tunnel' ? rows.espNetDeflev : rows.espTransDeflev;
  return request.mode === 'tunnel' ? rows.ahNetDeflev : rows.ahTransDeflev;
}

export function familySettings(settings: Settings, family: 4 | 6): FamilySettings {
  return family === 4 ? settings.inet : settings.inet6;
}

/**
 * Whether the packet with the layers chosen for it can exist, and if not in one piece, whether it
 * may be fragmented.
 */
function checkSize(core: Core, flight: Flight): Verdict {
  const { packet, cursor, layerCount } = flight;
  const headersLen = cursor.insertAt - cursor.at;
  const len = protectedLen(flight, packet.len, headersLen);
  if (layerCount > 0 && len > ipv4.TOTAL_LEN_MAX) return { drop: 'packet-too-long' };
  if (len > core.mtu && mustStayWhole(core, flight, headersLen)) return { drop: 'too-big' };
  return layerCount > 0 ? 'protect' : 'clear';
}

/** The length of the packet when all layers are on, or so many of them. */
export function protectedLen(
  flight: Flight,
  packetLen: number,
  headersLen: number,
  layerCount = flight.layerCount,
): number {
  let headers = headersLen;
  let len = packetLen;
  let family = flight.cursor.family;
  for (let i = 0; i < layerCount; i++) {
    const { sa, tunnel } = flight.layers[i]!;
    if (tunnel) {
      family = sa.spec.src.family;
      headers = ipHeaderLen(family);
      len += headers;
    }
    const payloadLen = len - headers;
    len =
      headers +
      (sa.spec.protocol === 'esp'
        ? esp.sealedLen(sa, payloadLen)
        : ah.headerLen(sa, family) + payloadLen);
  }
  return len;
}

/**
 * The largest packet with these headers whose protected form fits into `mtu`: what a too-big error
 * reports.
 */
export function innerMtu(flight: Flight, mtu: number, headersLen: number): number {
  const families = [flight.cursor.family];
  for (let i = 0; i < flight.layerCount; i++) {
    const { sa, tunnel } = flight.layers[i]!;
    families.push(tunnel ? sa.spec.src.family : families[i]!);
  }
  let room = mtu;
  for (let i = flight.layerCount - 1; i >= 0; i--) {
    const { sa, tunnel } = flight.layers[i]!;
    const family = families[i + 1]!;
    const isOwnHeader = !tunnel && !wrappedBelow(flight, i);
    const headers = isOwnHeader ? headersLen : ipHeaderLen(family);
    const payload =
      sa.spec.protocol === 'esp'
        ? esp.payloadMax(sa, room - headers)
        : room - headers - ah.headerLen(sa, family);
    room = tunnel ? payload : headers + payload;
  }
  return room;
}

function wrappedBelow(flight: Flight, layer: number): boolean {
  for (let i = 0; i < layer; i++) if (flight.layers[i]!.tunnel) return true;
  return false;
}

function ipHeaderLen(family: 4 | 6): number {
  return family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
}

/**
 * Whether the outermost header is one of IPv4 with DF. IPv6 is fragmented by its source, which for
 * these packets we are.
 */
function mustStayWhole(core: Core, flight: Flight, headersLen: number): boolean {
  const { packet, cursor } = flight;
  let { family } = cursor;
  let df = family === 4 && ipv4.dontFragment(packet.bytes, packet.at);
  for (let i = 0; i < flight.layerCount; i++) {
    const { sa, tunnel } = flight.layers[i]!;
    if (!tunnel) continue;
    const len = protectedLen(flight, packet.len, headersLen, i);
    df = sa.spec.src.family === 4 && outerDf(sa, core.settings, family, df, len);
    family = sa.spec.src.family;
  }
  return df;
}
