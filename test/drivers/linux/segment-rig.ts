import { libc } from '../../../src/drivers/linux/libc.ts';
import { packageFile } from '../../../src/drivers/linux/package-file.ts';
import { PacketMemory } from '../../../src/drivers/linux/packet-memory.ts';
import {
  CUT,
  compiledSegments,
  DEAL,
  JOIN,
  type SegmentMemory,
  type Segments,
  STATE,
  wasmSegments,
} from '../../../src/drivers/linux/segments.ts';

/** Loops over a memory of their own, fed and read octet by octet. */
export class SegmentRig {
  readonly memory: PacketMemory;
  readonly segments: Segments;
  /** Where the job, its lists, what goes in and what comes out lie. */
  static readonly JOB = 65_536;
  static readonly LISTS = 66_560;
  static readonly IN = 131_072;
  static readonly OUT = 262_144;
  static readonly SIZE = 524_288;
  /** As many as there are slots in a batch. */
  static readonly PLACES = 64;

  constructor(open: (memory: SegmentMemory) => Segments | string) {
    this.memory = new PacketMemory(libc('a test'), SegmentRig.SIZE);
    const segments = open(this.memory);
    if (typeof segments === 'string') throw new Error(segments);
    this.segments = segments;
  }

  /**
   * All segments of a large packet, `batch` at a time; a number: how the job ended. `spread`:
   * octets of headers, behind room for which the payloads are put into the places themselves.
   */
  cut(
    whole: Uint8Array,
    segment: number,
    { room = 2048, batch = 64, spread = 0 } = {},
  ): Uint8Array[] | number {
    const { words } = this.memory;
    this.#put(SegmentRig.IN, spread > 0 ? this.#headersOf(whole, spread) : whole);
    const family = whole[0]! >> 4;
    const protocol = whole[family === 4 ? 9 : 6]!;
    this.#job(CUT.at, SegmentRig.IN, SegmentRig.IN + whole.length, family, protocol, segment);
    this.#places(batch, room);
    this.#job(CUT.places, SegmentRig.LISTS, batch, room);
    const pieces: Uint8Array[] = [];
    this.#job(CUT.spread, spread);
    for (let from = 0, total = 1; from < total; ) {
      this.#job(CUT.from, from);
      if (spread > 0) this.#spread(whole.subarray(spread + from * segment), segment, batch, spread);
      const done = this.segments.cut(SegmentRig.JOB);
      if (done <= 0) return done;
      pieces.push(...this.#written(done, room));
      total = words[SegmentRig.JOB / 4 + CUT.total]!;
      from += done;
    }
    return pieces;
  }

  /** Payloads that lie in a row, each behind the header; `spread`: those in their places. */
  deal(
    header: Uint8Array,
    payloads: Uint8Array,
    segment: number,
    { room = 2048, batch = 64, isSpread = false } = {},
  ): Uint8Array[] | number {
    const headerAt = SegmentRig.LISTS + 4096;
    this.#put(headerAt, header);
    this.#put(SegmentRig.IN, isSpread ? this.#headersOf(payloads, 0) : payloads);
    this.#job(DEAL.at, SegmentRig.IN, SegmentRig.IN + payloads.length, headerAt);
    this.#job(DEAL.family, header[0]! >> 4, segment);
    this.#places(batch, room);
    this.#job(DEAL.places, SegmentRig.LISTS, batch, room);
    const pieces: Uint8Array[] = [];
    this.#job(DEAL.spread, isSpread ? header.length : 0);
    for (let from = 0; from < payloads.length; ) {
      this.#job(DEAL.from, from);
      if (isSpread) this.#spread(payloads.subarray(from), segment, batch, header.length);
      const done = this.segments.deal(SegmentRig.JOB);
      if (done <= 0) return done;
      pieces.push(...this.#written(done, room));
      from += done * segment;
    }
    return pieces;
  }

  /** Which packets belong together, and the large packets that they are. */
  join(
    batch: readonly Uint8Array[],
    withUdp: boolean,
  ): { groups: number[][]; wholes: Uint8Array[] } {
    const { words, bytes } = this.memory;
    const statesAt = SegmentRig.LISTS + 1024;
    let at = SegmentRig.IN;
    for (const [i, packet] of batch.entries()) {
      this.#put(at, packet);
      words[SegmentRig.LISTS / 4 + 2 * i] = at;
      words[SegmentRig.LISTS / 4 + 2 * i + 1] = at + packet.length;
      at += packet.length;
    }
    this.#job(JOIN.packets, SegmentRig.LISTS, batch.length, statesAt, Number(withUdp));
    this.#job(JOIN.heads, SegmentRig.OUT + 131_072, 128);
    const trains = this.segments.join(SegmentRig.JOB);
    if (trains < 0) throw new Error(`refused: ${trains}`);
    const groups: number[][] = [];
    const wholes: Uint8Array[] = [];
    for (const [i, packet] of batch.entries()) {
      const state = words[statesAt / 4 + i]!;
      if ((state & STATE.follows) === 0) {
        groups.push([i]);
        continue;
      }
      const group = groups.at(-1)!;
      const headersLen = words[statesAt / 4 + group[0]!]! >>> STATE.headersShift;
      if (group.length === 1) {
        const headAt = SegmentRig.OUT + 131_072 + 128 * wholes.length;
        const head = bytes.slice(headAt, headAt + headersLen);
        wholes.push(Uint8Array.of(...head, ...batch[group[0]!]!.subarray(headersLen)));
      }
      group.push(i);
      wholes.push(Uint8Array.of(...wholes.pop()!, ...packet.subarray(headersLen)));
    }
    if (wholes.length !== trains) throw new Error(`${wholes.length} groups, ${trains} trains`);
    return { groups, wholes };
  }

  /** Words of the job, from number `first` on. */
  #job(first: number, ...values: number[]): void {
    for (const [i, value] of values.entries())
      this.memory.words[SegmentRig.JOB / 4 + first + i] = value;
  }

  #places(count: number, room: number): void {
    for (let i = 0; i < count; i++) {
      this.memory.words[SegmentRig.LISTS / 4 + 2 * i] = SegmentRig.OUT + i * room;
    }
  }

