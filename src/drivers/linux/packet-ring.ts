import { copy } from '../../wire/bytes.ts';
import { Packet } from '../../wire/packet.ts';
import type { PacketMemory, Region } from './packet-memory.ts';

/**
 * Copies of packets in the order in which they came, one behind the other in a part of the packet
 * memory: bounded in number and octets. They have no room around them, since they are only sent.
 */
export class PacketRing {
  readonly #memory: PacketMemory;
  readonly #region: Region;
  readonly #packetsMax: number;
  /** Of all places that were in use so far; the first packet is at `#first`. */
  readonly #places: Packet[] = [];
  #first = 0;
  #count = 0;
  /** Where the next packet goes, if it fits before the end of the region. */
  #next: number;

  constructor(memory: PacketMemory, packetsMax: number, octetsMax: number) {
    this.#memory = memory;
    this.#packetsMax = packetsMax;
    this.#region = memory.take(octetsMax);
    this.#next = this.#region.at;
  }

  get count(): number {
    return this.#count;
  }

  /** Puts a copy behind the others; false when there is no room for it. */
  push(packet: Packet): boolean {
    const { len } = packet;
    const at = this.#count === this.#packetsMax ? -1 : this.#placeFor(len);
    if (at < 0) return false;
    const i = (this.#first + this.#count) % this.#packetsMax;
    const { at: from, end } = this.#region;
    this.#places[i] ??= new Packet(this.#memory.bytes, from, end);
    const place = this.#places[i];
    copy(packet.bytes, packet.at, this.#memory.bytes, at, len);
    place.at = at;
    place.end = at + len;
    this.#next = place.end;
    this.#count++;
    return true;
  }

  /** The first packets, `max` at most, in `into`; returns how many they are. They stay. */
  peek(into: Packet[], max: number): number {
    const count = Math.min(max, this.#count);
    for (let i = 0; i < count; i++) {
      into[i] = this.#places[(this.#first + i) % this.#packetsMax]!;
    }
    return count;
  }

  /** Forgets the first packets. */
  drop(count: number): void {
    this.#first = (this.#first + count) % this.#packetsMax;
    this.#count -= count;
    if (this.#count > 0) return;
    this.#first = 0;
    this.#next = this.#region.at;
  }

  release(): void {
    this.#memory.give(this.#region);
  }

  /** A packet is in one piece: one that does not fit at the end goes to the beginning. */
  #placeFor(len: number): number {
    const { at, end } = this.#region;
    const next = this.#next;
    const first = this.#count === 0 ? at : this.#places[this.#first]!.at;
    if (this.#count > 0 && next <= first) return next + len <= first ? next : -1;
    if (next + len <= end) return next;
    return at + len <= first ? at : -1;
  }
}
