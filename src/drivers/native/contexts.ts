import type * as Koffi from 'koffi';
import * as layout from './layout.ts';
import { type NativeBlock, nativeBlock, setLong } from './memory.ts';

/** More SAs than that at a time are served by node:crypto. */
const CONTEXTS_MAX = 1 << 18;
/** How many contexts are allocated at a time. */
const SLAB = 32;

const { CONTEXT } = layout;

/** The keys of one SA in native memory, and in JavaScript what has to be at hand. */
export class NativeContext {
  readonly index: number;
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  /** CIPHER_*, MAC_*, IMB_*; lengths in octets; the numbers of layout.ts. */
  cipher: number = layout.CIPHER_NONE;
  mac: number = layout.MAC_NONE;
  ivLen = 0;
  icvLen = 0;
  saltLen = 0;
  keyLen = 0;
  blockLen = 1;
  hash = 0;
  imbCipher: number = layout.IMB_NONE;
  imbMac = 0;
  /** From how many jobs of its kind in a batch intel-ipsec-mb is faster than OpenSSL. */
  imbCipherMin = 0;
  imbMacMin = 0;
  /** EVP_CIPHER_CTX; `sealing` and `opening` may be one. 0: there is none. */
  sealing = 0;
  opening = 0;
  chaining = 0;

  constructor(index: number, slab: NativeBlock, at: number) {
    this.index = index;
    this.address = slab.address + at;
    this.bytes = slab.bytes.subarray(at, at + CONTEXT.len);
    this.words = slab.words.subarray(at / 4, (at + CONTEXT.len) / 4);
  }

  /** Writes the numbers where native code finds them. */
  publish(): void {
    const { words } = this;
    for (const field of NUMBERS) words[CONTEXT[field] / 4] = this[field];
    for (const field of POINTERS) setLong(words, CONTEXT[field], this[field]);
  }
}

const NUMBERS = [
  ...(['cipher', 'mac', 'ivLen', 'icvLen', 'saltLen', 'keyLen', 'blockLen'] as const),
  ...(['hash', 'imbCipher', 'imbMac', 'imbCipherMin', 'imbMacMin'] as const),
];
const POINTERS = ['sealing', 'opening', 'chaining'] as const;

/** The table of contexts: native code is told numbers, and finds addresses here. */
export class Contexts {
  readonly #koffi: typeof Koffi;
  /** Their addresses, 0 where there is none. Only what is used of it becomes memory. */
  readonly table: NativeBlock;
  readonly #live: (NativeContext | undefined)[] = [];
  readonly #free: NativeContext[] = [];
  #made = 0;

  constructor(koffi: typeof Koffi) {
    this.#koffi = koffi;
    this.table = nativeBlock(koffi, 8 * CONTEXTS_MAX);
  }

  get capacity(): number {
    return CONTEXTS_MAX;
  }

  /** How many are in use. */
  get count(): number {
    return this.#made - this.#free.length;
  }

  at(index: number): NativeContext | undefined {
    return this.#live[index];
  }

  /** An empty context, or undefined when all are taken. */
  take(): NativeContext | undefined {
    if (this.#free.length === 0 && !this.#grow()) return undefined;
    const { index, bytes, words, address } = this.#free.pop()!;
    // A new object, so that nothing of the old one is left.
    const context = new NativeContext(index, { bytes, words, address }, 0);
    this.#live[index] = context;
    setLong(this.table.words, 8 * index, address);
    return context;
  }

  /** Zeroes it and takes it back. What its pointers point to has been freed. */
  give(context: NativeContext): void {
    context.bytes.fill(0);
    setLong(this.table.words, 8 * context.index, 0);
    this.#live[context.index] = undefined;
    this.#free.push(context);
  }

  #grow(): boolean {
    if (this.#made + SLAB > CONTEXTS_MAX) return false;
    const slab = nativeBlock(this.#koffi, SLAB * CONTEXT.len);
    for (let i = SLAB - 1; i >= 0; i--) {
      this.#free.push(new NativeContext(this.#made + i, slab, i * CONTEXT.len));
    }
    this.#made += SLAB;
    return true;
  }
}
