import { type Address, addressFrom, sameAddress } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import type { Sa } from '../sad/sa.ts';
import type { Policy, Request } from '../spd/policy.ts';
import type { Lookup } from '../spd/policy-index.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import * as ah from './ah.ts';
import type { Core } from './core.ts';
import * as esp from './esp.ts';
import { escapesDefault, isExempt, needsPorts } from './exempt.ts';
import type { Flight, Lack } from './flight.ts';
import { isIcmpError } from './quote.ts';
import { isSameFlow } from './same-flow.ts';
import type { FamilySettings, Settings } from './settings.ts';
import { policyOfSocket } from './socket-rule.ts';
import { outerDf, wantsWhole } from './tunnel.ts';

/**
 * What becomes of an outgoing packet; `reassemble`: it is a fragment, and the answer needs the
 * whole datagram.
 */
export type Verdict = 'clear' | 'protect' | 'reassemble' | { readonly drop: DropReason };

/**
 * The policy for a decoded outgoing packet, and the SAs to protect it with (left in the flight,
 * innermost first; SAs that are missing stand there too, for the caller to announce). Changes
 * nothing but the flight.
 */
export function decideOutput(core: Core, flight: Flight): Verdict {
  const { packet, cursor } = flight;
  const found = policyOf(core, flight);
  const isOwn = flight.socket !== undefined && found === flight.socket.policies.out;
  if (found === 'ports-unknown') return 'reassemble';
  if (found === 'none') return errorVerdict(core, flight) ?? defaultVerdict(core, flight);
  flight.policy = found;
  if (found.type === 'discard') return { drop: 'policy-discard' };
  if (found.type === 'none') return checkSize(core, flight);
  if (found.requests.length === 0) return { drop: 'policy-empty' };
  // Transport mode protects whole datagrams only (RFC 4303 §3.3.4).
  if (cursor.isFragment && found.requests[0]!.mode === 'transport') return 'reassemble';
  if (!isOwn) {
    if (needsPorts(found, packet.bytes, cursor)) return 'reassemble';
    if (isExempt(found, 'out', packet.bytes, cursor, core.settings)) return checkSize(core, flight);
  }
  const missing = chooseSas(core, flight, found);
  if (missing !== undefined) return { drop: missing };
  return checkSize(core, flight);
}

function policyOf(core: Core, { packet, cursor, socket, foreseen, foreseenIn }: Flight): Lookup {
  if (socket === undefined) {
    if (foreseen !== undefined && foreseenIn === core.spd.generation) return foreseen;
    return core.spd.lookup('out', packet.bytes, cursor);
  }
  const found = policyOfSocket(core.spd, socket, 'out', packet.bytes, cursor);
  core.askedSocket?.(socket, packet.bytes, cursor, found);
  return found;
}

/**
 * Most packets are of the flow of the one before them in the batch, and what was decided about that
 * one holds for them: false if it does not. Nothing has been sealed yet, and nobody else has had
 * the word in between.
 */
export function decideAs(flight: Flight, before: Flight): boolean {
  const { packet, cursor } = flight;
  if (!before.active || before.layerCount === 0 || before.owned) return false;
  if (before.lacks.length > 0 || packet.len > before.packet.len) return false;
  if (!isSameFlow(packet, cursor, before.packet, before.cursor)) return false;
  flight.df = wantsWhole(packet, cursor.family);
  if (flight.df !== before.df) return false;
  takeWay(flight, before);
  return true;
}

/** What was decided about the other flight holds for this one. */
export function takeWay(flight: Flight, other: Flight): void {
  flight.policy = other.policy;
  flight.socket = other.socket;
  flight.mtu = other.mtu;
  flight.mtuLayers = other.mtuLayers;
  flight.df = other.df;
  for (let i = 0; i < other.layerCount; i++) {
    const { sa, tunnel } = other.layers[i]!;
    flight.push(sa, tunnel);
  }
}

/**
 * Whether a datagram came in fragments that had to be put together for the sake of its ports, and
 * goes on to another host: no router on its way there may cut it (RFC 8200 §5), and what comes out
 * of the tunnel is too large for its wire. In transport mode the peer itself is the end.
 */
export function mustBeCut({ forwards }: Core, { packet, cursor, owned, layers }: Flight): boolean {
  if (!forwards || !owned || cursor.family !== 6 || !layers[0]!.tunnel) return false;
  return packet.fragmentMax > 0 && packet.len > packet.fragmentMax;
}

/**
 * An ICMP error that no policy covers goes the way of the flow that it reports about, through an SA
 * that is there already; it would tell everybody what was sent in that flow (RFC 4301 §6.2).
 */
