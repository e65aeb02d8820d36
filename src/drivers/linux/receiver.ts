import {
  HEADROOM,
  PACKET_LEN_MAX,
  PACKET_LEN_SMALL,
  type Packet,
  type PacketSink,
  slotLen,
} from '../../wire/packet.ts';
import { BATCH_MAX, SINGLES_MAX } from '../held.ts';
import type { Refusals } from '../refusals.ts';
import { UDP_HEADERS_LEN, UDP_PAYLOAD_MAX } from '../udp-packet.ts';
import { Batch, joinParts, type Payloads, slotsAt } from './batch.ts';
import { type Libc, MSG_CTRUNC, MSG_TRUNC } from './libc.ts';
import { MessageVector } from './messages.ts';
import { type PacketMemory, packetMemory, type Region } from './packet-memory.ts';
import { type Watch, watchPackets } from './poll.ts';
import type { Segments } from './segments.ts';
import { Spread } from './spread.ts';

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
/** Slots of a batch for each of them. */
const SPREAD_MAX = BATCH_MAX / LARGE_MESSAGES;

/**
 * Reads batches from sockets into packets. All its sockets share the memory, since only one is read
 * at a time. A usual message is read into a small slot, the rest of a large one on into a large
 * slot. When the last one was several datagrams, the next are read into the slots of theirs.
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
  /** How many messages the next read asks for. */
  #asks: number;
  readonly #spread = new Spread(UDP_PAYLOAD_MAX[6], SPREAD_MAX);
  /** Messages that are read into the batch's slots, a buffer for each. */
  readonly #spreadVector: MessageVector | undefined;
  /** Where the data of messages is that have been read and not been looked at. */
  #lies: 'in parts' | 'spread' | 'gathered' = 'in parts';
  #closed = false;

  constructor(c: Libc, refusals: Refusals, options: ReceiverOptions) {
    const { controlLen, messages = SINGLES_MAX, segments } = options;
    this.#c = c;
    this.#refusals = refusals;
    this.#memory = packetMemory(c);
    this.#vector = new MessageVector(c, { messages, buffers: 2 * messages, controlLen });
    this.#batch = new Batch(this.#memory, segments);
    this.#asks = messages;
    if (segments) {
      this.#spreadVector = new MessageVector(c, {
        messages: LARGE_MESSAGES,
        buffers: BATCH_MAX,
        controlLen,
      });
    }
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
    this.#spreadVector?.release();
    this.#batch.release();
    this.#memory.give(this.#region);
  }

  #setBuffer(i: number, at: number, len: number): void {
    this.#vector.setBuffer(i, this.#memory.address(at, len), len);
  }

  #readBatch(source: Source): void {
    if (this.#closed) return;
    const isSpread = this.#spread.isOn && this.#spreadVector !== undefined;
    const vector = isSpread ? this.#spreadVector : this.#vector;
    // Also negative for errors that ICMP messages left on the socket: reading has taken them off,
    // packets come next.
    const count = vector.receive(source.fd, Math.min(this.#asks, vector.count));
    if (count <= 0) return;
    this.#lies = isSpread ? 'spread' : 'in parts';
    let hasLarge = false;
    for (let i = 0; i < count && !this.#closed; i++) {
      hasLarge ||= vector.len(i) > PACKET_LEN_SMALL;
      const wrong = this.#take(source, vector, i, count);
      if (wrong !== undefined) this.#refusals.add(wrong);
    }
    this.#batch.handOn();
    this.#asks = hasLarge ? LARGE_MESSAGES : this.#vector.count;
    if (!hasLarge) this.#spread.forget();
  }

  #take(source: Source, vector: MessageVector, i: number, count: number): string | undefined {
    if ((vector.flags(i) & (MSG_TRUNC | MSG_CTRUNC)) !== 0) return 'too long to receive';
    const payloads = source.coalesced?.(vector, i);
    if (typeof payloads === 'string') return payloads;
    const len = vector.len(i);
    if (this.#lies === 'spread' && !this.#isAsGuessed(payloads, len)) {
      // What is dealt out now would be put where those behind it lie.
      this.#batch.handOn();
      for (let k = i; k < count; k++) this.#gather(k, vector.len(k));
      this.#lies = 'gathered';
    }
    if (payloads === undefined) {
      const packet = this.#packet(i, len);
      const wrong = source.rebuild(vector, i, packet);
      if (wrong === undefined) this.#batch.add(packet);
      return wrong;
    }
    const isSpread = this.#lies === 'spread';
    const { at } = isSpread ? this.#large[i]! : this.#packet(i, len);
    payloads.at = at;
    payloads.end = at + len;
    payloads.spread = isSpread ? this.#spread.headersLen : 0;
    payloads.slot = i * SPREAD_MAX;
    const headersLen = UDP_HEADERS_LEN[payloads.family];
    if (this.#spread.learn(headersLen, payloads.segment)) this.#arrange();
    return this.#batch.deal(payloads);
  }

  #isAsGuessed(payloads: Payloads | undefined, len: number): boolean {
    if (payloads === undefined) return len <= this.#spread.segment;
    return this.#spread.matches(UDP_HEADERS_LEN[payloads.family], payloads.segment);
  }

  /** The data of message `i` in one piece; what is spread is a single datagram. */
  #packet(i: number, len: number): Packet {
    if (this.#lies === 'gathered') return this.#large[i]!;
    const isSpread = this.#lies === 'spread';
    const small = isSpread ? this.#batch.slots[i * SPREAD_MAX]! : this.#small[i]!;
    small.reset();
    if (isSpread) small.at += this.#spread.headersLen;
    small.end = small.at + len;
    if (len <= PACKET_LEN_SMALL) return small;
    joinParts(small, this.#large[i]!, len);
    return this.#large[i]!;
  }

  /** Into the large slot of the message. */
  #gather(i: number, len: number): void {
    const large = this.#large[i]!;
    const { slots } = this.#batch;
    const first = i * SPREAD_MAX;
    const { headersLen, segment } = this.#spread;
    large.reset();
    large.end = large.at + len;
    this.#spread.gather(slots, first, slots[first]!.slotAt + HEADROOM + headersLen, segment, large);
  }

  /** As is guessed now. */
  #arrange(): void {
    const vector = this.#spreadVector;
    const { isOn, headersLen, segment, slots } = this.#spread;
    if (!isOn || vector === undefined) return;
    for (const [i, { slotAt }] of this.#batch.slots.entries()) {
      const at = slotAt + HEADROOM + headersLen;
      vector.setBuffer(i, this.#memory.address(at, segment), segment);
    }
    for (let i = 0; i < LARGE_MESSAGES; i++) vector.setBuffers(i, i * SPREAD_MAX, slots);
  }
}
