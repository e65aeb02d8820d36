import { PORT_ANY, type Policy } from '../spd/policy.ts';
import { equal } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import { isLoopbackPacket } from '../wire/loopback.ts';
import { PROTO } from '../wire/protocol.ts';
import { isEncapsulationPort, type Settings } from './settings.ts';
import type { Side } from './stats.ts';

const IKE_PORT = 500;
const IKE_NAT_PORT = 4500;

/**
 * What a policy between two hosts must not catch unless it names it, since protection itself
 * depends on it: neighbour discovery, IKE, and our own ESP in UDP. Only the local port counts: with
 * the peer's, anybody could send in the clear from port 500 to any service.
 */
export function isExempt(
  policy: Policy,
  side: Side,
  p: Uint8Array,
  cursor: Cursor,
  settings: Settings,
): boolean {
  if (policy.type !== 'ipsec' || !cursor.portsKnown) return false;
  const { selector } = policy;
  if (isNeighbourDiscovery(cursor)) {
    const named = selector.protocol === PROTO.ICMPV6 && selector.sport >= 133;
    return !named && isBetweenItsEnds(policy, p, cursor);
  }
  if (cursor.protocol !== PROTO.UDP) return false;
  const port = side === 'out' ? cursor.sport : cursor.dport;
  if (port !== IKE_PORT && port !== IKE_NAT_PORT && !isEncapsulationPort(settings, port)) {
    return false;
  }
  return !namesPorts(policy) && isBetweenItsEnds(policy, p, cursor);
}

/**
 * Whether a fragment must wait for the rest, since it may be one of IKE, which `isExempt` knows by
 * its ports.
 */
export function needsPorts(policy: Policy, p: Uint8Array, cursor: Cursor): boolean {
  if (!cursor.isFragment || namesPorts(policy)) return false;
  return cursor.protocol === PROTO.UDP && isBetweenItsEnds(policy, p, cursor);
}

/** A policy that was made for some ports means what it says, also for those of IKE. */
function namesPorts({ selector }: Policy): boolean {
  return (
    selector.protocol === PROTO.UDP && (selector.sport !== PORT_ANY || selector.dport !== PORT_ANY)
  );
}

/** RFC 4861: router and neighbour solicitations and advertisements, and redirects. */
export function isNeighbourDiscovery(cursor: Cursor): boolean {
  return (
    cursor.protocol === PROTO.ICMPV6 &&
    cursor.portsKnown &&
    cursor.sport >= 133 &&
    cursor.sport <= 137
  );
}

/**
 * Whether the packet goes from one end of the protection to the other, and not between networks
 * behind them.
 */
function isBetweenItsEnds(policy: Policy, p: Uint8Array, cursor: Cursor): boolean {
  for (const request of policy.requests) {
    if (request.mode === 'transport') continue;
    const { src, dst } = request;
    if (src === undefined || dst === undefined || src.family !== cursor.family) return false;
    if (!equal(src.bytes, 0, p, cursor.srcAt, src.bytes.length)) return false;
    if (!equal(dst.bytes, 0, p, cursor.dstAt, dst.bytes.length)) return false;
  }
  return true;
}

/** What no default touches: the loopback network, and neighbour discovery. */
export function escapesDefault(p: Uint8Array, cursor: Cursor): boolean {
  return isLoopbackPacket(p, cursor) || isNeighbourDiscovery(cursor);
}
