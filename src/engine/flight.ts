import type { DropReason } from '../base/drop.ts';
import type { Sa } from '../sad/sa.ts';
import type { Policy, Request } from '../spd/policy.ts';
import type { Lookup } from '../spd/policy-index.ts';
import { Cursor } from '../wire/cursor.ts';
import type { Packet } from '../wire/packet.ts';
import type { SocketEntry, Takers } from './socket-policies.ts';

/** The deepest bundle, and the most IPsec headers opened on one packet. */
export const LAYERS_MAX = 8;
/** Packets taken through the stages together. */
export const BATCH_MAX = 64;

/** One layer of protection: which SA, and whether it wraps the whole packet in a tunnel header. */
export interface Layer {
  sa: Sa;
  tunnel: boolean;
  /** Coming in, transport mode: the packet has another source than its SA. */
  foreign: boolean;
}

/** A request that no SA is there for. */
export interface Lack {
  readonly request: Request;
  readonly outer: Sa | undefined;
}

/**
 * One packet on its way through the stages of `output` or `input`. Flights are made once and used
 * again for every batch.
 */
export class Flight {
  packet!: Packet;
  readonly cursor = new Cursor();
  policy: Policy | undefined;
  /** Going out: its policy by a look ahead, and the generation of the policies then. */
  foreseen: Lookup | undefined;
  foreseenIn = 0;
  /** Going out: the socket of the table that sent it, if one did. */
  socket: SocketEntry | undefined;
  /** Coming in: the sockets of the table that it is for, if it is. */
  takers: Takers | undefined;
  /**
   * Going out: the layers to apply, innermost first. Coming in: those taken off, outermost first.
   */
  readonly layers: (Layer | undefined)[] = new Array(LAYERS_MAX).fill(undefined);
  layerCount = 0;
  /** Going out: requests without an SA, and the tunnel that they would go around. */
  readonly lacks: Lack[] = [];
  /**
   * Going out: what the path carries, and the number of layers that a packet on it has (all, unless
   * an outer tunnel goes around it later).
   */
  mtu = 0;
  mtuLayers = 0;
  /** Going out: whether the packet, with the layers that are on, is to stay whole. */
  df = false;
  drop: DropReason | undefined;
  /** Going out: the packet is to be cut, and its pieces go this way in its place. */
  cut = false;
  /** The packet is from the host's own arena, and goes back there. */
  owned = false;
  /** Still on its way. */
  active = false;
  /** Coming in: no more layers for us; and, within a round, a layer is being opened with `sa`. */
  finished = false;
  opening = false;
  sa: Sa | undefined;
  /** Coming in: the policy has nothing against it, and it still is where it was. */
  passed = false;

  // The job of the current layer, between its preparation and its completion.
  jobAt = 0;
  jobEnd = 0;
  seq = 0;
  jobOk = false;
  /** The number of an ESP job in its provider's queue; -1: it was done at once. */
  job = -1;
  /** Going out: octets of what the layer protects. */
  payloadLen = 0;
  /** Coming in: what the layer held, and the protocol of that. */
  payloadAt = 0;
  payloadEnd = 0;
  next = 0;
  /** Coming in, ESP in UDP: the ports of the outer datagram; 0 otherwise. */
  udpSport = 0;
  udpDport = 0;

  begin(packet: Packet, owned: boolean): void {
    this.packet = packet;
    this.policy = undefined;
    this.foreseen = undefined;
    this.socket = undefined;
    this.takers = undefined;
    this.layerCount = 0;
    if (this.lacks.length > 0) this.lacks.length = 0;
    this.drop = undefined;
    this.cut = false;
    this.owned = owned;
    this.active = true;
    this.finished = false;
    this.opening = false;
    this.sa = undefined;
    this.passed = false;
    this.udpSport = 0;
    this.udpDport = 0;
  }

  lack(request: Request, outer: Sa | undefined): void {
    this.lacks.push({ request, outer });
  }

  push(sa: Sa, tunnel: boolean, foreign = false): boolean {
    if (this.layerCount === LAYERS_MAX) return false;
    const layer = this.layers[this.layerCount];
    if (layer === undefined) {
      this.layers[this.layerCount] = { sa, tunnel, foreign };
    } else {
      layer.sa = sa;
      layer.tunnel = tunnel;
      layer.foreign = foreign;
    }
    this.layerCount++;
    return true;
  }
}
