import { assert } from '../base/assert.ts';

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
 * A multiple of 64, so that every slot begins on a cache line; not of 4096, so that slots do not
 * share cache sets.
 */
const SLOT_LEN = 64 * Math.ceil((HEADROOM + PACKET_LEN_MAX + TAILROOM) / 64) + 64;

/**
 * One IP packet: octets `at` to `end` of a slot of one arena. Headers are written in front, in
 * place. Whoever is handed a packet borrows it until it returns, and copies what it keeps.
 */
export class Packet {
  readonly bytes: Uint8Array;
  readonly slotAt: number;
  readonly slotEnd: number;
  at: number;
  end: number;
  /** Not 0: the payload is a TCP or UDP stream to be cut into segments of this many octets. */
  segmentLen = 0;
  /** Not 0: where the transport header begins whose checksum is still to be computed. */
  checksumStart = 0;
  /** Not 0: the packet was put together from fragments, the largest of which had so many octets. */
  fragmentMax = 0;

  constructor(bytes: Uint8Array, slotAt: number, slotEnd: number) {
    this.bytes = bytes;
    this.slotAt = slotAt;
    this.slotEnd = slotEnd;
    this.at = slotAt + HEADROOM;
    this.end = this.at;
  }

  get len(): number {
    return this.end - this.at;
  }

  /** Back to an empty packet with its full headroom. */
  reset(): void {
    this.at = this.slotAt + HEADROOM;
    this.end = this.at;
    this.segmentLen = 0;
    this.checksumStart = 0;
    this.fragmentMax = 0;
  }

  /** Fills the packet with a copy. The octets must fit behind the headroom. */
  load(from: Uint8Array, fromAt = 0, fromEnd = from.length): void {
    assert(fromEnd - fromAt <= PACKET_LEN_MAX, 'packet fits its slot');
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

/**
 * A fixed number of packet slots in one piece of memory, so that nothing is allocated per packet.
 */
export class PacketArena {
  readonly bytes: Uint8Array;
  readonly #free: Packet[] = [];

  constructor(slots: number) {
    this.bytes = new Uint8Array(slots * SLOT_LEN);
    for (let i = slots - 1; i >= 0; i--) {
      this.#free.push(new Packet(this.bytes, i * SLOT_LEN, (i + 1) * SLOT_LEN));
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
  const packet = new Packet(new Uint8Array(SLOT_LEN), 0, SLOT_LEN);
  packet.load(octets);
  return packet;
}
