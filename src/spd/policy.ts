import {
  type Address,
  formatAddress,
  formatPrefix,
  isLoopback,
  type Prefix,
} from '../base/address.ts';

/**
 * `fwd` is Linux's: packets that pass through. Without such a policy `in` and `out` cover them, as
 * KAME has it.
 */
export type Direction = 'in' | 'out' | 'fwd';
export type PolicyType = 'discard' | 'none' | 'ipsec';
export type Level = 'default' | 'use' | 'require' | 'unique';

/** Matches every upper protocol (IPSEC_ULPROTO_ANY). */
export const PROTOCOL_ANY = 255;
/** Matches every port, ICMP type or ICMP code. */
export const PORT_ANY = -1;

/** Which packets a policy is about. For ICMP the type stands in `sport`, the code in `dport`. */
export interface Selector {
  readonly src: Prefix;
  readonly dst: Prefix;
  readonly protocol: number;
  readonly sport: number;
  readonly dport: number;
}

/** One protection of a bundle; the first of a policy is the innermost. */
export interface Request {
  readonly protocol: 'esp' | 'ah';
  readonly mode: 'transport' | 'tunnel';
  readonly level: Level;
  /** 0 is any. */
  readonly reqid: number;
  /** Tunnel endpoints; absent in transport mode, and in tunnels whose peer is not known yet. */
  readonly src?: Address;
  readonly dst?: Address;
  /** Of UDP encapsulation, 0 when not given. */
  readonly srcPort: number;
  readonly dstPort: number;
}

export interface PolicySpec {
  readonly direction: Direction;
  readonly selector: Selector;
  readonly type: PolicyType;
  /** Smaller is looked at earlier; equal ones in the order of their arrival. */
  readonly priority: number;
  readonly requests: readonly Request[];
  /** Seconds since it was added, and since it was last used; 0 is no limit. */
  readonly lifetimeSeconds: number;
  readonly idleSeconds: number;
  readonly origin: 'file' | 'client';
}

export interface Policy extends PolicySpec {
  readonly id: number;
  readonly createdWallMs: number;
  readonly createdMs: number;
  lastUsedWallMs: number;
  lastUsedMs: number;
  /** See `Moments`. */
  moment: number;
}

/**
 * Whether a selector is about the loopback network. Only such policies cover its packets, or one
 * for everything would cut a host off from itself.
 */
export function namesLoopback({ src, dst }: Selector): boolean {
  return [src, dst].some(({ address, length }) => length >= 8 && isLoopback(address));
}

/** `10.0.0.0/24[any] 10.0.1.0/24[80] tcp`, for messages and explanations. */
export function describeSelector(selector: Selector): string {
  const port = (number: number) => (number === PORT_ANY ? 'any' : String(number));
  const { src, dst, protocol, sport, dport } = selector;
  const upper = protocol === PROTOCOL_ANY ? 'any' : `protocol ${protocol}`;
  return `${formatPrefix(src)}[${port(sport)}] ${formatPrefix(dst)}[${port(dport)}] ${upper}`;
}

/** `esp/tunnel/10.0.0.1-10.0.0.2/require`. */
export function describeRequest(request: Request): string {
  const { protocol, mode, level, src, dst, reqid } = request;
  const ends = src && dst ? `${formatAddress(src)}-${formatAddress(dst)}` : '';
  return `${protocol}/${mode}/${ends}/${level}${reqid ? `:${reqid}` : ''}`;
}
