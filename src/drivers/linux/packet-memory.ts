import { assert } from '../../base/assert.ts';
import type { Libc } from './libc.ts';
import { addressOf } from './native-memory.ts';
import { WASM_PAGE, type WasmMemory, webAssembly } from './web-assembly.ts';

/**
 * Address space, not memory: a page costs nothing before it is touched. Room for a dozen devices
 * and sockets.
 */
const MEMORY_LEN = 64 << 20;
/** The stack of the WebAssembly module. */
const RESERVED_LEN = WASM_PAGE;

/** A piece of the packet memory: octets `at` to `end`. */
export interface Region {
  readonly at: number;
  readonly end: number;
}

/**
 * The one piece of memory that packets of the kernel lie in, so that JavaScript, WebAssembly and
 * native code see the same octets at the same places. It never grows or moves. The only place where
 * addresses of it are formed.
 */
export class PacketMemory {
  readonly bytes: Uint8Array;
  /** The same octets as words, for descriptors: word `i` is at octet 4 * i. */
  readonly words: Uint32Array;
  /** For the WebAssembly module; undefined where there is no WebAssembly. */
  readonly wasm: WasmMemory | undefined;
  readonly #base: number;
  /** What is free, in order of place; two neighbours are one. */
  #free: Region[];

  constructor(c: Libc, len = MEMORY_LEN) {
    const pages = len / WASM_PAGE;
    this.wasm = webAssembly && new webAssembly.Memory({ initial: pages, maximum: pages });
    const buffer = this.wasm?.buffer ?? new ArrayBuffer(len);
    this.bytes = new Uint8Array(buffer);
    this.words = new Uint32Array(buffer);
    this.#base = addressOf(c, this.bytes);
    this.#free = [{ at: RESERVED_LEN, end: len }];
  }

  get size(): number {
    return this.bytes.length;
  }

  /** The native address of the memory, for functions that check offsets themselves. */
  get base(): number {
    return this.#base;
  }

  /** Octets that nobody has taken. */
  get available(): number {
    return this.#free.reduce((sum, { at, end }) => sum + end - at, 0);
  }

  /** The native address of octets that lie in the memory as a whole; anything else is our fault. */
  address(at: number, len: number): number {
    assert(at >= 0 && len >= 0 && at + len <= this.bytes.length, 'an address within the memory');
    return this.#base + at;
  }

  /** Zeroed octets that begin on a cache line. Throws an Error when there are not so many left. */
  take(len: number): Region {
    const whole = (len + 63) & ~63;
    const i = this.#free.findIndex(({ at, end }) => end - at >= whole);
    const found = this.#free[i];
    if (found === undefined) throw new Error(`no packet memory is left for ${len} octets`);
    const region = { at: found.at, end: found.at + whole };
    if (region.end === found.end) this.#free.splice(i, 1);
    else this.#free[i] = { at: region.end, end: found.end };
    return region;
  }

  /** Takes a region back, and forgets what was in it. */
  give(region: Region): void {
    const i = this.#free.findIndex(({ at }) => at >= region.end);
    const place = i < 0 ? this.#free.length : i;
    const before = this.#free[place - 1];
    const after = this.#free[place];
    assert(!before || before.end <= region.at, 'a region is given back once');
    this.bytes.fill(0, region.at, region.end);
    const joinsBefore = before?.end === region.at;
    const joinsAfter = after?.at === region.end;
    const joined = {
      at: joinsBefore ? before.at : region.at,
      end: joinsAfter ? after.end : region.end,
    };
    this.#free.splice(
      place - Number(joinsBefore),
      Number(joinsBefore) + Number(joinsAfter),
      joined,
    );
  }
}

let shared: PacketMemory | undefined;

/** The memory of this process: it stays referenced for as long as the process lives. */
export function packetMemory(c: Libc): PacketMemory {
  shared ??= new PacketMemory(c);
  return shared;
}