function errorVerdict(core: Core, flight: Flight): Verdict | undefined {
  const { packet, cursor } = flight;
  if (!isIcmpError(packet.bytes, cursor)) return undefined;
  if (!core.quote.read(packet.bytes, cursor)) return undefined;
  const policy = core.quote.policyOfAnswer(core.spd, 'out');
  if (typeof policy !== 'object' || policy.type === 'none') return undefined;
  flight.policy = policy;
  if (policy.type === 'discard') return { drop: 'policy-discard' };
  const missing = chooseSas(core, flight, policy);
  flight.lacks.length = 0;
  return missing === undefined ? checkSize(core, flight) : { drop: missing };
}

function defaultVerdict(core: Core, flight: Flight): Verdict {
  const { packet, cursor } = flight;
  const { defPolicy } = familySettings(core.settings, cursor.family);
  const passes = defPolicy === 'none' || escapesDefault(packet.bytes, cursor);
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
      flight.lack(request, outer);
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

/**
 * Tells who negotiates SAs which ones the packet lacks. True when somebody is at it, so that it is
 * worth while to wait.
 */
export function announceMissing(core: Core, flight: Flight): boolean {
  const { packet, cursor, policy } = flight;
  if (core.events.acquire === undefined || policy === undefined) return false;
  let isNegotiated = flight.lacks.length > 0;
  for (const lack of flight.lacks) {
    const { src, dst } = endsOfLack(flight, lack);
    core.stats.acquires++;
    const trigger = { bytes: packet.bytes, cursor };
    const answer = core.events.acquire(policy, lack.request, src, dst, trigger);
    if (answer === 'nobody') isNegotiated = false;
  }
  return isNegotiated;
}

/** Between whom the SA would be that a packet lacks. */
export function endsOfLack(
  { packet, cursor }: Flight,
  { request, outer }: Lack,
): { readonly src: Address; readonly dst: Address } {
  const { bytes } = packet;
  return {
    src: request.src ?? outer?.spec.src ?? addressFrom(cursor.family, bytes, cursor.srcAt),
    dst: request.dst ?? outer?.spec.dst ?? addressFrom(cursor.family, bytes, cursor.dstAt),
  };
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
  flight.mtu = core.mtu;
  flight.mtuLayers = layerCount;
  // What came in fragments is not one packet to its sender, who cannot make it smaller.
  const isJoined = cursor.family === 6 && flight.owned;
  flight.df = !isJoined && wantsWhole(packet, cursor.family);
  if (core.paths.size > 0 && exceedsPath(core, flight, headersLen)) return { drop: 'too-big' };
  if (len > flight.mtu && mustStayWhole(core, flight)) return { drop: 'too-big' };
  return layerCount > 0 ? 'protect' : 'clear';
}

/**
 * Lowers the flight's MTU to what is known of its path. True if the packet is too long for it and
 * its sender can mend that (RFC 4301 §8.2.1). What must not be reported is fragmented on our side
 * of the path; within another tunnel nobody could, so there every sender is told.
 */
function exceedsPath(core: Core, flight: Flight, headersLen: number): boolean {
  const { packet, layerCount } = flight;
  for (let i = 0; i < layerCount; i++) {
    const isOutermost = i === layerCount - 1;
    if (!isOutermost && !leavesTunnel(flight, i)) continue;
    const mtu = core.paths.of(flight.layers[i]!);
    if (isOutermost) flight.mtu = Math.min(core.mtu, mtu);
    if (protectedLen(flight, packet.len, headersLen, i + 1) <= mtu) continue;
    // No sender makes IPv6 packets smaller than what every link carries.
    const isTold = flight.df || (!isOutermost && flight.cursor.family === 4);
    if (!isTold) continue;
    flight.mtu = mtu;
    flight.mtuLayers = i + 1;
    return true;
  }
  return false;
}

/**
 * Whether the packet with this layer is what comes out of the next one, and goes on from there to
 * another place.
 */
function leavesTunnel(flight: Flight, layer: number): boolean {
  const [inner, outer] = [flight.layers[layer]!, flight.layers[layer + 1]!];
  return outer.tunnel && !sameAddress(inner.sa.spec.dst, outer.sa.spec.dst);
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
 * The largest packet with these headers whose protected form fits into the flight's MTU: what a
 * too-big error reports.
 */
export function innerMtu(flight: Flight, headersLen: number): number {
  const families = [flight.cursor.family];
  for (let i = 0; i < flight.mtuLayers; i++) {
    const { sa, tunnel } = flight.layers[i]!;
    families.push(tunnel ? sa.spec.src.family : families[i]!);
  }
  let room = flight.mtu;
  for (let i = flight.mtuLayers - 1; i >= 0; i--) {
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
function mustStayWhole(core: Core, flight: Flight): boolean {
  let { family } = flight.cursor;
  let { df } = flight;
  for (let i = 0; i < flight.layerCount; i++) {
    const { sa, tunnel } = flight.layers[i]!;
    if (!tunnel) continue;
    df = outerDf(sa, core.settings, df);
    family = sa.spec.src.family;
  }
  return family === 4 && df;
}
