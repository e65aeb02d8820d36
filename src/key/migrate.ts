import {
  type Address,
  formatAddress,
  isMulticast,
  isUnspecified,
  sameAddress,
} from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import type { Sa, SaSpec } from '../sad/sa.ts';
import { describe } from '../sad/sa-checks.ts';
import { describeSelector, type PolicySpec, type Request } from '../spd/policy.ts';
import type { PolicyRequest } from '../wire/pfkey-message.ts';
import { MODE, saTypeOfProto } from '../wire/pfkey-table.ts';
import type { Handler, KeyContext } from './context.ts';
import { required } from './fields.ts';
import { directionOf, selectorOf } from './policy-request.ts';

/** One host has moved: where its SAs ended, and where they end now. */
interface Move {
  readonly protocol: 'esp' | 'ah';
  readonly mode: 'transport' | 'tunnel';
  /** 0: any. */
  readonly reqid: number;
  readonly from: Ends;
  readonly to: Ends;
}

interface Ends {
  readonly src: Address;
  readonly dst: Address;
}

/**
 * X_MIGRATE (draft-sugimoto-mip6-pfkey-migrate, as in Linux): the tunnel ends of one policy and the
 * SAs that serve it go to other addresses, with their keys, counters and windows. The requests of
 * the message come in pairs, the old ends and the new. All of it happens, or nothing.
 *
 * Deviation: Linux moves one SA for each pair; here all go along, also those that a rekey has just
 * replaced or made.
 */
export const migrate: Handler = (context, message) => {
  const wanted = required(message, 'X_POLICY');
  const direction = directionOf(wanted);
  const selector = selectorOf(message);
  const moves = movesOf(wanted.requests);
  const policy = context.spd.find(direction, selector);
  if (!policy) {
    const name = `${direction} policy for ${describeSelector(selector)}`;
    throw new KeyError('ENOENT', `there is no ${name}`);
  }
  const spec = movedPolicy(policy, moves);
  const sas = planSas(context, moves);
  context.spd.update(spec);
  for (const [sa, moved] of sas) context.sad.update(sa, moved);
  return { kind: 'reply', to: 'all', extensions: message.extensions };
};

function movesOf(requests: readonly PolicyRequest[]): Move[] {
  if (requests.length === 0 || requests.length % 2 !== 0) {
    const count = requests.length;
    throw new KeyError('EINVAL', `X_MIGRATE: ${count} requests; they come in pairs, old and new`);
  }
  const moves: Move[] = [];
  for (let i = 0; i < requests.length; i += 2) moves.push(moveOf(requests[i]!, requests[i + 1]!));
  return moves;
}

function moveOf(before: PolicyRequest, after: PolicyRequest): Move {
  const { proto, mode, reqid } = before;
  if (proto !== after.proto || mode !== after.mode) {
    throw new KeyError('EINVAL', 'X_MIGRATE: old and new differ in more than addresses');
  }
  const protocol = saTypeOfProto(proto);
  if (protocol !== 'esp' && protocol !== 'ah') {
    throw new KeyError('EPROTONOSUPPORT', `X_MIGRATE: protocol ${proto}; ESP and AH can move`);
  }
  if (mode !== MODE.transport && mode !== MODE.tunnel) {
    throw new KeyError('EINVAL', `X_MIGRATE: mode ${mode}; 1 transport and 2 tunnel are known`);
  }
  return {
    protocol,
    mode: mode === MODE.tunnel ? 'tunnel' : 'transport',
    reqid,
    from: endsOf(before),
    to: endsOf(after),
  };
}

function endsOf({ src, dst }: PolicyRequest): Ends {
  if (!src || !dst) throw new KeyError('EINVAL', 'X_MIGRATE: a request without addresses');
  for (const { address } of [src, dst]) {
    if (!isUnspecified(address) && !isMulticast(address)) continue;
    throw new KeyError('EINVAL', `X_MIGRATE: ${formatAddress(address)} is not one host's address`);
  }
  return { src: src.address, dst: dst.address };
}

/** The policy with its tunnels at the new ends. Those of transport mode have no ends. */
function movedPolicy(policy: PolicySpec, moves: readonly Move[]): PolicySpec {
  const used = new Set<Move>();
  const requests = policy.requests.map((request) => {
    const move = moves.find((one) => isMoved(request, one));
    if (!move) return request;
    used.add(move);
    return request.mode === 'tunnel' ? { ...request, ...move.to } : request;
  });
  if (used.size < moves.length) {
    throw new KeyError('ENOENT', 'X_MIGRATE: the policy has no request with those ends');
  }
  return { ...policy, requests };
}

function isMoved(request: Request, { protocol, mode, from }: Move): boolean {
  if (request.protocol !== protocol || request.mode !== mode) return false;
  if (mode === 'transport' || !request.src || !request.dst) return mode === 'transport';
  return sameAddress(request.src, from.src) && sameAddress(request.dst, from.dst);
}

/** Throws EEXIST when the SPI of one of the SAs is in use where it would go. */
function planSas({ sad }: KeyContext, moves: readonly Move[]): Map<Sa, SaSpec> {
  const plan = new Map<Sa, SaSpec>();
  for (const { protocol, mode, reqid, from, to } of moves) {
    for (const sa of sad.between(protocol, from.src, from.dst)) {
      if (!sa.isUsable || (sa.spec.mode !== mode && sa.spec.mode !== 'any')) continue;
      if (reqid === 0 || sa.spec.reqid === reqid) plan.set(sa, { ...sa.spec, ...to });
    }
  }
  const seen = new Set<string>();
  for (const [sa, spec] of plan) {
    const name = describe(spec);
    const other = sad.get(spec.protocol, spec.spi, spec.dst);
    // An SA that leaves that place itself may not have left it yet.
    if ((other && other !== sa) || seen.has(name))
      throw new KeyError('EEXIST', `${name} is in use`);
    seen.add(name);
  }
  return plan;
}
