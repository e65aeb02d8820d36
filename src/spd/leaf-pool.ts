import type { RuleTable } from './rule-table.ts';

/** The first 128 bits of all ones, and so on: the mask of a length, in words. */
function prefixMasks(words: number): Int32Array {
  return Int32Array.from({ length: (32 * words + 1) * words }, (_, i) => {
    const bits = Math.min(32, Math.max(0, Math.floor(i / words) - 32 * (i % words)));
    return bits === 0 ? 0 : -1 << (32 - bits);
  });
}

/** By two bits: whether the source port counts, and the destination port. */
const PORT_MASKS = Int32Array.of(0, 0xffff, 0xffff << 16, -1);

// The word about a rule: protocol 8, any protocol 1, loopback 1, ports 2, and both lengths of 8.
const ANY_PROTOCOL = 1 << 19;
const LOOPBACK = 1 << 18;
const PORTS_SHIFT = 16;

const NONE = -1;

/**
 * Lists of rules in their order, each in one stretch of memory, so small that a large table stays
 * in the cache of the processor, which is what a lookup in a large table costs:
 *
 *     length, then for each rule: addresses, ports, lengths and protocol, slot
 */
export class LeafPool {
  data = new Int32Array(1024);
  readonly #rules: RuleTable;
  readonly #addressWords: number;
  readonly #entryLen: number;
  readonly #masks: Int32Array;
  /** Lists given back, by the room they have. */
  readonly #free: number[][] = [];
  /** A list at 0 would look like no list at all. */
  #used = 1;

  constructor(rules: RuleTable) {
    this.#rules = rules;
    this.#addressWords = (rules.keyWords - 2) / 2;
    this.#entryLen = rules.keyWords + 1;
    this.#masks = prefixMasks(this.#addressWords);
  }

  /** Where a list of these rules now is. */
  make(slots: readonly number[]): number {
    const leaf = this.#take(roomFor(slots.length));
    this.data[leaf] = slots.length;
    for (const [i, slot] of slots.entries()) this.#write(leaf + 1 + i * this.#entryLen, slot);
    return leaf;
  }

  give(leaf: number): void {
    const room = roomFor(this.length(leaf));
    this.#free[room] ??= [];
    this.#free[room].push(leaf);
  }

  length(leaf: number): number {
    return this.data[leaf]!;
  }

  slots(leaf: number): number[] {
    return Array.from({ length: this.length(leaf) }, (_, i) => this.#slotAt(leaf, i));
  }

  /** The first rule that means a packet with this key, or -1; see `RuleTree.first`. */
  scan(leaf: number, key: Int32Array, loopback: boolean, portless: boolean): number {
    const { data } = this;
    const masks = this.#masks;
    const words = this.#addressWords;
    const entryLen = this.#entryLen;
    const ports = key[2 * words]!;
    const protocol = key[2 * words + 1]! >>> 24;
    const end = leaf + 1 + data[leaf]! * entryLen;
    for (let at = leaf + 1; at < end; at += entryLen) {
      const about = data[at + 2 * words + 1]!;
      let i = 0;
      let mask = ((about >> 8) & 255) * words;
      while (i < words && ((key[i]! ^ data[at + i]!) & masks[mask + i]!) === 0) i++;
      if (i < words) continue;
      mask = (about & 255) * words - words;
      while (i < 2 * words && ((key[i]! ^ data[at + i]!) & masks[mask + i]!) === 0) i++;
      if (i < 2 * words) continue;
      const portMask = PORT_MASKS[(about >> PORTS_SHIFT) & 3]!;
      if (((ports ^ data[at + i]!) & portMask) !== 0) continue;
      if ((about & ANY_PROTOCOL) === 0 && about >>> 24 !== protocol) continue;
      if (loopback && (about & LOOPBACK) === 0) continue;
      if (portless && portMask !== 0) continue;
      return data[at + i + 2]!;
    }
    return NONE;
  }

  /** Puts a rule to the others, in its place; where the list is then, since it may have moved. */
  insert(leaf: number, slot: number): number {
    const len = this.length(leaf);
    const to = roomFor(len + 1) === roomFor(len) ? leaf : this.#move(leaf, len, roomFor(len + 1));
    let place = len;
    while (place > 0 && this.#rules.compare(this.#slotAt(to, place - 1), slot) > 0) place--;
    const at = to + 1 + place * this.#entryLen;
    this.data.copyWithin(at + this.#entryLen, at, to + 1 + len * this.#entryLen);
    this.#write(at, slot);
    this.data[to] = len + 1;
    return to;
  }

  /** Takes a rule out; where the list is then, or -1 when the rule was not there. */
  remove(leaf: number, slot: number): number {
    const place = this.slots(leaf).indexOf(slot);
    if (place < 0) return NONE;
    const len = this.length(leaf);
    const at = leaf + 1 + place * this.#entryLen;
    this.data.copyWithin(at, at + this.#entryLen, leaf + 1 + len * this.#entryLen);
    if (roomFor(len - 1) === roomFor(len)) {
      this.data[leaf] = len - 1;
      return leaf;
    }
    const to = this.#move(leaf, len - 1, roomFor(len - 1));
    this.data[to] = len - 1;
    return to;
  }

  #move(leaf: number, len: number, room: number): number {
    const to = this.#take(room);
    this.data.copyWithin(to, leaf, leaf + 1 + len * this.#entryLen);
    this.give(leaf);
    return to;
  }

  #take(room: number): number {
    const free = this.#free[room]?.pop();
    if (free !== undefined) return free;
    const at = this.#used;
    this.#used += 1 + room * this.#entryLen;
    if (this.#used > this.data.length) {
      const { data } = this;
      this.data = new Int32Array(Math.max(this.#used, 2 * data.length));
      this.data.set(data);
    }
    return at;
  }

  #write(at: number, slot: number): void {
    const { words, keyWords, loopback, policies } = this.#rules;
    const from = slot * 2 * keyWords;
    for (let i = 0; i < keyWords - 1; i++) this.data[at + i] = words[from + 2 * i]!;
    const { src, dst } = policies[slot]!.selector;
    const portsMask = words[from + 2 * keyWords - 3]!;
    const ports = (portsMask >>> 16 === 0 ? 0 : 2) | ((portsMask & 0xffff) === 0 ? 0 : 1);
    let about = words[from + 2 * keyWords - 2]! | (src.length << 8) | dst.length;
    if (words[from + 2 * keyWords - 1] === 0) about |= ANY_PROTOCOL;
    if (loopback[slot] === 1) about |= LOOPBACK;
    this.data[at + keyWords - 1] = about | (ports << PORTS_SHIFT);
    this.data[at + keyWords] = slot;
  }

  #slotAt(leaf: number, place: number): number {
    return this.data[leaf + (place + 1) * this.#entryLen]!;
  }
}

/** Room for 1, 2, 3, 4, 6, 8, 12, 16, … rules: little is left empty, and lists seldom move. */
export function roomFor(len: number): number {
  if (len < 4) return Math.max(1, len);
  const power = 1 << (31 - Math.clz32(len));
  if (len === power) return power;
  return len <= 1.5 * power ? 1.5 * power : 2 * power;
}
