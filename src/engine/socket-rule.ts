import { ADDRESS_BITS, type Family, type Prefix } from '../base/address.ts';
import { PORT_ANY, type Policy, type Request, type Selector } from '../spd/policy.ts';
import type { Lookup } from '../spd/policy-index.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as icmp from '../wire/icmp.ts';
import type { PolicyExtension } from '../wire/pfkey-message.ts';
import { DIRECTION, POLICY_TYPE } from '../wire/pfkey-table.ts';
import type { PolicyTable } from './core.ts';
import type { SocketEnds, SocketEntry } from './socket-policies.ts';

/**
 * Ids of the policies of sockets, which stand beside those of the SPD in ACQUIRE messages and
 * explanations.
 */
export const SOCKET_POLICY_ID_MIN = 0x8000_0000;

/** Sockets neither forward nor are forwarded to. */
export type SocketDirection = 'in' | 'out';

/**
 * What a socket wants for its packets in one direction (kame-style setsockopt IP_IPSEC_POLICY):
 *
 *     entrust   what the host's policies say
 *     ipsec     these requests
 *     bypass    no protection: sent in the clear, and clear packets are let in
 */
export interface SocketRule {
  readonly type: 'bypass' | 'entrust' | 'ipsec';
  /** Of `ipsec`, innermost first. */
  readonly requests: readonly Request[];
  /** As setsockopt had it, with the reqids given out: what getsockopt answers. */
  readonly option: PolicyExtension;
}

/** What every socket has until it wants something else. */
export const ENTRUST: Readonly<Record<SocketDirection, SocketRule>> = {
  in: plainRule('entrust', 'in'),
  out: plainRule('entrust', 'out'),
};

export function plainRule(type: 'bypass' | 'entrust', direction: SocketDirection): SocketRule {
  const policyType = POLICY_TYPE[type];
  const head = { type: 'X_POLICY', reserved: 0, id: 0, priority: 0 } as const;
  return {
    type,
    requests: [],
    option: { ...head, policyType, direction: DIRECTION[direction], requests: [] },
  };
}

/** The rule as the rest of the engine knows policies; undefined for `entrust`. */
export function socketPolicy(
  id: number,
  direction: SocketDirection,
  rule: SocketRule,
  ends: SocketEnds,
): Policy | undefined {
  if (rule.type === 'entrust') return undefined;
  return {
    id,
    direction,
    selector: selectorOf(direction, ends),
    type: rule.type === 'bypass' ? 'none' : 'ipsec',
    priority: rule.option.priority,
    requests: rule.requests,
    lifetimeSeconds: 0,
    idleSeconds: 0,
    origin: 'client',
    createdMs: 0,
    createdWallMs: 0,
    lastUsedMs: 0,
    lastUsedWallMs: 0,
    moment: 0,
  };
}

/**
 * The policy for a packet of a socket. A privileged socket is asked first, and `entrust` asks the
 * host; else the host is asked first, and the socket only where no policy of the host speaks of the
 * packet (getpolicybypcbsp of KAME), so that nobody gets around what the administrator has said.
 */
export function policyOfSocket(
  spd: Pick<PolicyTable, 'lookup'>,
  socket: SocketEntry,
  direction: SocketDirection,
  p: Uint8Array,
  cursor: Cursor,
): Lookup {
  const own = socket.policies[direction];
  if (own === undefined) return spd.lookup(direction, p, cursor);
  if (socket.privileged) return own;
  const found = spd.lookup(direction, p, cursor);
  return found === 'none' ? own : found;
}

function selectorOf(direction: SocketDirection, ends: SocketEnds): Selector {
  const { family, protocol, local, remote, localPort, remotePort } = ends;
  const [near, far] = [wholePrefix(family, local), wholePrefix(family, remote)];
  const isEcho = protocol === icmp.protocolOf(family);
  const port = (number: number) => (number === 0 || isEcho ? PORT_ANY : number);
  return direction === 'out'
    ? { src: near, dst: far, protocol, sport: port(localPort), dport: port(remotePort) }
    : { src: far, dst: near, protocol, sport: port(remotePort), dport: port(localPort) };
}

function wholePrefix(family: Family, address: Prefix['address'] | undefined): Prefix {
  if (address !== undefined) return { address, length: ADDRESS_BITS[family] };
  return { address: { family, bytes: new Uint8Array(ADDRESS_BITS[family] / 8) }, length: 0 };
}
