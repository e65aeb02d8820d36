import type { RuleTable } from './rule-table.ts';

/** The first 128 bits of all ones, and so on: the mask of a length, in four words. */
const MASKS = Int32Array.from({ length: 129 * 4 }, (_, i) => {
  const bits = Math.min(32, Math.max(0, (i >> 2) - 32 * (i & 3)));
  return bits === 0 ? 0 : -1 << (32 - bits);
});

/** By two bits: whether the source port counts, and the destination port. */
const PORT_MASKS = Int32Array.of(0, 0xffff, 0xffff << 16, -1);

// Flags of a packet: of the loopback network; cut off before its ports.
export const LOOPBACK = 1;
export const PORTLESS = 2;

// The word about a rule: protocol 8; 2 unused; which flags of packets it passes by 2; whether the
// protocol counts 1; 1 unused; which ports count 2; both lengths of 8.
const FLAGS_SHIFT = 20;
const PROTOCOL_SHIFT = 19;
const PORTS_SHIFT = 16;

/** Words before the entries: how many there are, and the priority of the first. */
const HEAD = 2;
export const LEAST_AT = 1;

const NONE = -1;
/** Instead of a rule: what hid others has gone, and the list has to be made anew. */
export const STALE = -2;

/**
 * Lists of rules in their order, each in one stretch of memory, so small that a large table stays
 * near the processor, which is what a lookup in a large table costs:
 *
 *     length, priority of the first; for each rule: addresses, ports, the word about it, slot
 *
 * The length of a stale list is its complement. Rules that are hidden (see `hides`) belong to a
 * list too, but stand elsewhere.
 */
export class LeafPool {
  data = new Int32Array(1024);
  readonly #rules: RuleTable;
  readonly #addressWords: number;
  readonly #entryLen: number;
  /** Lists given back, by the room they have. */
  readonly #free: number[][] = [];
  /** A list at 0 would look like no list at all. */
  #used = 1;
  #entries = 0;
  /** Rules that are hidden in a list by others, in no order. */
  readonly #hidden = new Map<number, number[]>();

  constructor(rules: RuleTable) {
    this.#rules = rules;
    this.#addressWords = (rules.keyWords - 2) / 2;
    this.#entryLen = rules.keyWords + 1;
  }

  /** How many entries all lists have. */
  get entries(): number {
    return this.#entries;
  }

