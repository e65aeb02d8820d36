import type { DropReason } from '../base/drop.ts';
import type { Sa } from '../sad/sa.ts';
import type { Policy, Request } from '../spd/policy.ts';
import type { Lookup } from '../spd/policy-index.ts';
import { Cursor } from '../wire/cursor.ts';
import type { Packet } from '../wire/packet.ts';
import type { SocketEntry, Takers } from './socket-policies.ts';

/** The deepest bundle, and the most IPsec headers opened on one packet. */
export const LAYERS_MAX = 8;
/**
 * Packets taken through the stages together: what four large packets of the kernel are cut into.
 * More does not fit into a core's own cache.
 */
export const BATCH_MAX = 192;

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
  /**
   * Packets of the batch that go as this one, without flights of their own; itself among them, and
   * its place in the batch.
   */
  rowLen = 1;
  index = 0;
  /** The packet is from the host's own arena, and goes back there. */
  owned = false;
  /** Still on its way. */
  active = false;
  /** Coming in: no more layers for us; and, within a round, a layer is being opened with `sa`. */
  finished = false;
  opening = false;
  sa: Sa | undefined;
  /**
   * Coming in, of a leader: what need not be found out again about its followers, if theirs is like
   * it: nothing; or what becomes of the layer, which is a tunnel; or of the packet in it, too.
   */
  lead: 'nothing' | 'layer' | 'packet' = 'nothing';
  /**
   * Its header's traffic class, and `ipv4.sumInCommon` of that of what was in it; from where its
   * packet began, where ESP begins and how long that is, and where its text and trailer begin.
   */
  outerTos = 0;
  innerSum = 0;
  jobBy = 0;
  jobLen = 0;
  textBy = 0;
  trailerBy = 0;
  /** Coming in: the policy has nothing against it, and it still is where it was. */
  passed = false;

  // The job of the current layer, between its preparation and its completion.
  jobAt = 0;
  jobEnd = 0;
  seq = 0;
  jobOk = false;
  /** The numbers of its ESP jobs in their provider's queue, one for each packet of the row. */
  job = 0;
  /** How many of them; none: they were done at once. */
  jobs = 0;
  /** Going out: octets of what the layer protects. */
  payloadLen = 0;
  /** Coming in: what the layer held, and the protocol of that. */
  payloadAt = 0;
  payloadEnd = 0;
  next = 0;
  /** Coming in: by how much the checksum was wrong, in one's complement; -1: nobody looked. */
  checksumBy = -1;
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
    this.rowLen = 1;
    this.owned = owned;
    this.active = true;
    this.finished = false;
    this.opening = false;
    this.sa = undefined;
    this.passed = false;
    this.checksumBy = -1;
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

/** The SAs that a packet came through, as a key. */
export function usedSas(flight: Flight): string {
  let key = '';
  for (let i = 0; i < flight.layerCount; i++) key += ` ${flight.layers[i]!.sa.serial}`;
  return key;
}
