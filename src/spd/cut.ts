/** A run of bits in one word of a key: `bits` of them, from `shift` up. */
export interface Run {
  readonly word: number;
  readonly shift: number;
  readonly bits: number;
}

/**
 * Which bits of a key a branch looks at: one run, and maybe another in another word, together at
 * most 30. In one number, so that a lookup reads it with one load:
 *
 *     word 4, shift 5, bits 5; word 4, shift 5, bits 5
 */
export function packCut(one: Run, other?: Run): number {
  const high = (one.word << 24) | (one.shift << 19) | (one.bits << 14);
  return other === undefined ? high : high | (other.word << 10) | (other.shift << 5) | other.bits;
}

/** How many bits it looks at. */
export function cutBits(cut: number): number {
  return ((cut >>> 14) & 31) + (cut & 31);
}

/**
 * What the cut sees of a key, a number of `cutBits` bits. The words of the key stand `step` apart
 * from `at` on.
 */
export function cutOf(cut: number, key: Int32Array, at: number, step: number): number {
  const one = key[at + step * (cut >>> 24)]! >>> ((cut >>> 19) & 31);
  const other = key[at + step * ((cut >>> 10) & 15)]! >>> ((cut >>> 5) & 31);
  const bits = cut & 31;
  const oneMask = (1 << ((cut >>> 14) & 31)) - 1;
  return ((one & oneMask) << bits) | (other & ((1 << bits) - 1));
}

/** Notes the bits that the cut looks at in the words of `fixed`. */
export function markCut(cut: number, fixed: Int32Array): void {
  fixed[cut >>> 24]! |= ((1 << ((cut >>> 14) & 31)) - 1) << ((cut >>> 19) & 31);
  fixed[(cut >>> 10) & 15]! |= ((1 << (cut & 31)) - 1) << ((cut >>> 5) & 31);
}

/** The next number that has bits only where `open` has some; after the last comes 0. */
export function nextWay(way: number, open: number): number {
  return (way - open) & open;
}

export function popcount(word: number): number {
  let v = word - ((word >>> 1) & 0x5555_5555);
  v = (v & 0x3333_3333) + ((v >>> 2) & 0x3333_3333);
  return Math.imul((v + (v >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
