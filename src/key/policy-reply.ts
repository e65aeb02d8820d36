import {
  PORT_ANY,
  type Policy,
  type PolicySpec,
  type Request,
  type Selector,
} from '../spd/policy.ts';
import type {
  AddressExtension,
  Extension,
  LifetimeExtension,
  PolicyExtension,
  PolicyRequest,
} from '../wire/pfkey-message.ts';
import { DIRECTION, LEVEL, MODE, POLICY_TYPE } from '../wire/pfkey-table.ts';

/** The reply to a change of a policy, and what others hear of it. */
export function changedParts(policy: Policy): Extension[] {
  return [policyPart(policy), ...lifetimeParts(policy), ...selectorParts(policy.selector)];
}

/** Everything: SPDGET, SPDDUMP and SPDEXPIRE. In Linux's order, addresses first. */
export function wholePolicyParts(policy: Policy): Extension[] {
  return [
    ...selectorParts(policy.selector),
    hardPart(policy),
    currentPart(policy),
    policyPart(policy),
  ];
}

export function selectorParts(selector: Selector): AddressExtension[] {
  const { protocol: proto, src, dst } = selector;
  const end = (
    type: AddressExtension['type'],
    { address, length }: Selector['src'],
    port: number,
  ) => ({
    type,
    proto,
    prefixLen: length,
    address,
    port: port === PORT_ANY ? 0 : port,
    scopeId: 0,
  });
  return [end('ADDRESS_SRC', src, selector.sport), end('ADDRESS_DST', dst, selector.dport)];
}

export function policyPart(policy: Policy): PolicyExtension {
  return { ...policyHead(policy), requests: policy.requests.map(requestPart) };
}

/** Which policy, without its requests. */
export function policyHead({
  type,
  direction,
  id,
  priority,
}: Pick<Policy, 'type' | 'direction' | 'id' | 'priority'>): PolicyExtension {
  return {
    type: 'X_POLICY',
    policyType: POLICY_TYPE[type],
    direction: DIRECTION[direction],
    reserved: 0,
    id,
    priority,
    requests: [],
  };
}

function requestPart(request: Request): PolicyRequest {
  const { protocol, mode, level, reqid, src, dst, srcPort, dstPort } = request;
  return {
    proto: protocol === 'esp' ? 50 : 51,
    mode: MODE[mode],
    level: LEVEL[level],
    reqid,
    ...(src && dst
      ? { src: { address: src, port: srcPort }, dst: { address: dst, port: dstPort } }
      : {}),
  };
}

function lifetimeParts(policy: PolicySpec): LifetimeExtension[] {
  return policy.lifetimeSeconds > 0 || policy.idleSeconds > 0 ? [hardPart(policy)] : [];
}

function hardPart(policy: PolicySpec): LifetimeExtension {
  return {
    type: 'LIFETIME_HARD',
    allocations: 0,
    bytes: 0,
    addTime: policy.lifetimeSeconds,
    useTime: policy.idleSeconds,
  };
}

/** When it was made, and when a packet last followed it. */
function currentPart(policy: Policy): LifetimeExtension {
  return {
    type: 'LIFETIME_CURRENT',
    allocations: 0,
    bytes: 0,
    addTime: Math.floor(policy.createdWallMs / 1000),
    useTime: Math.floor(policy.lastUsedWallMs / 1000),
  };
}
