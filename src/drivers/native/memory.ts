import type * as Koffi from 'koffi';

/** Cache lines; the key schedules of intel-ipsec-mb have to begin on one. */
const ALIGNMENT = 64;

/**
 * Zeroed memory that native code may use as long as the block is referenced: it has a buffer of its
 * own, which does not move, and an address does not keep a buffer alive.
 */
export interface NativeBlock {
  readonly bytes: Uint8Array;
  /** The same octets; native code and typed arrays agree on the order of octets. */
  readonly words: Uint32Array;
  /** A multiple of 64. Exact, since user space ends below 2^53. */
  readonly address: number;
}

/** `len` octets, a multiple of 8. */
export function nativeBlock(koffi: typeof Koffi, len: number): NativeBlock {
  const buffer = new ArrayBuffer(len + ALIGNMENT);
  const begin = addressOf(koffi, new Uint8Array(buffer));
  const skip = (ALIGNMENT - (begin % ALIGNMENT)) % ALIGNMENT;
  return {
    bytes: new Uint8Array(buffer, skip, len),
    words: new Uint32Array(buffer, skip, len / 4),
    address: begin + skip,
  };
}

/**
 * The address of octets that stay where they are: more than V8 keeps inside of its heap, which is
 * 64.
 */
export function addressOf(koffi: typeof Koffi, bytes: Uint8Array): number {
  return Number(koffi.address(bytes));
}

/** Writes a pointer or a size_t at octet `at`, a multiple of 4. */
export function setLong(words: Uint32Array, at: number, value: number): void {
  words[at / 4] = value >>> 0;
  words[at / 4 + 1] = Math.floor(value / 2 ** 32);
}

export function longAt(words: Uint32Array, at: number): number {
  return words[at / 4]! + words[at / 4 + 1]! * 2 ** 32;
}
