import { assert } from '../base/assert.ts';
import { LeafPool, roomFor } from './leaf-pool.ts';
import type { RuleTable } from './rule-table.ts';
import { chooseSplit, nibbleCount, nibbleOf } from './split.ts';

/** A list that is scanned to its end costs about as much as one more step down. */
const LEAF_MAX = 16;
/** A branch with more entries below takes rules that fit many of its ways into its open child. */
const REPLICATE_MAX = 64;
/** How many times as many entries as rules there may be: in a tree, and in what a leaf becomes. */
const BUDGET = { build: 6, split: 4 } as const;

const NONE = -1;

// A node is one word, which stands where its parent has it: nothing; a leaf, the complement of its
// place in the pool; or a branch: where its ways are, whether it has an open child, and its nibble.
const EMPTY = 0;
const WAYS_SHIFT = 8;
const OPEN = 0x80;
const NIBBLE = 0x7f;
/** Where the root stands: block 0 of the ways holds nothing else. */
const ROOT = 0;

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
  /** Blocks of 16 nodes. */
  #ways = new Int32Array(1024);
  // Of each branch, by its block: its open child, a priority that nothing below goes under, one for
  // what is below the open child, and how many entries all leaves below have.
  #open = new Int32Array(64);
  #least = new Float64Array(64);
  #openLeast = new Float64Array(64);
  #count = new Int32Array(64);
  #blocks = 1;
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
  }

  /** Takes in a rule of the table. */
  add(slot: number): void {
    // The first rules decided how the tree branches; with twice as many it may look different.
    if (this.#rules.size > 2 * this.#builtSize + LEAF_MAX) this.rebuild();
    else this.#setWay(0, ROOT, this.#insert(this.#ways[ROOT]!, slot));
  }

  /** Call it while the rule still is in the table. */
  remove(slot: number): void {
    const node = this.#delete(this.#ways[ROOT]!, slot);
    assert(node !== NONE, 'the rule is in the tree');
    this.#ways[ROOT] = node;
    if (4 * this.#rules.size < this.#builtSize) this.rebuild(slot);
  }

  /** Makes the best tree for the rules of the table, but for one that is leaving. */
  rebuild(leaving = NONE): void {
    const slots = this.#rules.slots().filter((slot) => slot !== leaving);
    slots.sort((a, b) => this.#rules.compare(a, b));
    this.#pool = new LeafPool(this.#rules);
    this.#blocks = 1;
    this.#builtSize = slots.length;
    const root = this.#build(slots, BUDGET.build);
    this.#ways[ROOT] = root;
  }

  /**
   * The slot of the first rule for a packet with this key, or -1. `loopback`: only rules that name
   * that network count; `portless`: only rules without ports.
   */
  first(key: Int32Array, loopback: boolean, portless: boolean): number {
    const ways = this.#ways;
    const stack = this.#stack;
    let depth = 0;
    let best = NONE;
    let node = ways[ROOT]!;
    for (;;) {
      while (node > EMPTY) {
        const nibble = node & NIBBLE;
        if ((node & OPEN) !== 0) stack[depth++] = node >> WAYS_SHIFT;
        const way = (key[nibble >> 3]! >>> (28 - 4 * (nibble & 7))) & 15;
        node = ways[((node >> WAYS_SHIFT) << 4) + way]!;
      }
      if (node < EMPTY) {
        const found = this.#pool.scan(~node, key, loopback, portless);
        best = best === NONE ? found : this.#earlier(best, found);
      }
      let block: number;
      do {
        if (depth === 0) return best;
        block = stack[--depth]!;
      } while (best !== NONE && this.#openLeast[block]! > this.#rules.priorities[best]!);
      node = this.#open[block]!;
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
      (node) => best === NONE || !this.#isLater(node, best),
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
    const todo = [this.#ways[ROOT]!];
    for (let node = todo.pop(); node !== undefined; node = todo.pop()) {
      if (node === EMPTY || !enter(node)) continue;
      if (node < EMPTY) {
        for (const slot of this.#pool.slots(~node)) if (!each(slot)) break;
        continue;
      }
      const nibble = node & NIBBLE;
      const block = node >> WAYS_SHIFT;
      if ((node & OPEN) !== 0) todo.push(this.#open[block]!);
      if (isKnown(nibble)) todo.push(this.#ways[block * 16 + value(nibble)]!);
      else for (let way = 0; way < 16; way++) todo.push(this.#ways[block * 16 + way]!);
    }
  }

  /** Nothing below the node comes before the rule. Of leaves it is not known beforehand. */
  #isLater(node: number, slot: number): boolean {
    return node > EMPTY && this.#least[node >> WAYS_SHIFT]! > this.#rules.priorities[slot]!;
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

  /** Returns what the node is afterwards. */
  #insert(node: number, slot: number): number {
    if (node === EMPTY) return ~this.#pool.make([slot]);
    if (node < EMPTY) return this.#insertIntoLeaf(~node, slot);
    const nibble = node & NIBBLE;
    const block = node >> WAYS_SHIFT;
    const priority = this.#rules.priorities[slot]!;
    if (priority < this.#least[block]!) this.#least[block] = priority;
    let after = node;
    this.#seen[nibble] = 1;
    const isOpen = this.#maskOf(slot, nibble) !== 15;
    if (isOpen && ((node & OPEN) !== 0 || this.#count[block]! > REPLICATE_MAX)) {
      const open = (node & OPEN) !== 0 ? this.#open[block]! : EMPTY;
      if (open === EMPTY || priority < this.#openLeast[block]!) this.#openLeast[block] = priority;
      this.#setOpen(block, this.#insert(open, slot));
      after = node | OPEN;
    } else {
      for (const way of this.#waysOf(slot, nibble)) this.#insertIntoWay(block, nibble, way, slot);
    }
    this.#seen[nibble] = 0;
    this.#setCount(after);
    return after;
  }

  #insertIntoWay(block: number, nibble: number, way: number, slot: number): void {
    const bits = 15 << (28 - 4 * (nibble & 7));
    this.#fixed[nibble >> 3]! |= bits;
    this.#setWay(block, way, this.#insert(this.#ways[block * 16 + way]!, slot));
    this.#fixed[nibble >> 3]! &= ~bits;
  }

  #insertIntoLeaf(leaf: number, slot: number): number {
    const place = this.#pool.insert(leaf, slot);
    const len = this.#pool.length(place);
    // Tried when it needs more room anyway, so that what cannot be split is not tried all the time.
    if (len <= LEAF_MAX || roomFor(len) === roomFor(len - 1)) return ~place;
    const slots = this.#pool.slots(place);
    this.#pool.give(place);
    return this.#build(slots, BUDGET.split);
  }

  /** Returns what the node is afterwards, or -1 when the rule was not below it. */
  #delete(node: number, slot: number): number {
    if (node === EMPTY) return NONE;
    if (node < EMPTY) return this.#deleteFromLeaf(~node, slot);
    const nibble = node & NIBBLE;
    const block = node >> WAYS_SHIFT;
    let found = false;
    if ((node & OPEN) !== 0 && this.#maskOf(slot, nibble) !== 15) {
      const after = this.#delete(this.#open[block]!, slot);
      found = after !== NONE;
      if (found) this.#open[block] = after;
    }
    for (const way of found ? [] : this.#waysOf(slot, nibble)) {
      const after = this.#delete(this.#ways[block * 16 + way]!, slot);
      if (after === NONE) continue;
      found = true;
      this.#ways[block * 16 + way] = after;
    }
    this.#setCount(node);
    return found ? node : NONE;
  }

  #deleteFromLeaf(leaf: number, slot: number): number {
    const place = this.#pool.remove(leaf, slot);
    if (place === NONE) return NONE;
    if (this.#pool.length(place) > 0) return ~place;
    this.#pool.give(place);
    return EMPTY;
  }

  /** A node for rules that stand in their order. */
  #build(slots: readonly number[], budget: number): number {
    if (slots.length === 0) return EMPTY;
    if (this.#scanLen(slots) <= LEAF_MAX) return ~this.#pool.make(slots);
    const split = chooseSplit(this.#rules, slots, this.#seen, budget);
    if (split === undefined) return ~this.#pool.make(slots);
    const { nibble, replicate, growth } = split;
    const groups: number[][] = Array.from({ length: 16 }, () => []);
    const open: number[] = [];
    for (const slot of slots) {
      if (!replicate && this.#maskOf(slot, nibble) !== 15) open.push(slot);
      else for (const way of this.#waysOf(slot, nibble)) groups[way]!.push(slot);
    }
    const block = this.#newBlock();
    this.#least[block] = this.#rules.priorities[slots[0]!]!;
    this.#openLeast[block] = open.length > 0 ? this.#rules.priorities[open[0]!]! : Infinity;
    this.#seen[nibble] = 1;
    this.#setOpen(block, this.#build(open, budget));
    const bits = 15 << (28 - 4 * (nibble & 7));
    this.#fixed[nibble >> 3]! |= bits;
    for (const [way, group] of groups.entries()) {
      this.#setWay(block, way, this.#build(group, budget / growth));
    }
    this.#fixed[nibble >> 3]! &= ~bits;
    this.#seen[nibble] = 0;
    const node = (block << WAYS_SHIFT) | (open.length > 0 ? OPEN : 0) | nibble;
    this.#setCount(node);
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

  #setCount(node: number): void {
    const block = node >> WAYS_SHIFT;
    let count = (node & OPEN) !== 0 ? this.#countOf(this.#open[block]!) : 0;
    for (let way = 0; way < 16; way++) count += this.#countOf(this.#ways[block * 16 + way]!);
    this.#count[block] = count;
  }

  #countOf(node: number): number {
    if (node === EMPTY) return 0;
    return node < EMPTY ? this.#pool.length(~node) : this.#count[node >> WAYS_SHIFT]!;
  }

  // The node comes in when it is known: what made it may have moved the arrays.

  #setWay(block: number, way: number, node: number): void {
    this.#ways[block * 16 + way] = node;
  }

  #setOpen(block: number, node: number): void {
    this.#open[block] = node;
  }

  #newBlock(): number {
    if (this.#blocks === this.#open.length) {
      const size = 2 * this.#blocks;
      const [ways, open, count] = [this.#ways, this.#open, this.#count];
      const [least, openLeast] = [this.#least, this.#openLeast];
      this.#ways = new Int32Array(16 * size);
      this.#ways.set(ways);
      this.#open = new Int32Array(size);
      this.#open.set(open);
      this.#least = new Float64Array(size);
      this.#least.set(least);
      this.#openLeast = new Float64Array(size);
      this.#openLeast.set(openLeast);
      this.#count = new Int32Array(size);
      this.#count.set(count);
    }
    return this.#blocks++;
  }
}

const ALL_WAYS = [...Array(16).keys()];
