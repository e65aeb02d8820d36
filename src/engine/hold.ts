import type { Packet } from '../wire/packet.ts';
import type { SocketEntry } from './socket-policies.ts';

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
  /** Whose policy it goes by. */
  readonly socket: SocketEntry | undefined;
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
  #retriedDueMs: number | undefined;

  constructor(options: HoldOptions) {
    this.#options = options;
    this.#packetsMax = options.packetsMax ?? 64;
    this.#octetsMax = options.octetsMax ?? 262_144;
  }

  get size(): number {
    return this.#waiting.length;
  }

  /** Keeps a copy. A packet that is being tried again does not get more time than it had. */
  add(packet: Packet, nowMs: number, socket?: SocketEntry): void {
    const octets = packet.copy();
    const dueMs = this.#retriedDueMs ?? nowMs + (this.#options.timeoutMs ?? 30_000);
    this.#waiting.push({ octets, dueMs, socket });
    this.#octets += octets.length;
    while (this.#waiting.length > this.#packetsMax || this.#octets > this.#octetsMax) {
      this.#giveUpOldest();
    }
  }

  /** Hands out everything that waits; what cannot go yet is added again meanwhile. */
  retryAll(send: (octets: Uint8Array, socket: SocketEntry | undefined) => void): void {
    const all = this.#waiting;
    this.#waiting = [];
    this.#octets = 0;
    for (const { octets, dueMs, socket } of all) {
      this.#retriedDueMs = dueMs;
      send(octets, socket);
    }
    this.#retriedDueMs = undefined;
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
