import type { Packet, PacketSink } from '../wire/packet.ts';
import { PacketArena } from '../wire/packet.ts';

/**
 * A copy of a packet that outlives the call it came with: the octets alone, without the room around
 * them.
 */
export interface HeldPacket {
  readonly octets: Uint8Array;
}

export function hold(packet: Packet): HeldPacket {
  return { octets: packet.copy() };
}

/** How many packets a link to the kernel hands over at once: as many as the engine takes. */
export const BATCH_MAX = 192;
/** How many it takes from the kernel one by one, before it is the turn of others. */
export const SINGLES_MAX = 64;
/** In memory there is no system call to save, and a simulation has many links: 1 MB each. */
const DELIVERY_MAX = 16;

/**
 * Hands held packets over in batches, in slots of its own that are used again for each batch. Not
 * reentrant: whoever is called must not make it deliver again.
 */
export class Delivery {
  readonly #packets: Packet[] = [];

  constructor() {
    const arena = new PacketArena(DELIVERY_MAX);
    for (let i = 0; i < DELIVERY_MAX; i++) this.#packets.push(arena.take()!);
  }

  deliver(held: readonly HeldPacket[], sink: PacketSink): void {
    for (let from = 0; from < held.length; from += this.#packets.length) {
      const count = Math.min(this.#packets.length, held.length - from);
      for (let i = 0; i < count; i++) this.#packets[i]!.load(held[from + i]!.octets);
      sink(this.#packets, count);
    }
  }
}
