import type { DropReason } from '../base/drop.ts';
import { u8 } from '../wire/bytes.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import type { Packet } from '../wire/packet.ts';
import type { Core } from './core.ts';
import { fragment, fragmentId } from './fragment.ts';

/** Collects a batch for one side, in order, and cuts what is longer than its path carries. */
export class Transmitter {
  readonly #core: Core;
  readonly #side: 'wire' | 'local';
  // As long as they ever had to be: an array that is emptied gives its room back.
  readonly #packets: Packet[] = [];
  readonly #owned: Packet[] = [];
  #packetCount = 0;
  #ownedCount = 0;
  readonly #cursor = new Cursor();

  constructor(core: Core, side: 'wire' | 'local') {
    this.#core = core;
    this.#side = side;
  }

  /**
   * `owned`: the packet is from the host's arena, and is given back after it was sent. A reason: it
   * cannot be sent, and still is the caller's. `mtu`: what its path carries, which may be less than
   * the wire does.
   */
  add(packet: Packet, owned: boolean, mtu = this.#core.mtu): DropReason | undefined {
    if (packet.len > mtu) {
      const bad = this.#addFragments(packet, mtu);
      if (bad === undefined && owned) this.#core.arena.give(packet);
      return bad;
    }
    this.#put(packet, owned);
    return undefined;
  }

  /** Packets that are not owned, and no longer than their path carries. */
  addAll(packets: readonly Packet[], from: number, to: number): void {
    const own = this.#packets;
    let count = this.#packetCount;
    for (let i = from; i < to; i++) own[count++] = packets[i]!;
    this.#packetCount = count;
  }

  flush(): void {
    const send = this.#side === 'wire' ? this.#core.transmit : this.#core.deliver;
    if (this.#packetCount > 0) send(this.#packets, this.#packetCount);
    this.#clear();
  }

  #put(packet: Packet, owned: boolean): void {
    this.#packets[this.#packetCount++] = packet;
    if (owned) this.#owned[this.#ownedCount++] = packet;
  }

  #clear(): void {
    for (let i = 0; i < this.#ownedCount; i++) this.#core.arena.give(this.#owned[i]!);
    this.#packetCount = 0;
    this.#ownedCount = 0;
  }

  #addFragments(packet: Packet, mtu: number): DropReason | undefined {
    const core = this.#core;
    // The fragments need room, and must not overtake what was added before.
    this.flush();
    const bad = this.#cut(packet, mtu);
    if (bad === undefined) {
      if (this.#side === 'wire') {
        const counters = core.stats.of(packet);
        counters.fragmented++;
        counters.fragmentsMade += this.#packetCount;
      }
      this.flush();
      return undefined;
    }
    // A part of a datagram is of no use to anybody.
    this.#clear();
    return bad;
  }

  #cut(packet: Packet, mtu: number): DropReason | undefined {
    const core = this.#core;
    const bad = decode(packet.bytes, packet.at, packet.end, this.#cursor);
    if (bad !== undefined) return bad;
    return fragment(
      packet,
      this.#cursor,
      mtu,
      fragmentId(core.env.random),
      () => core.arena.take(),
      (piece) => this.#put(piece, true),
    );
  }
}

/**
 * A datagram that came in fragments fits where these fit. IPv4 routers cut it again by themselves;
 * IPv6 routers must not, so what may have to be forwarded goes on as it came.
 */
export function deliveredMtu(core: Core, packet: Packet): number {
  const isIpv6 = u8(packet.bytes, packet.at) >>> 4 === 6;
  return core.forwards && isIpv6 && packet.fragmentMax > 0
    ? packet.fragmentMax
    : Number.POSITIVE_INFINITY;
}
