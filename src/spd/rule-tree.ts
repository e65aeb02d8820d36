import { LeafPool } from './leaf-pool.ts';
import type { RuleTable } from './rule-table.ts';
import { chooseSplit, nibbleCount, nibbleOf } from './split.ts';

/** A list that is scanned to its end costs about as much as one more step down. */
const LEAF_MAX = 16;
/** How many rules a branch may have beneath for a rule that fits many of its ways to go into each. */
const REPLICATE_MAX = 64;
/** How many times as many entries as rules there may be, in a tree that is built and below a leaf. */
const BUDGET = { build: 6, split: 4 } as const;

// A node is eight words. A branch looks at one nibble of the key; a leaf is a list of rules.
const NODE_LEN = 8;
/** Of a branch where its 16 ways stand, of a leaf where its list does. */
const AT = 1;
/** Entries of a leaf, or of all leaves below a branch. */
const LEN = 2;
const ROOM = 3;
/** A leaf that could not be split is tried again at this length. */
const TRY_AT = 4;
/** A branch: the node for rules that do not say all of this nibble; every packet goes there too. */
const OPEN = 5;
const NONE = -1;

/**
 * Finds the first rule that means a packet, at a cost that hardly depends on how many there are: a
 * tree that looks at four bits of the key in each step, whichever tell the rules apart best, down
 * to short lists in the order of the rules. A rule that leaves these bits open goes either into
 * each of the ways that fit, or, where that would take too much room, into one more child that
 * every packet visits. Rules can be added and taken out at any time, and count at once.
 */
export class RuleTree {
  readonly #rules: RuleTable;
  #pool: LeafPool;
  #nodes = new Int32Array(64 * NODE_LEN);
  /** No rule below a node has a smaller priority. */
  #least = new Float64Array(64);
  #nodeCount = 0;
  #ways = new Int32Array(1024);
  #waysUsed = 0;
  #root = NONE;
  #builtSize = 0;
  readonly #stack = new Int32Array(128);
  // Of the place in the tree where something is changed: the nibbles looked at on the way there,
  // and which bits of the key all packets there have in common.
  readonly #seen: Uint8Array;
  readonly #fixed: Int32Array;

  constructor(rules: RuleTable) {
    this.#rules = rules;
    this.#pool = new LeafPool(rules);
    this.#seen = new Uint8Array(nibbleCount(rules.keyWords));
    this.#fixed = new Int32Array(rules.keyWords);
    this.rebuild();
  }

