import type { PacketSink } from '../wire/packet.ts';
import type { HeldPacket } from './held.ts';
import { Delivery, hold } from './held.ts';
import type { Link } from './link.ts';

/** One end of a wire inside the process. */
export interface MemoryLink extends Link {
  /**
   * Delivers to this end's handler what waits for it, and returns how many packets that were. What
   * arrives meanwhile waits for the next call, so that two ends that answer each other for ever do
   * not hang the caller.
   */
  flush(): number;
  /** Packets that wait to be delivered to this end. */
  readonly waiting: number;
}

export interface MemoryPairOptions {
  /**
   * `direct` (default): `send` delivers before it returns, unless a delivery on this wire is going
   * on already; then that one goes on with it. So a handler may be called while its own host is
   * sending. `queued`: only `flush` delivers.
   */
  readonly delivery?: 'direct' | 'queued';
  /**
   * Packets that may wait for one end; more are refused and counted at the sender. Default 1024.
   */
  readonly queueMax?: number;
  readonly names?: readonly [string, string];
}

/** Two links joined in memory: what one end sends, the other receives, as a copy. */
export function memoryPair(options: MemoryPairOptions = {}): [MemoryLink, MemoryLink] {
  const wire: Wire = { direct: options.delivery !== 'queued', delivering: false, ends: [] };
  const queueMax = options.queueMax ?? 1024;
  const names = options.names ?? ['memory-a', 'memory-b'];
  const ends = [new End(wire, names[0], queueMax), new End(wire, names[1], queueMax)] as const;
  ends[0].peer = ends[1];
  ends[1].peer = ends[0];
  wire.ends.push(...ends);
  return [ends[0], ends[1]];
}

interface Wire {
  readonly direct: boolean;
  delivering: boolean;
  readonly ends: End[];
}

class End implements MemoryLink {
  readonly name: string;
  peer: End | undefined;
  refused = 0;
  readonly #wire: Wire;
  readonly #queueMax: number;
  readonly #delivery = new Delivery();
  #queue: HeldPacket[] = [];
  #handler: PacketSink | undefined;
  #closed = false;

  constructor(wire: Wire, name: string, queueMax: number) {
    this.#wire = wire;
    this.name = name;
    this.#queueMax = queueMax;
  }

  get waiting(): number {
    return this.#queue.length;
  }

  receive(handler: PacketSink): void {
    this.#handler = handler;
    if (this.#wire.direct) deliverAll(this.#wire);
  }

  send: PacketSink = (packets, count) => {
    const peer = this.peer;
    for (let i = 0; i < count; i++) {
      if (this.#closed || !peer || peer.#closed || peer.#queue.length >= peer.#queueMax) {
        this.refused++;
      } else {
        peer.#queue.push(hold(packets[i]!));
      }
    }
    if (this.#wire.direct) deliverAll(this.#wire);
  };

  flush(): number {
    const handler = this.#handler;
    if (!handler || this.#queue.length === 0) return 0;
    const held = this.#queue;
    this.#queue = [];
    this.#delivery.deliver(held, handler);
    return held.length;
  }

  close(): void {
    this.#closed = true;
    this.#handler = undefined;
    this.#queue = [];
  }
}

/**
 * Delivers in rounds instead of by recursion: a ping-pong of any length needs no stack, and slots
 * are not overwritten.
 */
function deliverAll(wire: Wire): void {
  if (wire.delivering) return;
  wire.delivering = true;
  try {
    for (let delivered = 1; delivered > 0; ) {
      delivered = 0;
      for (const end of wire.ends) delivered += end.flush();
    }
  } finally {
    wire.delivering = false;
  }
}
