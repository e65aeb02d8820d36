import type { Address } from '../base/address.ts';
import type { Sa, SaProtocol } from '../sad/sa.ts';
import { viewOf } from '../sad/sa-view.ts';
import { PORT_ANY, type Policy, type Request } from '../spd/policy.ts';
import type { Extension, Message, MessageType, SaType } from '../wire/pfkey-message.ts';
import { MODE, PROTO_ANY } from '../wire/pfkey-table.ts';
import { proposal } from './algorithms.ts';
import type { KeyContext } from './context.ts';
import { policyHead, wholePolicyParts } from './policy-reply.ts';
import { expireParts, hostPart, sa2Part, saPart } from './sa-reply.ts';

/** What the host says unasked. Clients know it by its pid of 0 (strongSwan ignores other ones). */
function event(
  type: MessageType,
  satype: SaType,
  seq: number,
  extensions: readonly Extension[],
): Message {
  return { type, errno: 0, satype, seq, pid: 0, reserved: 0, extensions };
}

/** What the engine knows of the packet behind an ACQUIRE. */
export interface Trigger {
  readonly cursor: {
    readonly protocol: number;
    readonly portsKnown: boolean;
    readonly sport: number;
    readonly dport: number;
  };
}

export interface Wanted {
  readonly policy: Policy;
  readonly request: Request;
  readonly src: Address;
  readonly dst: Address;
}

/** RFC 2367 §3.1.6, with KAME's policy: an SA is wanted. */
export function acquireEvent(
  context: KeyContext,
  seq: number,
  { policy, request, src, dst }: Wanted,
  { cursor }: Trigger,
): Message {
  // Key exchange takes traffic selectors from here in transport mode, and from the policy in tunnel
  // mode.
  const isTransport = request.mode === 'transport';
  const proto = isTransport ? cursor.protocol : PROTO_ANY;
  const ports = isTransport && cursor.portsKnown ? cursor : { sport: 0, dport: 0 };
  return event('ACQUIRE', request.protocol, seq, [
    hostPart('ADDRESS_SRC', src, portOf(ports.sport), proto),
    hostPart('ADDRESS_DST', dst, portOf(ports.dport), proto),
    policyHead(policy),
    // strongSwan ignores an ACQUIRE whose X_SA2 has no reqid.
    ...(request.reqid === 0 ? [] : [sa2Of(request)]),
    proposal(context, request.protocol),
  ]);
}

/** RFC 2367 §3.1.8. */
export function expireEvent(sa: Sa, limit: 'soft' | 'hard'): Message {
  return event('EXPIRE', sa.spec.protocol, sa.spec.seq, expireParts(viewOf(sa), limit));
}

export function policyExpireEvent(policy: Policy): Message {
  return event('X_SPDEXPIRE', 'unspec', 0, wholePolicyParts(policy));
}

/**
 * The peer behind a NAT was at the one place, and is now at the other (as Linux's
 * pfkey_send_new_mapping).
 */
export function newMappingEvent(
  sa: Sa,
  from: { readonly address: Address; readonly port: number },
  to: { readonly address: Address; readonly port: number },
): Message {
  const view = viewOf(sa);
  return event('X_NAT_T_NEW_MAPPING', 'esp', 0, [
    saPart(view),
    sa2Part(view),
    hostPart('ADDRESS_SRC', from.address),
    { type: 'X_NAT_T_SPORT', port: from.port },
    hostPart('ADDRESS_DST', to.address),
    { type: 'X_NAT_T_DPORT', port: to.port },
  ]);
}

/** A change that no client asked for: a new configuration file. */
export function changeEvent(
  type: MessageType,
  satype: SaProtocol | 'unspec',
  extensions: readonly Extension[],
): Message {
  return event(type, satype, 0, extensions);
}

function sa2Of(request: Request): Extension {
  return { type: 'X_SA2', mode: MODE[request.mode], sequence: 0, reqid: request.reqid };
}

function portOf(port: number): number {
  return port === PORT_ANY ? 0 : port;
}
