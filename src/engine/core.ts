import type { Address } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import type { Env } from '../base/env.ts';
import type { Sa } from '../sad/sa.ts';
import type { Sad } from '../sad/sad.ts';
import type { Policy, Request } from '../spd/policy.ts';
import type { Spd } from '../spd/spd.ts';
import type { Cursor } from '../wire/cursor.ts';
import type { Packet, PacketArena, PacketSink } from '../wire/packet.ts';
import type { IvSource } from './iv.ts';
import type { SaCache } from './sa-cache.ts';
import type { Settings } from './settings.ts';
import type { Side, Stats } from './stats.ts';

/** What the steps of a host share. `Host` makes one and hands it down; nothing else holds state. */
export interface Core {
  readonly env: Env;
  readonly sad: Sad;
  readonly spd: Spd;
  readonly settings: Settings;
  readonly stats: Stats;
  readonly events: Events;
  /** Packets that the host makes itself: fragments, reassembled datagrams, ICMP errors. */
  readonly arena: PacketArena;
  readonly ivs: IvSource;
  readonly cache: SaCache;
  /** Room for one packet with its mutable fields zeroed, which is what AH authenticates. */
  readonly muted: Uint8Array;
  /** Identifications of the IP headers that this host makes. */
  nextId: number;
  /** What the wire carries in one packet. */
  mtu: number;
  /** To the wire, and to the local side. */
  transmit: PacketSink;
  deliver: PacketSink;
}

/**
 * Identifications that are not 0, one after the other from a random start (RFC 6864 §4.1 asks for
 * no repeats in flight).
 */
export function nextId(core: Core): number {
  core.nextId = (core.nextId % 0xffff) + 1;
  return core.nextId;
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
  acquire?(policy: Policy, request: Request, src: Address, dst: Address, trigger: Trigger): void;
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
