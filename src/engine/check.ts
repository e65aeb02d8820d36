import { sameAddress } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import type { Policy, Request } from '../spd/policy.ts';
import type { Lookup } from '../spd/policy-index.ts';
import type { Core } from './core.ts';
import { effectiveLevel, familySettings } from './decide.ts';
import { escapesDefault, isExempt } from './exempt.ts';
import type { Flight, Layer } from './flight.ts';
import { isSameFlow } from './same-flow.ts';
import type { SocketEntry } from './socket-policies.ts';
import { policyOfSocket } from './socket-rule.ts';

/**
 * Whether a packet that came in may be handed on: the inbound check of RFC 4301 §5.2. The flight
 * holds the SAs that were actually used, outermost first. Undefined: it may. `ports-unknown`: it is
 * a fragment and the answer needs the datagram.
 */
export function checkInput(core: Core, flight: Flight): InputVerdict {
  return core.sockets.size > 0 ? checkForSockets(core, flight) : checkForHost(core, flight);
}

export type InputVerdict = DropReason | 'ports-unknown' | undefined;

function checkForHost(core: Core, flight: Flight): InputVerdict {
  const { packet, cursor } = flight;
  return checkBy(core, flight, core.spd.lookup('in', packet.bytes, cursor), undefined);
}

/** As the host's policies say, or for the packets of a socket that has its own as that one says. */
function checkForSockets(core: Core, flight: Flight): InputVerdict {
  const { packet, cursor } = flight;
  const { sockets } = core;
  if (cursor.isFragment) {
    if (sockets.concerns(packet.bytes, cursor)) return 'ports-unknown';
    return checkForHost(core, flight);
  }
  const owner = sockets.find('in', packet.bytes, cursor);
  const verdict =
    owner === undefined ? checkForHost(core, flight) : checkForSocket(core, flight, owner);
  if (owner !== undefined && verdict === undefined) flight.takers = owner.alone;
  const raws = sockets.raws('in', packet.bytes, cursor);
  return raws.length === 0 ? verdict : checkForRaws(core, flight, raws, verdict);
}

/** Raw sockets get copies, each as its own policy says, whatever becomes of the packet itself. */
function checkForRaws(
  core: Core,
  flight: Flight,
  raws: readonly SocketEntry[],
  verdict: InputVerdict,
): InputVerdict {
  const accepting = raws.filter((raw) => checkForSocket(core, flight, raw) === undefined);
  const { sockets = [], others = verdict === undefined } = flight.takers ?? {};
  if (accepting.length === 0) return verdict;
  flight.takers = { sockets: [...sockets, ...accepting], others };
  return undefined;
}

function checkForSocket(core: Core, flight: Flight, socket: SocketEntry): InputVerdict {
  const { packet, cursor } = flight;
  const own = socket.policies.in;
  const found = policyOfSocket(core.spd, socket, 'in', packet.bytes, cursor);
  core.askedSocket?.(socket, packet.bytes, cursor, found);
  // A bypass lets in what is clear. What a tunnel brings is for the policies of the tunnel.
  const isTunnelled = found === own && own?.type === 'none' && usedTunnel(flight, 0);
  const verdict = isTunnelled ? checkForHost(core, flight) : checkBy(core, flight, found, own);
  if (verdict !== undefined) core.sockets.noteRefusal(socket);
  return verdict;
}

/** `own`: the policy of the socket that the packet is for, which is meant for no other packets. */
function checkBy(core: Core, flight: Flight, found: Lookup, own: Policy | undefined): InputVerdict {
  const { packet, cursor } = flight;
  if (found === 'ports-unknown') return found;
  if (found === 'none') return withoutPolicy(core, flight);
  flight.policy = found;
  if (found.type === 'discard') return 'policy-discard';
  if (found.type === 'none') return usedTunnel(flight, 0) ? 'policy-mismatch' : undefined;
  if (found.requests.length === 0) return 'policy-empty';
  const mayBeExempt = flight.layerCount === 0 && found !== own;
  if (mayBeExempt && isExempt(found, 'in', packet.bytes, cursor, core.settings)) return undefined;
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
  flight.takers = before.takers;
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
