import type { Family } from '../../base/address.ts';
import {
  PACKET_LEN_MAX,
  PACKET_LEN_SMALL,
  type Packet,
  PacketArena,
  type PacketSink,
  slotLen,
} from '../../wire/packet.ts';
import { BATCH_MAX } from '../held.ts';
import type { PacketMemory, Region } from './packet-memory.ts';
import { CUT, DEAL, FAILURE, type Segments } from './segments.ts';

/** Slots for segments that are larger than the usual wire carries: jumbo frames. */
const BIG_SLOTS = 8;

/** Slots of one size, and their places as the byte loops want them. */
interface Shelf {
  readonly slots: readonly Packet[];
  readonly room: number;
  /** Pairs of words: the place of a slot, and how long what was put there is. */
  readonly placesWord: number;
}

/** A large packet that is to be cut into segments of its own. */
export interface Whole {
  at: number;
  end: number;
  family: Family;
  protocol: number;
  /** Octets of payload in each segment but the last. */
  segment: number;
  /**
   * Not 0: only the headers, of this length, are at `at`, and the payloads already lie in their
   * slots behind room for them, the first in number `slot`.
   */
  spread: number;
  slot: number;
}

/** UDP payloads that lie one behind the other, and the header that each of them gets. */
export interface Payloads {
  at: number;
  end: number;
  family: Family;
  segment: number;
  /** 28 or 48 octets in the packet memory, without lengths and checksums. */
  header: number;
  /** As in `Whole`; nothing is at `at` then. */
  spread: number;
  slot: number;
}

/**
 * Collects the packets that were read, some of them cut from large ones, and hands them on, when
 * there are `BATCH_MAX` of them or it is told to.
 */
export class Batch {
  readonly #memory: PacketMemory;
  readonly #segments: Segments | undefined;
  readonly #small: Shelf;
  readonly #big: Shelf;
  readonly #jobWord: number;
  readonly #region: Region;
  readonly #packets: Packet[] = [];
  #count = 0;
  #sink: PacketSink | undefined;
  #released = false;

  constructor(memory: PacketMemory, segments: Segments | undefined) {
    this.#memory = memory;
    this.#segments = segments;
    const smallLen = BATCH_MAX * slotLen(PACKET_LEN_SMALL);
    const bigLen = BIG_SLOTS * slotLen(PACKET_LEN_MAX);
    const wordsLen = 4 * (2 * BATCH_MAX + 2 * BIG_SLOTS + CUT.words);
    this.#region = memory.take(smallLen + bigLen + wordsLen);
    const { at } = this.#region;
    const wordsAt = at + smallLen + bigLen;
    const small = slotsAt(memory, at, BATCH_MAX, PACKET_LEN_SMALL);
    const big = slotsAt(memory, at + smallLen, BIG_SLOTS, PACKET_LEN_MAX);
    this.#small = shelf(memory, small, PACKET_LEN_SMALL, wordsAt / 4);
    this.#big = shelf(memory, big, PACKET_LEN_MAX, wordsAt / 4 + 2 * BATCH_MAX);
    this.#jobWord = wordsAt / 4 + 2 * BATCH_MAX + 2 * BIG_SLOTS;
  }

  set sink(sink: PacketSink) {
    this.#sink = sink;
  }

  /** Whoever is handed packets may close the link that they came from. */
  get isReleased(): boolean {
    return this.#released;
  }

  get count(): number {
    return this.#count;
  }

  /** A slot of usual size that nothing in the batch occupies, number `count` of `BATCH_MAX`. */
  get slots(): readonly Packet[] {
    return this.#small.slots;
  }