  #written(done: number, room: number): Uint8Array[] {
    return Array.from({ length: done }, (_, i) => {
      const at = SegmentRig.OUT + i * room;
      const len = this.memory.words[SegmentRig.LISTS / 4 + 2 * i + 1]!;
      return this.memory.bytes.slice(at, at + len);
    });
  }

  /** As much as the packet is long, but nothing that could be copied behind its headers. */
  #headersOf(whole: Uint8Array, len: number): Uint8Array {
    const octets = new Uint8Array(whole.length).fill(0xee);
    octets.set(whole.subarray(0, len));
    return octets;
  }

  #spread(payload: Uint8Array, segment: number, count: number, headersLen: number): void {
    for (let i = 0; i < count && i * segment < payload.length; i++) {
      const part = payload.subarray(i * segment, (i + 1) * segment);
      this.#put(this.memory.words[SegmentRig.LISTS / 4 + 2 * i]! + headersLen, part);
    }
  }

  #put(at: number, octets: Uint8Array): void {
    this.memory.bytes.set(octets, at);
  }
}

/** Another build of native/fast than that of the installation: with sanitizers. */
export const ANOTHER_LIBRARY = process.env.TESTUDO_TEST_FAST;

/** The loops that are there, and for the others why not. */
export const LOOPS: Readonly<Record<string, (memory: SegmentMemory) => Segments | string>> = {
  compiled: (memory) => {
    const library = ANOTHER_LIBRARY ?? packageFile('native/build/testudo_fast.so');
    if (library === undefined) return 'no compiler when this was installed';
    return compiledSegments(libc('a test'), memory, library);
  },
  WebAssembly: wasmSegments,
};

/** Says on the console which loops are not tested, since a silent skip looks like success. */
export function rigs(): [string, SegmentRig][] {
  if (process.platform !== 'linux') return [];
  return Object.entries(LOOPS).flatMap(([name, open]): [string, SegmentRig][] => {
    const probe = open(new PacketMemory(libc('a test'), SegmentRig.SIZE));
    if (typeof probe !== 'string') return [[name, new SegmentRig(open)]];
    if (process.env.CI === 'true') throw new Error(`CI needs the ${name} loops: ${probe}`);
    console.log(`${name} loops not tested: ${probe}`);
    return [];
  });
}
