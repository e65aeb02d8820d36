import type { Packet } from '../wire/packet.ts';
import type { Core } from './core.ts';
import type { Takers } from './socket-policies.ts';

/** Collects a batch for sockets of the table, as `Transmitter` does for everybody else. */
export class SocketDelivery {
  readonly #core: Core;
  readonly #packets: Packet[] = [];
  readonly #takers: Takers[] = [];
  readonly #owned: Packet[] = [];

  constructor(core: Core) {
    this.#core = core;
  }

  /** `owned`: the packet is from the host's arena, and is given back after it was delivered. */
  add(packet: Packet, owned: boolean, takers: Takers): void {
    this.#packets.push(packet);
    this.#takers.push(takers);
    if (owned) this.#owned.push(packet);
  }

  flush(): void {
    const count = this.#packets.length;
    if (count === 0) return;
    const { deliver, deliverToSockets } = this.#core;
    if (deliverToSockets) deliverToSockets(this.#packets, count, this.#takers);
    else deliver(this.#packets, count);
    for (const packet of this.#owned) this.#core.arena.give(packet);
    this.#packets.length = 0;
    this.#takers.length = 0;
    this.#owned.length = 0;
  }
}
