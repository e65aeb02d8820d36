import type { Packet } from '../wire/packet.ts';

export interface HoldOptions {
  /** Packets that wait; the oldest makes room for a new one. 64. */
  readonly packetsMax?: number;
  /** Octets that they take together. 256 KiB. */
  readonly octetsMax?: number;
  /** How long a packet waits: as long as a key exchange may take. 30 s. */
  readonly timeoutMs?: number;
  /** A packet was given up. */
  readonly dropped: (packet: Uint8Array) => void;
}

interface Waiting {
  readonly octets: Uint8Array;
  readonly dueMs: number;
}

/**
 * Packets that a policy demands an SA for which somebody is negotiating. They go through `output`
 * again when an SA has come, in the order in which they were sent.
 */
export class Hold {
  readonly #options: HoldOptions;
  readonly #packetsMax: number;
  readonly #octetsMax: number;
  #waiting: Waiting[] = [];
  #octets = 0;

  constructor(options: HoldOptions) {
    this.#options = options;
    this.#packetsMax = options.packetsMax ?? 64;
    this.#octetsMax = options.octetsMax ?? 262_144;
  }

  get size(): number {
    return this.#waiting.length;
  }

  /** Keeps a copy. */
  add(packet: Packet, nowMs: number): void {
    const octets = packet.copy();
    this.#waiting.push({ octets, dueMs: nowMs + (this.#options.timeoutMs ?? 30_000) });
    this.#octets += octets.length;
    while (this.#waiting.length > this.#packetsMax || this.#octets > this.#octetsMax) {
      this.#giveUpOldest();
    }
  }

  /** Everything that waits, which then does not wait any more. */
  takeAll(): Uint8Array[] {
    const all = this.#waiting.map(({ octets }) => octets);
    this.#waiting = [];
    this.#octets = 0;
    return all;
  }

  /** Gives up what waited too long; returns when that is next due. */
  poll(nowMs: number): number {
    for (let first = this.#waiting[0]; first; first = this.#waiting[0]) {
      if (first.dueMs > nowMs) return first.dueMs;
      this.#giveUpOldest();
    }
    return Number.POSITIVE_INFINITY;
  }

  #giveUpOldest(): void {
    const { octets } = this.#waiting.shift()!;
    this.#octets -= octets.length;
    this.#options.dropped(octets);
  }
}
