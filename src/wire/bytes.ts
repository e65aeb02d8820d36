/**
 * All byte indexing of the packet path. In JavaScript a read past the end is silently 0, so callers
 * check lengths first (each header's `check`), and only this module touches octets. Shifts on
 * Uint8Array cost 7 ns for six fields; DataView objects and Buffer methods cost more, and a view
 * per packet would allocate.
 */

export function u8(p: Uint8Array, at: number): number {
  return p[at]!;
}

export function u16(p: Uint8Array, at: number): number {
  return (p[at]! << 8) | p[at + 1]!;
}

export function u32(p: Uint8Array, at: number): number {
  return ((p[at]! << 24) | (p[at + 1]! << 16) | (p[at + 2]! << 8) | p[at + 3]!) >>> 0;
}

export function setU8(p: Uint8Array, at: number, value: number): void {
  p[at] = value;
}

export function setU16(p: Uint8Array, at: number, value: number): void {
  p[at] = value >>> 8;
  p[at + 1] = value;
}

export function setU32(p: Uint8Array, at: number, value: number): void {
  p[at] = value >>> 24;
  p[at + 1] = value >>> 16;
  p[at + 2] = value >>> 8;
  p[at + 3] = value;
}

/** Copies `len` octets from one place to another, also within one array. */
export function copy(
  from: Uint8Array,
  fromAt: number,
  to: Uint8Array,
  toAt: number,
  len: number,
): void {
  // Headers are shorter than what a call of a built-in function costs.
  if (len < 64) {
    if (from === to && toAt > fromAt) {
      for (let i = len - 1; i >= 0; i--) to[toAt + i] = from[fromAt + i]!;
    } else {
      for (let i = 0; i < len; i++) to[toAt + i] = from[fromAt + i]!;
    }
  } else if (from === to) {
    to.copyWithin(toAt, fromAt, fromAt + len);
  } else {
    to.set(from.subarray(fromAt, fromAt + len), toAt);
  }
}

const wordViews = new WeakMap<ArrayBufferLike, Uint32Array>();

/**
 * The same memory as words, in the machine's order of octets: for whoever copies many headers. Word
 * `i` is at octet 4 * i of arrays that begin where their memory begins.
 */
export function wordsOf({ buffer, byteOffset }: Uint8Array): Uint32Array | undefined {
  if (byteOffset !== 0) return undefined;
  let words = wordViews.get(buffer);
  if (words === undefined) {
    words = new Uint32Array(buffer, 0, buffer.byteLength >>> 2);
    wordViews.set(buffer, words);
  }
  return words;
}

/** As `copy` within one array, whose words these are; all of it in whole words. */
export function copyWords(words: Uint32Array, fromAt: number, toAt: number, len: number): void {
  const [from, to] = [fromAt >>> 2, toAt >>> 2];
  for (let i = 0; i < len >>> 2; i++) words[to + i] = words[from + i]!;
}

export function zero(p: Uint8Array, at: number, len: number): void {
  p.fill(0, at, at + len);
}

/** For what is public. ICVs and keys are compared by `equalConstantTime`. */
export function equal(
  a: Uint8Array,
  aAt: number,
  b: Uint8Array,
  bAt: number,
  len: number,
): boolean {
  for (let i = 0; i < len; i++) if (a[aAt + i] !== b[bAt + i]) return false;
  return true;
}

/**
 * Compares without a branch on the contents, so that time does not tell how much of an ICV was
 * right.
 */
export function equalConstantTime(
  a: Uint8Array,
  aAt: number,
  b: Uint8Array,
  bAt: number,
  len: number,
): boolean {
  let difference = 0;
  for (let i = 0; i < len; i++) difference |= a[aAt + i]! ^ b[bAt + i]!;
  return difference === 0;
}

export function fromHex(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length >> 1);
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  }
  return bytes;
}

export function toHex(p: Uint8Array, at = 0, end = p.length): string {
  let text = '';
  for (let i = at; i < end; i++) text += p[i]!.toString(16).padStart(2, '0');
  return text;
}