  /** Takes in a rule of the table. */
  add(slot: number): void {
    // The first rules decided how the tree branches; with twice as many it may look different.
    if (this.#rules.size > 2 * this.#builtSize + LEAF_MAX) this.rebuild();
    else this.#insert(this.#root, slot);
  }

  /** Call it while the rule still is in the table. */
  remove(slot: number): void {
    this.#delete(this.#root, slot);
    if (4 * this.#rules.size < this.#builtSize) this.rebuild(slot);
  }

  /** Makes the best tree for the rules of the table, but for one that is leaving. */
  rebuild(leaving = NONE): void {
    const slots = this.#rules.slots().filter((slot) => slot !== leaving);
    slots.sort((a, b) => this.#rules.compare(a, b));
    this.#pool = new LeafPool(this.#rules);
    this.#nodeCount = 0;
    this.#waysUsed = 0;
    this.#builtSize = slots.length;
    this.#root = this.#build(slots, BUDGET.build);
  }

  /**
   * The slot of the first rule for a packet with this key, or -1. `loopback`: only rules that name
   * that network count; `portless`: only rules without ports.
   */
  first(key: Int32Array, loopback: boolean, portless: boolean): number {
    const nodes = this.#nodes;
    const ways = this.#ways;
    const stack = this.#stack;
    let depth = 0;
    let best = NONE;
    let node = this.#root;
    for (;;) {
      while (node !== NONE) {
        const at = node * NODE_LEN;
        const nibble = nodes[at]!;
        if (nibble === NONE) {
          best = this.#earlier(best, this.#scan(at, key, loopback, portless));
          break;
        }
        const open = nodes[at + OPEN]!;
        if (open !== NONE) stack[depth++] = open;
        node = ways[nodes[at + AT]! + ((key[nibble >> 3]! >>> (28 - 4 * (nibble & 7))) & 15)]!;
      }
      do {
        if (depth === 0) return best;
        node = stack[--depth]!;
      } while (best !== NONE && this.#least[node]! > this.#rules.priorities[best]!);
    }
  }

  /**
   * As `first`, for a packet of which only the words are known that `known` has bits for: the first
   * rule that means it for some value of the rest.
   */
  firstPossible(key: Int32Array, known: Int32Array, loopback: boolean): number {
    let best = NONE;
    this.visit(
      (nibble) => nibbleOf(known[nibble >> 3]!, nibble) === 15,
      (nibble) => nibbleOf(key[nibble >> 3]!, nibble),
      (node) => best === NONE || this.#least[node]! <= this.#rules.priorities[best]!,
      (slot) => {
        if (loopback && this.#rules.loopback[slot] === 0) return true;
        if (!this.#agrees(slot, key, known)) return true;
        best = this.#earlier(best, slot);
        return false;
      },
    );
    return best;
  }

  /**
   * Walks over all leaves that a packet may come to of which only some nibbles are known. `enter`
   * may keep it out of a node; `each` gets the rules of a leaf in their order while it says true.
   */
  visit(
    isKnown: (nibble: number) => boolean,
    value: (nibble: number) => number,
    enter: (node: number) => boolean,
    each: (slot: number) => boolean,
  ): void {
    const todo = [this.#root];
    for (let node = todo.pop(); node !== undefined; node = todo.pop()) {
      if (node === NONE || !enter(node)) continue;
      const at = node * NODE_LEN;
      const nibble = this.#nodes[at]!;
      if (nibble === NONE) {
        for (const slot of this.#list(at)) if (!each(slot)) break;
        continue;
      }
      todo.push(this.#nodes[at + OPEN]!);
      const waysAt = this.#nodes[at + AT]!;
      if (isKnown(nibble)) todo.push(this.#ways[waysAt + value(nibble)]!);
      else for (let way = 0; way < 16; way++) todo.push(this.#ways[waysAt + way]!);
    }
  }

  #scan(at: number, key: Int32Array, loopback: boolean, portless: boolean): number {
    const { data, entryLen } = this.#pool;
    const wordsLen = entryLen - 1;
    let entry = this.#nodes[at + AT]!;
    const end = entry + this.#nodes[at + LEN]! * entryLen;
    for (; entry < end; entry += entryLen) {
      let i = 0;
      while (i < wordsLen && ((key[i >> 1]! ^ data[entry + i]!) & data[entry + i + 1]!) === 0) {
        i += 2;
      }
      if (i < wordsLen) continue;
      const slot = data[entry + wordsLen]!;
      if (loopback && this.#rules.loopback[slot] === 0) continue;
      if (portless && data[entry + wordsLen - 3] !== 0) continue;
      return slot;
    }
    return NONE;
  }

  #earlier(a: number, b: number): number {
    if (a === NONE || b === NONE) return a === NONE ? b : a;
    return this.#rules.compare(a, b) < 0 ? a : b;
  }

  #agrees(slot: number, key: Int32Array, known: Int32Array): boolean {
    const { words, keyWords } = this.#rules;
    const at = slot * 2 * keyWords;
    for (let i = 0; i < keyWords; i++) {
      if (((key[i]! ^ words[at + 2 * i]!) & words[at + 2 * i + 1]! & known[i]!) !== 0) return false;
    }
    return true;
  }

  #list(at: number): number[] {
    const { entryLen } = this.#pool;
    const from = this.#nodes[at + AT]!;
    return Array.from({ length: this.#nodes[at + LEN]! }, (_, i) => {
      return this.#pool.slotAt(from + i * entryLen);
    });
  }

  #insert(node: number, slot: number): void {
    const at = node * NODE_LEN;
    const priority = this.#rules.priorities[slot]!;
    if (priority < this.#least[node]!) this.#least[node] = priority;
    const nibble = this.#nodes[at]!;
    if (nibble === NONE) return this.#insertIntoLeaf(node, slot);
    this.#seen[nibble] = 1;
    const open = this.#nodes[at + OPEN]!;
    const isOpen = this.#maskOf(slot, nibble) !== 15;
    if (isOpen && open !== NONE) {
      this.#insert(open, slot);
    } else if (isOpen && this.#nodes[at + LEN]! > REPLICATE_MAX) {
      this.#setNode(at + OPEN, this.#newLeaf([slot], LEAF_MAX));
    } else {
      for (const way of this.#waysOf(slot, nibble)) this.#insertIntoWay(at, way, slot);
    }
    this.#seen[nibble] = 0;
    this.#setNode(at + LEN, this.#entriesBelow(at));
  }

  #insertIntoWay(at: number, way: number, slot: number): void {
    const nibble = this.#nodes[at]!;
    const wayAt = this.#nodes[at + AT]! + way;
    const child = this.#ways[wayAt]!;
    if (child === NONE) {
      this.#ways[wayAt] = this.#newLeaf([slot], LEAF_MAX);
      return;
    }
    const bits = 15 << (28 - 4 * (nibble & 7));
    this.#fixed[nibble >> 3]! |= bits;
    this.#insert(child, slot);
    this.#fixed[nibble >> 3]! &= ~bits;
  }

  #insertIntoLeaf(node: number, slot: number): void {
    const at = node * NODE_LEN;
    const { entryLen } = this.#pool;
    const len = this.#nodes[at + LEN]!;
    let from = this.#nodes[at + AT]!;
    if (len === this.#nodes[at + ROOM]!) from = this.#moveLeaf(at, this.#pool.roomFor(len + 1));
    let place = len;
    while (place > 0) {
      const before = this.#pool.slotAt(from + (place - 1) * entryLen);
      if (this.#rules.compare(before, slot) < 0) break;
      place--;
    }
    const placeAt = from + place * entryLen;
    this.#pool.data.copyWithin(placeAt + entryLen, placeAt, from + len * entryLen);
    this.#pool.write(placeAt, slot);
    this.#nodes[at + LEN] = len + 1;
    if (len + 1 > this.#nodes[at + TRY_AT]!) this.#split(node);
  }

  #moveLeaf(at: number, room: number): number {
    const { entryLen } = this.#pool;
    const from = this.#nodes[at + AT]!;
    const to = this.#pool.take(room);
    this.#pool.data.copyWithin(to, from, from + this.#nodes[at + LEN]! * entryLen);
    this.#pool.give(from, this.#nodes[at + ROOM]!);
    this.#nodes[at + AT] = to;
    this.#nodes[at + ROOM] = room;
    return to;
  }

  /** Makes a branch of a leaf that has become long, where that helps. */
  #split(node: number): void {
    const at = node * NODE_LEN;
    const slots = this.#list(at);
    const made = this.#build(slots, BUDGET.split);
    this.#pool.give(this.#nodes[at + AT]!, this.#nodes[at + ROOM]!);
    const madeAt = made * NODE_LEN;
    this.#nodes.copyWithin(at, madeAt, madeAt + NODE_LEN);
    this.#least[node] = this.#least[made]!;
    if (made === this.#nodeCount - 1) this.#nodeCount--;
  }

  /** True when the rule was there. */
  #delete(node: number, slot: number): boolean {
    if (node === NONE) return false;
    const at = node * NODE_LEN;
    const nibble = this.#nodes[at]!;
    if (nibble === NONE) return this.#deleteFromLeaf(at, slot);
    let found = false;
    const isOpen = this.#maskOf(slot, nibble) !== 15;
    if (isOpen) found = this.#delete(this.#nodes[at + OPEN]!, slot);
    if (!found) {
      for (const way of this.#waysOf(slot, nibble)) {
        found = this.#delete(this.#ways[this.#nodes[at + AT]! + way]!, slot) || found;
      }
    }
    this.#nodes[at + LEN] = this.#entriesBelow(at);
    return found;
  }

  #deleteFromLeaf(at: number, slot: number): boolean {
    const { entryLen, data } = this.#pool;
    const place = this.#list(at).indexOf(slot);
    if (place < 0) return false;
    const from = this.#nodes[at + AT]!;
    const len = this.#nodes[at + LEN]!;
    const placeAt = from + place * entryLen;
    data.copyWithin(placeAt, placeAt + entryLen, from + len * entryLen);
    this.#nodes[at + LEN] = len - 1;
    return true;
  }

  #entriesBelow(at: number): number {
    let count = this.#lenOf(this.#nodes[at + OPEN]!);
    const waysAt = this.#nodes[at + AT]!;
    for (let way = 0; way < 16; way++) count += this.#lenOf(this.#ways[waysAt + way]!);
    return count;
  }

  #lenOf(node: number): number {
    return node === NONE ? 0 : this.#nodes[node * NODE_LEN + LEN]!;
  }

  /** A node for rules that stand in their order. */
  #build(slots: readonly number[], budget: number): number {
    if (this.#scanLen(slots) <= LEAF_MAX) {
      return this.#newLeaf(slots, Math.max(LEAF_MAX, 2 * slots.length));
    }
    const split = chooseSplit(this.#rules, slots, this.#seen, budget);
    if (split === undefined) return this.#newLeaf(slots, 2 * slots.length);
    const { nibble, replicate, growth } = split;
    const groups: number[][] = Array.from({ length: 16 }, () => []);
    const open: number[] = [];
    for (const slot of slots) {
      if (!replicate && this.#maskOf(slot, nibble) !== 15) open.push(slot);
      else for (const way of this.#waysOf(slot, nibble)) groups[way]!.push(slot);
    }
    const node = this.#newNode();
    const at = node * NODE_LEN;
    const waysAt = this.#newWays();
    this.#nodes[at] = nibble;
    this.#nodes[at + AT] = waysAt;
    this.#least[node] = this.#rules.priorities[slots[0]!]!;
    this.#seen[nibble] = 1;
    this.#setNode(at + OPEN, open.length === 0 ? NONE : this.#build(open, budget));
    const bits = 15 << (28 - 4 * (nibble & 7));
    this.#fixed[nibble >> 3]! |= bits;
    for (const [way, group] of groups.entries()) {
      const child = group.length === 0 ? NONE : this.#build(group, budget / growth);
      this.#ways[waysAt + way] = child;
    }
    this.#fixed[nibble >> 3]! &= ~bits;
    this.#seen[nibble] = 0;
    this.#nodes[at + LEN] = this.#entriesBelow(at);
    return node;
  }

  /** How far a scan of the list goes at most: behind a rule for all packets here it ends. */
  #scanLen(slots: readonly number[]): number {
    const { words, keyWords } = this.#rules;
    for (let i = 0; i < slots.length; i++) {
      const at = slots[i]! * 2 * keyWords;
      let word = 0;
      while (word < keyWords && (words[at + 2 * word + 1]! & ~this.#fixed[word]!) === 0) word++;
      if (word === keyWords) return i + 1;
    }
    return slots.length;
  }

  /** The ways of a branch that packets of a rule may take. */
  #waysOf(slot: number, nibble: number): number[] {
    const at = slot * 2 * this.#rules.keyWords + 2 * (nibble >> 3);
    const value = nibbleOf(this.#rules.words[at]!, nibble);
    const mask = nibbleOf(this.#rules.words[at + 1]!, nibble);
    if (mask === 15) return [value];
    return ALL_WAYS.filter((way) => ((way ^ value) & mask) === 0);
  }

  #maskOf(slot: number, nibble: number): number {
    return nibbleOf(
      this.#rules.words[slot * 2 * this.#rules.keyWords + 2 * (nibble >> 3) + 1]!,
      nibble,
    );
  }

  #newLeaf(slots: readonly number[], tryAt: number): number {
    const node = this.#newNode();
    const at = node * NODE_LEN;
    const room = this.#pool.roomFor(slots.length);
    const from = this.#pool.take(room);
    for (const [i, slot] of slots.entries()) this.#pool.write(from + i * this.#pool.entryLen, slot);
    this.#nodes[at] = NONE;
    this.#nodes[at + AT] = from;
    this.#nodes[at + LEN] = slots.length;
    this.#nodes[at + ROOM] = room;
    this.#nodes[at + TRY_AT] = tryAt;
    this.#nodes[at + OPEN] = NONE;
    this.#least[node] = slots.length > 0 ? this.#rules.priorities[slots[0]!]! : Infinity;
    return node;
  }

  /** Once `value` is known: what made it may have moved all nodes. */
  #setNode(at: number, value: number): void {
    this.#nodes[at] = value;
  }

  #newNode(): number {
    if (this.#nodeCount === this.#least.length) {
      const { length } = this.#least;
      const [nodes, least] = [this.#nodes, this.#least];
      this.#nodes = new Int32Array(2 * length * NODE_LEN);
      this.#nodes.set(nodes);
      this.#least = new Float64Array(2 * length);
      this.#least.set(least);
    }
    return this.#nodeCount++;
  }

  #newWays(): number {
    if (this.#waysUsed === this.#ways.length) {
      const ways = this.#ways;
      this.#ways = new Int32Array(2 * ways.length);
      this.#ways.set(ways);
    }
    this.#waysUsed += 16;
    return this.#waysUsed - 16;
  }
}

const ALL_WAYS = [...Array(16).keys()];
