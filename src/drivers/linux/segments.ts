import { readFileSync } from 'node:fs';
import { compiledLibrary } from './compiled-library.ts';
import type { Libc } from './libc.ts';
import { packageFile } from './package-file.ts';
import type { PacketMemory } from './packet-memory.ts';
import { webAssembly } from './web-assembly.ts';

/**
 * The byte loops of `native/fast/segments.h` over one packet memory: compiled, or as WebAssembly.
 * Each takes a job, words at octet `job` of the memory, as the structs there say; `jobs` below has
 * their layout. All places are checked on the other side, before an address is formed.
 */
export interface Segments {
  /** For people. */
  readonly name: 'compiled loops' | 'WebAssembly loops';
  /** Completes the checksum of a packet; `start` and `field` count from `at`. 0 if right. */
  complete(at: number, len: number, start: number, field: number): number;
  /** Cuts a TCP or UDP packet; returns how many segments were written, or a negative number. */
  cut(job: number): number;
  /** Deals UDP payloads out, each behind a header; returns how many, or a negative number. */
  deal(job: number): number;
  /** Finds segments that fit together; returns how many large packets there are, or < 0. */
  join(job: number): number;
}

/** The memory that the loops see, and do not leave. */
export type SegmentMemory = Pick<PacketMemory, 'base' | 'size' | 'wasm'>;

/** What a job ends with instead of a count. */
export const FAILURE = { refused: -1, malformed: -2, tooLarge: -3 } as const;

/** Words of the jobs, in order. */
export const CUT = {
  at: 0,
  end: 1,
  family: 2,
  protocol: 3,
  segment: 4,
  from: 5,
  places: 6,
  count: 7,
  room: 8,
  total: 9,
  spread: 10,
  words: 11,
} as const;
export const DEAL = {
  at: 0,
  end: 1,
  header: 2,
  family: 3,
  segment: 4,
  from: 5,
  places: 6,
  count: 7,
  room: 8,
  spread: 9,
  words: 10,
} as const;
export const JOIN = {
  packets: 0,
  count: 1,
  states: 2,
  withUdp: 3,
  heads: 4,
  headRoom: 5,
  words: 6,
} as const;
/** What `join` says of a packet; the octets of its headers are above the lowest eight bits. */
export const STATE = { verified: 1, follows: 2, leads: 4, headersShift: 8 } as const;

const MODULE = 'native/fast/segments.wasm';

/**
 * The compiled loops if this package has been built with a compiler, else WebAssembly. A string:
 * why there are none.
 */
export function segments(c: Libc, memory: PacketMemory): Segments | string {
  const library = compiledLibrary();
  if ('path' in library) {
    const compiled = compiledSegments(c, memory, library.path);
    if (typeof compiled !== 'string') return compiled;
  }
  return wasmSegments(memory);
}

/** Loads a shared library. A string: why it cannot be used, such as one for another processor. */
export function compiledSegments(
  c: Libc,
  memory: SegmentMemory,
  library: string,
): Segments | string {
  type Job = (base: number, size: number, job: number) => number;
  type Complete = (
    base: number,
    size: number,
    at: number,
    len: number,
    start: number,
    field: number,
  ) => number;
  const words = (count: number) => ', uint32_t'.repeat(count);
  try {
    const loaded = c.koffi.load(library);
    const layout = c.koffi.decode(loaded.symbol('testudo_segments_layout'), 'uint32_t', 2);
    const [cutWords, dealWords] = layout as Iterable<number>;
    if (cutWords !== CUT.words || dealWords !== DEAL.words) {
      return `${library} is of another version; run "npm rebuild testudo"`;
    }
    const job = (name: string) =>
      loaded.func(`int ${name}(uintptr_t${words(2)})`) as unknown as Job;
    const complete = loaded.func(`int testudo_complete(uintptr_t${words(5)})`) as unknown;
    const [cut, deal, join] = [job('testudo_cut'), job('testudo_deal'), job('testudo_join')];
    const { base, size } = memory;
    return {
      name: 'compiled loops',
      complete: (at, len, start, field) =>
        (complete as Complete)(base, size, at, len, start, field),
      cut: (at) => cut(base, size, at),
      deal: (at) => deal(base, size, at),
      join: (at) => join(base, size, at),
    };
  } catch (error) {
    return `${library} cannot be loaded: ${error instanceof Error ? error.message : error}`;
  }
}

/** Instantiates the WebAssembly module over the memory. A string: why it cannot be used. */
export function wasmSegments(memory: SegmentMemory): Segments | string {
  const { wasm, size } = memory;
  if (webAssembly === undefined || wasm === undefined) return 'WebAssembly is switched off';
  const path = packageFile(MODULE);
  if (path === undefined) return `${MODULE} is missing`;
  type Loop = (base: number, size: number, ...words: number[]) => number;
  try {
    const module = new webAssembly.Module(readFileSync(path));
    const { exports } = new webAssembly.Instance(module, { env: { memory: wasm } });
    const { testudo_complete, testudo_cut, testudo_deal, testudo_join } = exports as Record<
      string,
      Loop
    >;
    // Offsets are addresses there: the module's memory is the packet memory.
    return {
      name: 'WebAssembly loops',
      complete: (at, len, start, field) => testudo_complete!(0, size, at, len, start, field),
      cut: (at) => testudo_cut!(0, size, at),
      deal: (at) => testudo_deal!(0, size, at),
      join: (at) => testudo_join!(0, size, at),
    };
  } catch (error) {
    return `${MODULE} cannot be used: ${error instanceof Error ? error.message : error}`;
  }
}
