import { sameAddress } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import type { Policy, Request } from '../spd/policy.ts';
import type { Core } from './core.ts';
import { effectiveLevel, familySettings } from './decide.ts';
import { isExempt, isLoopbackPacket, isNeighbourDiscovery } from './exempt.ts';
import type { Flight, Layer } from './flight.ts';

/**
 * Whether a packet that came in may be handed on: the inbound check of RFC 4301 §5.2. The flight
 * holds the SAs that were actually used, outermost first. Undefined: it may. `ports-unknown`: it is
 * a fragment and the answer needs the datagram.
 */
export function checkInput(core: Core, flight: Flight): DropReason | 'ports-unknown' | undefined {
  const { packet, cursor } = flight;
  const found = core.spd.lookup('in', packet.bytes, cursor);
  if (found === 'ports-unknown') return found;
  if (found === 'none') return withoutPolicy(core, flight);
  flight.policy = found;
  if (found.type === 'discard') return 'policy-discard';
  if (found.type === 'none') return usedTunnel(flight, 0) ? 'policy-mismatch' : undefined;
  if (flight.layerCount === 0 && isExempt(found, 'in', packet.bytes, cursor, core.settings)) {
    return undefined;
  }
  return core.settings.policyCheck === 'loose'
    ? checkLoosely(core, flight, found)
    : checkStrictly(core, flight, found);
}

function withoutPolicy(core: Core, flight: Flight): DropReason | undefined {
  const { packet, cursor } = flight;
  // A tunnel carries what its policy says and nothing else, or a peer could send from any address
  // through it.
  if (usedTunnel(flight, 0)) return 'policy-unprotected-selector';
  const { defPolicy } = familySettings(core.settings, cursor.family);
  if (defPolicy === 'none' || flight.layerCount > 0) return undefined;
  if (isLoopbackPacket(packet.bytes, cursor) || isNeighbourDiscovery(cursor)) return undefined;
  return 'policy-default-discard';
}

/** Each request in turn, outermost first, must be met by the SA that was opened there. */
function checkStrictly(core: Core, flight: Flight, policy: Policy): DropReason | undefined {
  for (let i = 0; i < flight.layerCount; i++) {
    // The SA's own selectors: its source is whom it was agreed with (RFC 4301 §5.2 step 4).
    if (flight.layers[i]!.foreign) return 'policy-mismatch';
  }
  let used = 0;
  for (let i = policy.requests.length - 1; i >= 0; i--) {
    const request = policy.requests[i]!;
    if (used < flight.layerCount && meets(flight.layers[used]!, request)) {
      used++;
    } else if (effectiveLevel(core.settings, request, flight.cursor.family) !== 'use') {
      return flight.layerCount === 0 ? 'policy-clear' : 'policy-mismatch';
    }
  }
  // More transport protection than asked for does no harm; a tunnel nobody asked for does.
  return usedTunnel(flight, used) ? 'policy-mismatch' : undefined;
}

/** As KAME: some ESP for a policy with ESP, some AH for one with AH. */
function checkLoosely(core: Core, flight: Flight, policy: Policy): DropReason | undefined {
  for (const request of policy.requests) {
    if (effectiveLevel(core.settings, request, flight.cursor.family) === 'use') continue;
    const isMet = flight.layers
      .slice(0, flight.layerCount)
      .some((layer) => layer!.sa.spec.protocol === request.protocol);
    if (!isMet) return flight.layerCount === 0 ? 'policy-clear' : 'policy-mismatch';
  }
  return undefined;
}

function meets(layer: Layer, request: Request): boolean {
  const { sa, tunnel } = layer;
  if (sa.spec.protocol !== request.protocol || tunnel !== (request.mode === 'tunnel')) return false;
  if (request.reqid !== 0 && sa.spec.reqid !== request.reqid) return false;
  if (!tunnel || request.src === undefined || request.dst === undefined) return true;
  return sameAddress(sa.spec.src, request.src) && sameAddress(sa.spec.dst, request.dst);
}

function usedTunnel(flight: Flight, from: number): boolean {
  for (let i = from; i < flight.layerCount; i++) if (flight.layers[i]!.tunnel) return true;
  return false;
}