  /** How many rules are hidden, in all lists. */
  get hiddenCount(): number {
    let count = 0;
    for (const hidden of this.#hidden.values()) count += hidden.length;
    return count;
  }

  /** Where a list now is of these rules, and of those that they hide. */
  make(slots: readonly number[], hidden: number[]): number {
    const leaf = this.#take(roomFor(slots.length));
    for (const [i, slot] of slots.entries()) {
      this.#write(leaf + HEAD + i * this.#entryLen, slot);
    }
    this.#setLength(leaf, slots.length);
    this.#entries += slots.length;
    if (hidden.length > 0) this.#hidden.set(leaf, hidden);
    return leaf;
  }

  give(leaf: number): void {
    this.#entries -= this.length(leaf);
    this.#hidden.delete(leaf);
    this.#giveRoom(leaf, roomFor(this.length(leaf)));
  }

  length(leaf: number): number {
    const len = this.data[leaf]!;
    return len < 0 ? ~len : len;
  }

  /** In no order. */
  hidden(leaf: number): readonly number[] {
    return this.#hidden.get(leaf) ?? [];
  }

  hide(leaf: number, slot: number): void {
    const hidden = this.#hidden.get(leaf);
    if (hidden) hidden.push(slot);
    else this.#hidden.set(leaf, [slot]);
  }

  /** False: the rule is not hidden there. */
  unhide(leaf: number, slot: number): boolean {
    const hidden = this.#hidden.get(leaf);
    const place = hidden?.indexOf(slot) ?? NONE;
    if (hidden === undefined || place === NONE) return false;
    hidden[place] = hidden.at(-1)!;
    hidden.pop();
    if (hidden.length === 0) this.#hidden.delete(leaf);
    return true;
  }

  /** Hidden rules may be visible by now: `scan` says STALE, and the list must be made anew. */
  isStale(leaf: number): boolean {
    return this.data[leaf]! < 0;
  }

  setStale(leaf: number): void {
    if (!this.isStale(leaf)) this.data[leaf] = ~this.data[leaf]!;
    // Whatever was hidden may come first now.
    this.data[leaf + LEAST_AT] = 0;
  }

  /** No rule of the list has a smaller priority. */
  least(leaf: number): number {
    return this.data[leaf + LEAST_AT]! >>> 0;
  }

  /** The rule in a place of the list, from 0 on. */
  slotAt(leaf: number, place: number): number {
    return this.data[leaf + HEAD - 1 + (place + 1) * this.#entryLen]!;
  }

  slots(leaf: number): number[] {
    return Array.from({ length: this.length(leaf) }, (_, i) => this.slotAt(leaf, i));
  }

  /**
   * The first rule that means a packet with the key at `k`, -1 or STALE. `flags`: LOOPBACK, then
   * only rules count that name that network; PORTLESS, then only rules without ports.
   */
  scan(leaf: number, keys: Int32Array, k: number, flags: number): number {
    // Sums are cut to 32 bits because the compiler then need not check them: it halves the time.
    const { data } = this;
    const len = data[leaf]!;
    if (len < 0) return STALE;
    const dstAt = this.#addressWords | 0;
    const portsAt = dstAt << 1;
    const src = keys[k]!;
    const dst = keys[(k + dstAt) | 0]!;
    const entryLen = this.#entryLen | 0;
    let at = (leaf + HEAD) | 0;
    for (let left = len; left > 0; left = (left - 1) | 0, at = (at + entryLen) | 0) {
      const about = data[(at + portsAt + 1) | 0]!;
      const srcMask = (about >>> 6) & 0x3fc;
      const dstMask = (about << 2) & 0x3fc;
      const first = (src ^ data[at]!) & MASKS[srcMask]!;
      const second = (dst ^ data[(at + dstAt) | 0]!) & MASKS[dstMask]!;
      if ((first | second) !== 0) continue;
      const ports = keys[(k + portsAt) | 0]! ^ data[(at + portsAt) | 0]!;
      const protocol = (about ^ keys[(k + portsAt + 1) | 0]!) >>> 24;
      let differ = about & (flags << FLAGS_SHIFT);
      differ |= ports & PORT_MASKS[(about >>> PORTS_SHIFT) & 3]!;
      differ |= protocol & -((about >>> PROTOCOL_SHIFT) & 1);
      for (let i = 1; i < dstAt; i = (i + 1) | 0) {
        const j = (i + dstAt) | 0;
        differ |= (keys[(k + i) | 0]! ^ data[(at + i) | 0]!) & MASKS[srcMask + i]!;
        differ |= (keys[(k + j) | 0]! ^ data[(at + j) | 0]!) & MASKS[dstMask + i]!;
      }
      if (differ === 0) return data[(at + portsAt + 2) | 0]!;
    }
    return NONE;
  }

  /** Puts a rule to the others, in its place; where the list is then, since it may have moved. */
  insert(leaf: number, slot: number): number {
    const len = this.length(leaf);
    const to = roomFor(len + 1) === roomFor(len) ? leaf : this.#move(leaf, len, roomFor(len + 1));
    let place = len;
    while (place > 0 && this.#rules.compare(this.slotAt(to, place - 1), slot) > 0) place--;
    const at = to + HEAD + place * this.#entryLen;
    this.data.copyWithin(at + this.#entryLen, at, to + HEAD + len * this.#entryLen);
    this.#write(at, slot);
    this.#setLength(to, len + 1);
    this.#entries++;
    return to;
  }

  /** Takes a rule out; where the list is then, or -1 when the rule was not there. */
  remove(leaf: number, slot: number): number {
    const len = this.length(leaf);
    let place = 0;
    while (place < len && this.slotAt(leaf, place) !== slot) place++;
    if (place === len) return NONE;
    const at = leaf + HEAD + place * this.#entryLen;
    this.data.copyWithin(at, at + this.#entryLen, leaf + HEAD + len * this.#entryLen);
    const fits = roomFor(len - 1) === roomFor(len);
    const to = fits ? leaf : this.#move(leaf, len - 1, roomFor(len - 1));
    const wasStale = this.isStale(leaf);
    this.#setLength(to, len - 1);
    if (wasStale) this.setStale(to);
    this.#entries--;
    return to;
  }

  #move(leaf: number, len: number, room: number): number {
    const to = this.#take(room);
    this.data.copyWithin(to, leaf, leaf + HEAD + len * this.#entryLen);
    this.#giveRoom(leaf, roomFor(this.length(leaf)));
    const hidden = this.#hidden.get(leaf);
    if (hidden) {
      this.#hidden.delete(leaf);
      this.#hidden.set(to, hidden);
    }
    return to;
  }

  #giveRoom(leaf: number, room: number): void {
    this.#free[room] ??= [];
    this.#free[room].push(leaf);
  }

  #take(room: number): number {
    const free = this.#free[room]?.pop();
    if (free !== undefined) return free;
    const at = this.#used;
    this.#used += HEAD + room * this.#entryLen;
    if (this.#used > this.data.length) {
      const { data } = this;
      this.data = new Int32Array(Math.max(this.#used, 2 * data.length));
      this.data.set(data);
    }
    return at;
  }

  #setLength(leaf: number, len: number): void {
    this.data[leaf] = len;
    this.data[leaf + LEAST_AT] = len > 0 ? this.#rules.priorities[this.slotAt(leaf, 0)]! : -1;
  }

  #write(at: number, slot: number): void {
    const { words, keyWords, loopback, policies } = this.#rules;
    const from = slot * 2 * keyWords;
    for (let i = 0; i < keyWords - 1; i++) this.data[at + i] = words[from + 2 * i]!;
    const { src, dst } = policies[slot]!.selector;
    const portsMask = words[from + 2 * keyWords - 3]!;
    const ports = (portsMask >>> 16 === 0 ? 0 : 2) | ((portsMask & 0xffff) === 0 ? 0 : 1);
    let about = words[from + 2 * keyWords - 2]! | (src.length << 8) | dst.length;
    if (words[from + 2 * keyWords - 1] !== 0) about |= 1 << PROTOCOL_SHIFT;
    if (loopback[slot] === 0) about |= LOOPBACK << FLAGS_SHIFT;
    if (portsMask !== 0) about |= PORTLESS << FLAGS_SHIFT;
    this.data[at + keyWords - 1] = about | (ports << PORTS_SHIFT);
    this.data[at + keyWords] = slot;
  }
}

/** Room for 1, 2, 3, 4, 6, 8, 12, 16, … rules: little is left empty, and lists seldom move. */
export function roomFor(len: number): number {
  if (len < 4) return Math.max(1, len);
  const power = 1 << (31 - Math.clz32(len));
  if (len === power) return power;
  return len <= 1.5 * power ? 1.5 * power : 2 * power;
}
