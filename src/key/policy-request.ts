import { maskPrefix } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import {
  type Direction,
  PORT_ANY,
  type PolicySpec,
  type PolicyType,
  PROTOCOL_ANY,
  type Request,
  type Selector,
} from '../spd/policy.ts';
import { requestOf } from '../spd/request.ts';
import { extension, type Message, type PolicyExtension } from '../wire/pfkey-message.ts';
import { DIRECTION, POLICY_TYPE } from '../wire/pfkey-table.ts';
import { sameRequest } from './compare.ts';
import type { KeyContext } from './context.ts';
import { addressPair, required } from './fields.ts';
import type { Session } from './session.ts';

/** As Linux's XFRM_MAX_DEPTH: more layers than a packet can carry are a mistake. */
const REQUEST_MAX = 6;

/**
 * Reqids from here on are given out by us, as KAME has it; programs and people usually choose
 * smaller ones.
 */
export const AUTO_REQID_MIN = 0x4000;
const REQID_MAX = 0xffff_ffff;

/** What SPDADD, SPDUPDATE and SPDSETIDX ask for. Throws KeyError. */
export function policySpecOf(context: KeyContext, message: Message, session: Session): PolicySpec {
  const policy = required(message, 'X_POLICY');
  const type = policyTypeOf(policy.policyType);
  if (type !== 'ipsec' && policy.requests.length > 0) {
    throw new KeyError('EINVAL', `a policy of type ${type} has no requests`);
  }
  if (policy.requests.length > REQUEST_MAX) {
    throw new KeyError('ELOOP', `${policy.requests.length} requests, at most ${REQUEST_MAX} nest`);
  }
  if (type === 'ipsec' && policy.requests.length === 0 && message.type !== 'X_SPDSETIDX') {
    throw new KeyError('EINVAL', 'a policy of type ipsec needs at least one request');
  }
  const hard = extension(message, 'LIFETIME_HARD');
  const direction = directionOf(policy);
  const selector = selectorOf(message);
  const before = (context.previous ?? context.spd).find(direction, selector);
  return {
    direction,
    selector,
    type,
    priority: policy.priority,
    requests: withReqids(context, policy.requests.map(requestOf), before?.requests ?? []),
    lifetimeSeconds: hard?.addTime ?? 0,
    idleSeconds: hard?.useTime ?? 0,
    origin: session.client.origin,
  };
}

export function directionOf({ direction }: PolicyExtension): Direction {
  switch (direction) {
    case DIRECTION.in:
      return 'in';
    case DIRECTION.out:
      return 'out';
    case DIRECTION.fwd:
      return 'fwd';
    default:
      throw new KeyError('EINVAL', `direction ${direction}; 1 in, 2 out and 3 fwd are known`);
  }
}

/**
 * The selector in the addresses of a message; port 0 is any, and so are the protocols 0 (Linux) and
 * 255 (KAME).
 */
export function selectorOf(message: Message): Selector {
  const { src, dst } = addressPair(message);
  return {
    src: maskPrefix(src.address, src.prefixLen),
    dst: maskPrefix(dst.address, dst.prefixLen),
    protocol: src.proto === 0 ? PROTOCOL_ANY : src.proto,
    sport: src.port === 0 ? PORT_ANY : src.port,
    dport: dst.port === 0 ? PORT_ANY : dst.port,
  };
}

function policyTypeOf(type: number): PolicyType {
  switch (type) {
    case POLICY_TYPE.discard:
      return 'discard';
    case POLICY_TYPE.none:
      return 'none';
    case POLICY_TYPE.ipsec:
      return 'ipsec';
    case POLICY_TYPE.entrust:
    case POLICY_TYPE.bypass:
      throw new KeyError('EINVAL', 'entrust and bypass are for the policies of sockets only');
    default:
      throw new KeyError('EINVAL', `policy type ${type}; 0 discard, 1 none and 2 ipsec are known`);
  }
}

/**
 * Gives every "unique" request without a reqid one that nobody uses; the reply says which
 * (key_msg2sp of KAME). A policy that replaces an equal one goes on with its number, or its SAs
 * would serve nobody.
 */
function withReqids(
  context: KeyContext,
  requests: readonly Request[],
  before: readonly Request[],
): readonly Request[] {
  return requests.map((request, i) => {
    if (request.level !== 'unique' || request.reqid !== 0) return request;
    const old = before[i];
    const reqid =
      old && old.reqid >= AUTO_REQID_MIN && sameRequest({ ...request, reqid: old.reqid }, old)
        ? old.reqid
        : freeReqid(context, requests);
    return { ...request, reqid };
  });
}

/**
 * A reqid that nobody uses, `own` neither. Counts on instead of taking the lowest free one: SAs of
 * a policy that is gone may still be in negotiation.
 */
export function freeReqid(context: KeyContext, own: readonly Pick<Request, 'reqid'>[]): number {
  for (;;) {
    const reqid = context.reqids.next;
    context.reqids.next = reqid === REQID_MAX ? AUTO_REQID_MIN : reqid + 1;
    if (!own.some((request) => request.reqid === reqid) && !isUsed(context, reqid)) return reqid;
  }
}

function isUsed({ spd, sad, previous }: KeyContext, reqid: number): boolean {
  return spd.hasReqid(reqid) || sad.hasReqid(reqid) || (previous?.hasReqid(reqid) ?? false);
}
