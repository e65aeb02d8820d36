import {
  HEADROOM,
  PACKET_LEN_MAX,
  PACKET_LEN_SMALL,
  type Packet,
  type PacketSink,
  slotLen,
} from '../../wire/packet.ts';
import { SINGLES_MAX } from '../held.ts';
import type { Refusals } from '../refusals.ts';
import { Batch, joinParts, type Payloads, slotsAt } from './batch.ts';
import { type Libc, MSG_CTRUNC, MSG_DONTWAIT, MSG_TRUNC } from './libc.ts';
import { MessageVector } from './messages.ts';
import { type PacketMemory, packetMemory, type Region } from './packet-memory.ts';
import { type Watch, watchPackets } from './poll.ts';
import type { Segments } from './segments.ts';

/** A socket that is read, and how its messages become packets. */
export interface Source {
  readonly fd: number;
  /**
   * Makes a whole IP packet of message `i`: the data of the message is in `packet` already. Returns
   * a reason for people when that cannot be done.
   */
  readonly rebuild: (vector: MessageVector, i: number, packet: Packet) => string | undefined;
  /**
   * When message `i` is several datagrams in a row: how large they are and what header they get;
   * where they are is filled in by the receiver. Undefined when it is not.
   */
  readonly coalesced?: (vector: MessageVector, i: number) => Payloads | string | undefined;
}

export interface ReceiverOptions {
  /** Octets of control data of each message. */
  readonly controlLen: number;
  /** Messages that are read at once; 64 at most, which is the default. */
  readonly messages?: number;
  /** For sources with coalesced messages. */
  readonly segments?: Segments | undefined;
}

/**
 * Large messages that are read at once: what is read should still be in the cache when it is worked
 * on.
 */
const LARGE_MESSAGES = 4;

/**
 * Reads batches from sockets into packets. All its sockets share the memory, since only one is read
 * at a time. A usual message is read into a small slot, the rest of a large one on into a large
 * slot.
 */
export class Receiver {
  readonly #c: Libc;
  readonly #memory: PacketMemory;
  readonly #vector: MessageVector;
  readonly #region: Region;
  readonly #small: readonly Packet[];
  readonly #large: readonly Packet[];
  readonly #batch: Batch;
  readonly #sources: Source[] = [];
  readonly #watches: Watch[] = [];
  readonly #refusals: Refusals;
  /** How many messages the next read asks for, and how many the last one filled. */
  #asks: number;
  #filled: number;
  #closed = false;

  constructor(c: Libc, refusals: Refusals, options: ReceiverOptions) {
    const { controlLen, messages = SINGLES_MAX, segments } = options;
    this.#c = c;
    this.#refusals = refusals;
    this.#memory = packetMemory(c);
    this.#vector = new MessageVector(c, { messages, buffers: 2 * messages, controlLen });
    this.#batch = new Batch(this.#memory, segments);
    this.#asks = messages;
    this.#filled = messages;
    const smallLen = messages * slotLen(PACKET_LEN_SMALL);
    this.#region = this.#memory.take(smallLen + messages * slotLen(PACKET_LEN_MAX));
    const { at } = this.#region;
    this.#small = slotsAt(this.#memory, at, messages, PACKET_LEN_SMALL);
    this.#large = slotsAt(this.#memory, at + smallLen, messages, PACKET_LEN_MAX);
    for (let i = 0; i < messages; i++) {
      const smallAt = this.#small[i]!.slotAt + HEADROOM;
      const restAt = this.#large[i]!.slotAt + HEADROOM + PACKET_LEN_SMALL;
      this.#setBuffer(2 * i, smallAt, PACKET_LEN_SMALL);
      this.#setBuffer(2 * i + 1, restAt, PACKET_LEN_MAX - PACKET_LEN_SMALL);
      this.#vector.setBuffers(i, 2 * i, 2);
    }
  }

  /** Takes a socket over: it is read once there is a handler, and closed with the receiver. */
  add(source: Source): void {
    this.#sources.push(source);
  }

  receive(handler: PacketSink): void {
    this.#batch.sink = handler;
    if (this.#closed || this.#watches.length > 0) return;
    for (const source of this.#sources) {
      this.#watches.push(watchPackets(this.#c, source.fd, () => this.#readBatch(source)));
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const each of this.#watches) each.close();
    for (const { fd } of this.#sources) this.#c.close(fd);
    this.#vector.release();
    this.#batch.release();
    this.#memory.give(this.#region);
  }

  #setBuffer(i: number, at: number, len: number): void {
    this.#vector.setBuffer(i, this.#memory.address(at, len), len);
  }

  #readBatch(source: Source): void {
    if (this.#closed) return;
    const vector = this.#vector;
    vector.prepareReceive(this.#filled);
    this.#filled = 1;
    const count = this.#c.recvmmsg(source.fd, vector.base, this.#asks, MSG_DONTWAIT, 0);
    // Also negative for errors that ICMP messages left on the socket: reading has taken them off,
    // packets come next.
    if (count <= 0) return;
    this.#filled = count;
    let hasLarge = false;
    for (let i = 0; i < count && !this.#closed; i++) {
      hasLarge ||= vector.len(i) > PACKET_LEN_SMALL;
      const wrong = this.#take(source, i);
      if (wrong !== undefined) this.#refusals.add(wrong);
    }
    this.#batch.handOn();
    this.#asks = hasLarge ? Math.min(LARGE_MESSAGES, vector.count) : vector.count;
  }

  #take(source: Source, i: number): string | undefined {
    const vector = this.#vector;
    if ((vector.flags(i) & (MSG_TRUNC | MSG_CTRUNC)) !== 0) return 'too long to receive';
    const packet = this.#packet(i, vector.len(i));
    const payloads = source.coalesced?.(vector, i);
    if (typeof payloads === 'string') return payloads;
    if (payloads !== undefined) {
      payloads.at = packet.at;
      payloads.end = packet.end;
      return this.#batch.deal(payloads);
    }
    const wrong = source.rebuild(vector, i, packet);
    if (wrong === undefined) this.#batch.add(packet);
    return wrong;
  }

  /** The data of message `i` in one piece. */
  #packet(i: number, len: number): Packet {
    const small = this.#small[i]!;
    small.reset();
    small.end = small.at + len;
    if (len <= PACKET_LEN_SMALL) return small;
    const large = this.#large[i]!;
    joinParts(small, large, len);
    return large;
  }
}
