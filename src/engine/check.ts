import { sameAddress } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import type { Policy, Request } from '../spd/policy.ts';
import type { Core } from './core.ts';
import { effectiveLevel, familySettings } from './decide.ts';
import { escapesDefault, isExempt } from './exempt.ts';
import type { Flight, Layer } from './flight.ts';
import { isSameFlow } from './same-flow.ts';

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
  if (found.requests.length === 0) return 'policy-empty';
  if (flight.layerCount === 0 && isExempt(found, 'in', packet.bytes, cursor, core.settings)) {
    return undefined;
  }
  return meetsPolicy(core, flight, found);
}

/**
 * Whether a packet came as the one before it in the batch did, which may be handed on: in the same
 * flow, through the same SAs. What was said about that one then holds for this.
 */
export function checkedAs(flight: Flight, before: Flight): boolean {
  const { packet, cursor, layerCount } = flight;
  if (layerCount === 0 || layerCount !== before.layerCount) return false;
  for (let i = 0; i < layerCount; i++) {
    const [layer, other] = [flight.layers[i]!, before.layers[i]!];
    if (layer.sa !== other.sa || layer.tunnel !== other.tunnel) return false;
    if (layer.foreign || other.foreign) return false;
  }
  if (!isSameFlow(packet, cursor, before.packet, before.cursor)) return false;
  flight.policy = before.policy;
  return true;
}

/** Whether the SAs that were used are those that an IPsec policy asks for; undefined: they are. */
export function meetsPolicy(core: Core, flight: Flight, policy: Policy): DropReason | undefined {
  return core.settings.policyCheck === 'loose'
    ? checkLoosely(core, flight, policy)
    : checkStrictly(core, flight, policy);
}

function withoutPolicy(core: Core, flight: Flight): DropReason | undefined {
  const { packet, cursor } = flight;
  // A tunnel carries what its policy says and nothing else, or a peer could send from any address
  // through it.
  if (usedTunnel(flight, 0)) return 'policy-unprotected-selector';
  const { defPolicy } = familySettings(core.settings, cursor.family);
  if (defPolicy === 'none' || flight.layerCount > 0) return undefined;
  if (escapesDefault(packet.bytes, cursor)) return undefined;
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
    if (used < flight.layerCount && unmet(flight.layers[used]!, request) === undefined) {
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

/** What about a layer is not as the request wants it; undefined: the layer meets it. */
export function unmet(
  layer: Layer,
  request: Request,
): 'protocol' | 'mode' | 'reqid' | 'ends' | undefined {
  const { sa, tunnel } = layer;
  if (sa.spec.protocol !== request.protocol) return 'protocol';
  if (tunnel !== (request.mode === 'tunnel')) return 'mode';
  if (request.reqid !== 0 && sa.spec.reqid !== request.reqid) return 'reqid';
  if (!tunnel || request.src === undefined || request.dst === undefined) return undefined;
  const { src, dst } = sa.spec;
  return sameAddress(src, request.src) && sameAddress(dst, request.dst) ? undefined : 'ends';
}

function usedTunnel(flight: Flight, from: number): boolean {
  for (let i = from; i < flight.layerCount; i++) if (flight.layers[i]!.tunnel) return true;
  return false;
}