  /** Adds a packet, whoever's slot it is in; it stays there until the batch was handed on. */
  add(packet: Packet): void {
    this.#packets[this.#count++] = packet;
    if (this.#count === BATCH_MAX) this.handOn();
  }

  /** False once released. */
  handOn(): boolean {
    const count = this.#count;
    this.#count = 0;
    if (count > 0 && !this.#released) this.#sink?.(this.#packets, count);
    return !this.#released;
  }

  /** Adds the segments of a large packet. A string: what is wrong with it. */
  cut(whole: Whole): string | undefined {
    const { at, end, family, protocol, segment } = whole;
    const words = this.#memory.words;
    const job = this.#jobWord;
    words[job + CUT.at] = at;
    words[job + CUT.end] = end;
    words[job + CUT.family] = family;
    words[job + CUT.protocol] = protocol;
    words[job + CUT.segment] = segment;
    // Segments of one packet stay together, since the other end puts together what comes together.
    const most = Math.ceil((end - at) / Math.max(1, segment));
    if (!this.makeRoom(most)) return undefined;
    let from = 0;
    let total = 1;
    for (let on = this.#small; from < total; ) {
      const first = this.#begin(on, CUT, from, whole);
      const done = this.#segments?.cut(job * 4) ?? FAILURE.malformed;
      if (done === FAILURE.tooLarge && on === this.#small) {
        on = this.#big;
        if (!this.handOn()) return undefined;
        continue;
      }
      if (done < 0) return done === FAILURE.tooLarge ? 'segments too long' : 'cannot be cut';
      total = words[job + CUT.total]!;
      from += done;
      if (!this.#addCut(on, first, done)) return undefined;
    }
    return undefined;
  }

  /** Adds the datagrams that came as one. A string: what is wrong with them. */
  deal(payloads: Payloads): string | undefined {
    const { at, end, family, segment, header } = payloads;
    const words = this.#memory.words;
    const job = this.#jobWord;
    words[job + DEAL.at] = at;
    words[job + DEAL.end] = end;
    words[job + DEAL.header] = header;
    words[job + DEAL.family] = family;
    words[job + DEAL.segment] = segment;
    let from = 0;
    // What is behind the last datagram of this batch would only come with the next one.
    if (!this.makeRoom(Math.ceil((end - at) / segment))) return undefined;
    for (let on = this.#small; from < end - at; ) {
      const first = this.#begin(on, DEAL, from, payloads);
      const done = this.#segments?.deal(job * 4) ?? FAILURE.malformed;
      if (done === FAILURE.tooLarge && on === this.#small) {
        on = this.#big;
        if (!this.handOn()) return undefined;
        continue;
      }
      if (done < 0) return done === FAILURE.tooLarge ? 'datagrams too long' : 'cannot be dealt out';
      from += done * segment;
      if (!this.#addCut(on, first, done)) return undefined;
    }
    return undefined;
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#memory.give(this.#region);
  }

  /** Hands on what is there if so many more would not fit; false once released. */
  makeRoom(more: number): boolean {
    return this.#count + more <= BATCH_MAX || this.handOn();
  }

  /** Sets which slots are free for the job; returns the first of them. */
  #begin(
    on: Shelf,
    job: typeof CUT | typeof DEAL,
    from: number,
    { spread, slot }: Whole | Payloads,
  ): number {
    const words = this.#memory.words;
    const first = spread > 0 ? slot : on === this.#small ? this.#count : 0;
    words[this.#jobWord + job.spread] = spread;
    words[this.#jobWord + job.from] = from;
    words[this.#jobWord + job.places] = 4 * (on.placesWord + 2 * first);
    words[this.#jobWord + job.count] = on.slots.length - first;
    words[this.#jobWord + job.room] = on.room;
    return first;
  }

  #addCut(on: Shelf, first: number, done: number): boolean {
    const words = this.#memory.words;
    let before = 0;
    for (let i = 0; i < done; i++) {
      const packet = on.slots[first + i]!;
      const len = words[on.placesWord + 2 * (first + i) + 1]!;
      packet.reset();
      packet.end = packet.at + len;
      packet.follows = len === before;
      before = len;
      this.#packets[this.#count++] = packet;
    }
    const isFull = on === this.#big || this.#count === BATCH_MAX;
    return isFull ? this.handOn() : true;
  }
}

export function slotsAt(memory: PacketMemory, at: number, count: number, room: number): Packet[] {
  const arena = new PacketArena(count, { room, memory: { bytes: memory.bytes, at } });
  return Array.from({ length: count }, () => arena.take()!);
}

/** Joins what was read into a small slot and, where that ended, on into a large one. */
export function joinParts(small: Packet, large: Packet, len: number): void {
  small.reset();
  large.reset();
  large.end = large.at + len;
  large.bytes.copyWithin(large.at, small.at, small.at + Math.min(len, PACKET_LEN_SMALL));
}

function shelf(
  { words }: PacketMemory,
  slots: readonly Packet[],
  room: number,
  placesWord: number,
): Shelf {
  for (const [i, slot] of slots.entries()) words[placesWord + 2 * i] = slot.at;
  return { slots, room, placesWord };
}
