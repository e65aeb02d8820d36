import type { Libc } from './libc.ts';

/**
 * Memory that the kernel writes to. An address does not keep a JavaScript buffer alive, so what is
 * pinned here stays referenced until it is released: a buffer collected too early is a corrupted
 * heap.
 */
const pinned = new Set<ArrayBufferLike>();

/**
 * The address of `bytes`, which must have a buffer of its own (not a small one that V8 keeps inside
 * its heap and moves).
 */
export function pin(c: Libc, bytes: Uint8Array): number {
  pinned.add(bytes.buffer);
  return Number(c.koffi.address(bytes));
}

export function unpin(bytes: Uint8Array): void {
  pinned.delete(bytes.buffer);
}

/**
 * One zeroed block for structs, with both ways to reach it. Fields are little-endian: koffi's
 * platforms all are.
 */
export interface NativeBlock {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly base: number;
}

export function nativeBlock(c: Libc, len: number): NativeBlock {
  const buffer = new ArrayBuffer(len);
  const bytes = new Uint8Array(buffer);
  return { bytes, view: new DataView(buffer), base: pin(c, bytes) };
}

/** Writes a pointer or size_t. Numbers are exact to 2^53, and user space ends at 2^47. */
export function setWord(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

/** Calls `use` with a block that lives for the call, for one-off arguments. */
export function withBlock<T>(c: Libc, len: number, use: (block: NativeBlock) => T): T {
  const block = nativeBlock(c, len);
  try {
    return use(block);
  } finally {
    unpin(block.bytes);
  }
}

const addresses = new WeakMap<Uint8Array, number>();

/**
 * The address of memory that somebody else owns, for calls that end before its owner can let go of
 * it.
 */
export function addressOf(c: Libc, bytes: Uint8Array): number {
  let address = addresses.get(bytes);
  if (address === undefined) {
    address = Number(c.koffi.address(bytes));
    addresses.set(bytes, address);
  }
  return address;
}
