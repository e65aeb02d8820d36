import type { Address } from '../base/address.ts';
import { DROPS, type DropReason } from '../base/drop.ts';
import type { Env } from '../base/env.ts';
import type { Sa } from '../sad/sa.ts';
import type { Sad } from '../sad/sad.ts';
import type { Policy, Request } from '../spd/policy.ts';
import type { Lookup } from '../spd/policy-index.ts';
import type { Spd } from '../spd/spd.ts';
import type { Cursor } from '../wire/cursor.ts';
import type { Packet, PacketArena, PacketSink } from '../wire/packet.ts';
import type { Flight } from './flight.ts';
import type { Hold } from './hold.ts';
import type { IvSource } from './iv.ts';
import type { PathMtus } from './pmtu.ts';
import type { Quote } from './quote.ts';
import type { SaCache } from './sa-cache.ts';
import type { Settings } from './settings.ts';
import type { Shard } from './shard.ts';
import type { SocketEntry, SocketPolicies, Takers } from './socket-policies.ts';
import { SOCKET_POLICY_ID_MIN } from './socket-rule.ts';
import { familyOf, type Side, type Stats } from './stats.ts';
import type { Tracer } from './tracer.ts';

/** What the steps of a host share. `Host` makes one and hands it down; nothing else holds state. */
export interface Core {
  readonly env: Env;
  readonly sad: SaTable;
  readonly spd: PolicyTable;
  /** Sockets with policies of their own. */
  readonly sockets: SocketTable;
  readonly settings: Settings;
  readonly stats: Stats;
  readonly events: Events;
  /** Packets that the host makes itself: fragments, reassembled datagrams, ICMP errors. */
  readonly arena: PacketArena;
  /** Packets that wait for an SA which is being negotiated. */
  readonly hold: Hold;
  /** Packets from the wire that came before the keys of their SA. */
  readonly early: Hold;
  readonly ivs: IvSource;
  readonly cache: SaCache;
  /** What ICMP errors said about the paths to the other ends of SAs. */
  readonly paths: PathMtus;
  /** What the ICMP error that is being looked at quotes. */
  readonly quote: Quote;
  /** Room for one packet with its mutable fields zeroed, which is what AH authenticates. */
  readonly muted: Uint8Array;
  /** Identifications of the IP headers that this host makes. */
  nextId: number;
  /**
   * When the batch began that is under way, by both clocks of `env`: reading them costs more than
   * the rest of a packet's bookkeeping.
   */
  nowMs: number;
  nowWallMs: number;
  /** Whether the local side forwards to other hosts, as a kernel behind a TUN device does. */
  readonly forwards: boolean;
  /** What the wire carries in one packet. */
  mtu: number;
  /** To the wire, and to the local side. */
  transmit: PacketSink;
  deliver: PacketSink;
  /** To sockets of the table; undefined: they get theirs as everybody does. */
  readonly deliverToSockets: SocketSink | undefined;
  /** Where this engine stands, if it is not the only one of its host. */
  readonly shard: Shard | undefined;
  /** Who watches packets, if anybody does. */
  tracer?: Tracer | undefined;
  /** Explanations only: sees an incoming packet when the policy has been asked about it. */
  readonly checked?: ((flight: Flight, verdict: DropReason | undefined) => void) | undefined;
  /** Explanations only: sees what was said about a packet of a socket. */
  readonly askedSocket?:
    | ((socket: SocketEntry, p: Uint8Array, cursor: Cursor, found: Lookup) => void)
    | undefined;
}

/** What the engine asks of the databases, so that an explanation can stand in front of them. */
export type SaTable = Pick<
  Sad,
  | 'generation'
  | 'all'
  | 'encapsulated'
  | 'inbound'
  | 'outbound'
  | 'between'
  | 'ofSpi'
  | 'isSpent'
  | 'count'
  | 'settle'
  | 'account'
>;
export type PolicyTable = Pick<
  Spd,
  'generation' | 'lookup' | 'lookupBatch' | 'used' | 'list' | 'count' | 'cacheCounters'
>;
export type SocketTable = Pick<
  SocketPolicies,
  'size' | 'find' | 'sender' | 'raws' | 'concerns' | 'noteUse' | 'noteRefusal'
>;

/** Packets for sockets, borrowed until it returns; `takers` says for each packet which ones. */
export type SocketSink = (
  packets: readonly Packet[],
  count: number,
  takers: readonly Takers[],
) => void;

/**
 * Identifications that are not 0, one after the other from a random start (RFC 6864 §4.1 asks for
 * no repeats in flight).
 */
export function nextId(core: Core): number {
  core.nextId = (core.nextId % 0xffff) + 1;
  return core.nextId;
}

/** A packet follows the policy that was found for it; those of sockets have no lifetimes. */
export function noteUsed(core: Core, policy: Policy | undefined): void {
  if (policy === undefined || policy.id >= SOCKET_POLICY_ID_MIN) return;
  core.spd.used(policy, core.nowMs, core.nowWallMs);
  core.shard?.noteUsed(policy);
}

/** A batch begins. */
export function tick(core: Core): void {
  const { clock } = core.env;
  core.nowMs = clock.monotonicMs();
  core.nowWallMs = clock.wallMs();
}

/** A packet goes no further: counts it, tells who listens, and logs it where `debug` is on. */
export function noteDrop(core: Core, side: Side, reason: DropReason, packet: Packet): void {
  const { env, events, settings, stats } = core;
  const family = familyOf(packet);
  stats.drop(side, reason, family);
  events.dropped?.(side, reason, packet);
  core.tracer?.dropped(side, reason, packet);
  if (!(family === 4 ? settings.inet : settings.inet6).debug) return;
  env.log('warn', `${side}: IPv${family}, ${packet.len} octets, ${reason}: ${DROPS[reason].text}`);
}

/**
 * What the engine tells those around it. Each is called in the middle of a packet, so it must not
 * take long.
 */
export interface Events {
  /**
   * A policy needs an SA that is not there. Addresses are those of the SA; the packet is the one
   * that asked.
   */
  acquire?(
    policy: Policy,
    request: Request,
    src: Address,
    dst: Address,
    trigger: Trigger,
  ): 'asked' | 'waiting' | 'nobody';
  /** A peer behind a NAT now comes from another address or port. */
  natMapping?(sa: Sa, from: UdpEndpoint, to: UdpEndpoint): void;
  /** A packet was dropped: for traces and logs. */
  dropped?(side: Side, reason: DropReason, packet: Packet): void;
}

export interface UdpEndpoint {
  readonly address: Address;
  readonly port: number;
}

/** The decoded packet behind an ACQUIRE; borrowed. */
export interface Trigger {
  readonly bytes: Uint8Array;
  readonly cursor: Cursor;
}
