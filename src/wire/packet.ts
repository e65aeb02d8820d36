import { assert } from '../base/assert.ts';
import { viewOf } from './bytes.ts';

/**
 * Room in front of a packet for the headers of the deepest bundle: eight tunnels of IPv6 (40) and
 * AH (48 at most).
 */
export const HEADROOM = 768;
/** Room behind it for padding, trailers and ICVs of a whole bundle. */
export const TAILROOM = 512;
/** The longest IP packet that is not a jumbogram: an IPv6 header and 65,535 octets. */
export const PACKET_LEN_MAX = 40 + 65_535;
/**
 * The longest IP packet of the usual wires, with something to spare: what a slot is made for where
 * most packets are such, because slots close together need few pages of the processor's tables.
 */
export const PACKET_LEN_SMALL = 1600;

/**
 * Octets of a slot for packets of up to `room` octets. A multiple of 64, so that every slot begins
 * on a cache line; an odd one, so that slots do not share cache sets.
 */
export function slotLen(room: number): number {
  const lines = Math.ceil((HEADROOM + room + TAILROOM) / 64);
  return 64 * (lines | 1);
}

/**
 * One IP packet: octets `at` to `end` of a slot of one arena. Headers are written in front, in
 * place. Whoever is handed a packet borrows it until it returns, and copies what it keeps.
 */
export class Packet {
  readonly bytes: Uint8Array;
  /** Of the same octets: see `viewOf`. */
  readonly view: DataView;
  readonly slotAt: number;
  readonly slotEnd: number;
  at: number;
  end: number;
  /**
   * In a batch: this packet has the same length as the one before it, and the same headers but for
   * what counts up and checksums, as packets have that were cut from one large one. What was
   * decided for that one holds for this.
   */
  follows = false;
  /** Not 0: the packet was put together from fragments, the largest of which had so many octets. */
  fragmentMax = 0;
  /** How often one shard of a host has passed it to another. */
  passes = 0;

  constructor(bytes: Uint8Array, slotAt: number, slotEnd: number) {
    this.bytes = bytes;
    this.view = viewOf(bytes);
    this.slotAt = slotAt;
    this.slotEnd = slotEnd;
    this.at = slotAt + HEADROOM;
    this.end = this.at;
  }

  get len(): number {
    return this.end - this.at;
  }

  /** Octets of the longest packet that fits behind the headroom. */
  get room(): number {
    return this.slotEnd - TAILROOM - HEADROOM - this.slotAt;
  }

  /** Back to an empty packet with its full headroom. */
  reset(): void {
    this.at = this.slotAt + HEADROOM;
    this.end = this.at;
    this.follows = false;
    this.fragmentMax = 0;
    this.passes = 0;
  }

  /** Fills the packet with a copy. The octets must fit behind the headroom. */
  load(from: Uint8Array, fromAt = 0, fromEnd = from.length): void {
    assert(fromEnd - fromAt <= this.room, 'packet fits its slot');
    this.reset();
    this.bytes.set(
      fromAt === 0 && fromEnd === from.length ? from : from.subarray(fromAt, fromEnd),
      this.at,
    );
    this.end = this.at + (fromEnd - fromAt);
  }

  /** A copy of the octets, for whoever keeps them. */
  copy(): Uint8Array {
    return this.bytes.slice(this.at, this.end);
  }
}

/** Where batches of packets go: borrowed until it returns. Only the first `count` packets count. */
export type PacketSink = (packets: readonly Packet[], count: number) => void;

export interface ArenaOptions {
  /** Octets of the longest packet. Default `PACKET_LEN_MAX`. */
  readonly room?: number;
  /** Where the slots lie, if not in memory of their own: from `at` on, `slots * slotLen(room)`. */
  readonly memory?: { readonly bytes: Uint8Array; readonly at: number };
}

/**
 * A fixed number of packet slots in one piece of memory, so that nothing is allocated per packet.
 */
export class PacketArena {
  readonly bytes: Uint8Array;
  readonly #free: Packet[] = [];

  constructor(slots: number, options: ArenaOptions = {}) {
    const len = slotLen(options.room ?? PACKET_LEN_MAX);
    const { bytes, at } = options.memory ?? { bytes: new Uint8Array(slots * len), at: 0 };
    assert(at >= 0 && at + slots * len <= bytes.length, 'slots lie in their memory');
    this.bytes = bytes;
    for (let i = slots - 1; i >= 0; i--) {
      this.#free.push(new Packet(bytes, at + i * len, at + (i + 1) * len));
    }
  }

  get available(): number {
    return this.#free.length;
  }

  /** An empty packet, or undefined when all are in use: the caller drops and counts. */
  take(): Packet | undefined {
    const packet = this.#free.pop();
    packet?.reset();
    return packet;
  }

  give(packet: Packet): void {
    assert(packet.bytes === this.bytes, 'packet belongs to this arena');
    this.#free.push(packet);
  }
}

/** A packet of its own, outside any arena: for tests, tools and rare paths. */
export function packetFrom(octets: Uint8Array): Packet {
  const len = slotLen(Math.max(octets.length, PACKET_LEN_SMALL));
  const packet = new Packet(new Uint8Array(len), 0, len);
  packet.load(octets);
  return packet;
}
