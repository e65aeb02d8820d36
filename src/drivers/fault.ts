import type { Random } from '../base/env.ts';
import type { PacketSink } from '../wire/packet.ts';
import type { HeldPacket } from './held.ts';
import { Delivery, hold } from './held.ts';
import type { Link } from './link.ts';

/** How hostile the network is: each a probability from 0 to 1, per packet sent. */
export interface Faults {
  readonly loss?: number;
  readonly duplicate?: number;
  /** Held back until up to `REORDER_MAX` later packets have passed. */
  readonly reorder?: number;
  /** One bit is flipped. */
  readonly corrupt?: number;
  /** Cut at a random length, at least one octet shorter. */
  readonly truncate?: number;
}

/** What happened so far, in packets. */
export interface FaultCounts {
  lost: number;
  duplicated: number;
  reordered: number;
  corrupted: number;
  truncated: number;
}

export interface FaultLink extends Link {
  readonly counts: Readonly<FaultCounts>;
  /** From now on the network is like this; what was held back goes out. `{}` heals it. */
  setFaults(faults: Faults): void;
}

/** How many later packets a held-back packet lets pass, at most. */
export const REORDER_MAX = 16;

/** A link whose outgoing packets suffer. Wrap both ends for faults in both directions. */
export function faultLink(inner: Link, random: Random, faults: Faults = {}): FaultLink {
  return new Faulty(inner, random, faults);
}

class Faulty implements FaultLink {
  readonly counts: FaultCounts = {
    lost: 0,
    duplicated: 0,
    reordered: 0,
    corrupted: 0,
    truncated: 0,
  };
  readonly #inner: Link;
  readonly #random: Random;
  readonly #delivery = new Delivery();
  #faults: Faults;
  #late: { packet: HeldPacket; after: number }[] = [];
  readonly #word = new Uint8Array(4);

  constructor(inner: Link, random: Random, faults: Faults) {
    this.#inner = inner;
    this.#random = random;
    this.#faults = faults;
  }

  get name(): string {
    return this.#inner.name;
  }

  get refused(): number {
    return this.#inner.refused;
  }

  receive(handler: PacketSink): void {
    this.#inner.receive(handler);
  }

  send: PacketSink = (packets, count) => {
    const out: HeldPacket[] = [];
    for (let i = 0; i < count; i++) this.#pass(hold(packets[i]!), out);
    this.#delivery.deliver(out, this.#inner.send);
  };

  setFaults(faults: Faults): void {
    this.#faults = faults;
    const late = this.#late.map((held) => held.packet);
    this.#late = [];
    this.#delivery.deliver(late, this.#inner.send);
  }

  close(): void {
    this.#late = [];
    this.#inner.close();
  }

  #pass(packet: HeldPacket, out: HeldPacket[]): void {
    const { loss = 0, duplicate = 0, reorder = 0 } = this.#faults;
    if (this.#happens(loss)) {
      this.counts.lost++;
    } else {
      const copies = this.#happens(duplicate) ? 2 : 1;
      this.counts.duplicated += copies - 1;
      for (let i = 0; i < copies; i++) {
        const damaged = this.#damage(packet);
        if (this.#happens(reorder)) {
          this.counts.reordered++;
          this.#late.push({ packet: damaged, after: 1 + this.#below(REORDER_MAX) });
        } else {
          out.push(damaged);
        }
      }
    }
    this.#release(out);
  }

  /**
   * Every packet that passes, lost or not, brings those held back nearer to their turn: their
   * number stays bounded.
   */
  #release(out: HeldPacket[]): void {
    const still = [];
    for (const held of this.#late) {
      if (held.after === 0) out.push(held.packet);
      else still.push({ packet: held.packet, after: held.after - 1 });
    }
    this.#late = still;
  }

  #damage(packet: HeldPacket): HeldPacket {
    const { corrupt = 0, truncate = 0 } = this.#faults;
    let octets = packet.octets;
    if (octets.length > 0 && this.#happens(corrupt)) {
      this.counts.corrupted++;
      octets = octets.slice();
      const bit = this.#below(octets.length * 8);
      octets[bit >> 3] = octets[bit >> 3]! ^ (1 << (bit & 7));
    }
    if (octets.length > 0 && this.#happens(truncate)) {
      this.counts.truncated++;
      octets = octets.slice(0, this.#below(octets.length));
    }
    return { ...packet, octets };
  }

  #happens(probability: number): boolean {
    return probability > 0 && this.#below(2 ** 32) < probability * 2 ** 32;
  }

  /**
   * A random integer from 0 to `bound` - 1. The bias of a multiplication by 2^32 does not matter
   * here.
   */
  #below(bound: number): number {
    this.#random.fill(this.#word);
    const [a, b, c, d] = this.#word;
    const value = ((a! << 24) | (b! << 16) | (c! << 8) | d!) >>> 0;
    return Math.floor((value / 2 ** 32) * bound);
  }
}
