import { assert } from '../base/assert.ts';
import { cutBits, cutOf, markCut, nextWay } from './cut.ts';
import { hasShape, mostSleep, orderOf, planGroups, type Shape } from './grouping.ts';
import { hides, upToCover, visibleOf } from './hiding.ts';
import { LeafPool, roomFor, STALE } from './leaf-pool.ts';
import type { RuleTable } from './rule-table.ts';
import { chooseSplit, LEAF_MAX } from './split.ts';

/** So many rules can be asked at once which of them hide others: it takes milliseconds. */
const HIDE_MAX = 4096;
/** A list that cannot be split is looked through for hidden rules up to this length. */
const HIDE_SLOWLY_MAX = 512;
/** A leaf that grows becomes a branch at this length; a new tree would have made one earlier. */
const GROWN_MAX = 12;
/** A rule that would be in more leaves than this waits for a tree that is made for it. */
const LEAVES_MAX = 64;
/**
 * How many times as many entries as rules there may be: in any group; in the rest, divided by the
 * square of its share of all rules, so that few rules may take as much room as all; in a table
 * whose rules are so many, divided by that; in what becomes of a leaf; and where most rules sleep,
 * divided by the share of those that are awake.
 */
const BUDGET = { group: 2.5, rest: 0.8, small: 8_000, leaf: 2, awake: 8 } as const;

const NONE = -1;
/** Later than any priority. */
const NEVER = 2 ** 32;
/** The home of a rule that is not in the tree. */
const NOWHERE = 255;

// A node is one word, which stands where its parent has it: nothing; a leaf, the complement of its
// place in the pool; a branch, where its cut is, with its ways behind it; or work to be done.
export const EMPTY = 0;
const PENDING = 1 << 30;
/** The roots stand at the beginning, one for each group. */
const ROOTS_MAX = 8;

/** A list of rules that has to become a node. */
interface Task {
  readonly at: number;
  readonly slots: number[];
  /** Bits that are the same for all packets that come there. */
  readonly fixed: Int32Array;
  readonly budget: number;
  /** A list of this length is not worth a branch. */
  readonly leafMax: number;
}

/** Takes part in `RuleTree.visit`. */
export interface Visitor {
  /** Rules that are hidden too, not only those that a lookup could find. */
  readonly everything: boolean;
  isDone(): boolean;
  /** Whether to look at the rules of a leaf; the first has this priority, or a later one. */
  enter(least: number): boolean;
  /** Gets the rules of a leaf in their order while it says true; then hidden ones, in no order. */
  each(slot: number): boolean;
}

/**
 * Finds the first rule that means a packet, at a cost that hardly depends on how many there are.
 * The rules are in groups of those that name the same fields (`planGroups`); each group is a tree
 * that looks at several bits of the key in each step, whichever tell the rules apart best, down to
 * short lists in the order of the rules. A rule that leaves such bits open is in every list that
 * fits, but hidden there if another is before it for all that it means. Rules can be added and
 * taken out at any time, and count at once; one that fits nowhere well is in a group of late ones.
 */
export class RuleTree {
  readonly pool: LeafPool;
  /** The roots in the order in which they are best asked. */
  readonly visits: readonly number[];
  readonly #rules: RuleTable;
  #nodes = new Int32Array(1024);
  #used = ROOTS_MAX;
  readonly #groups: readonly Shape[];
  /** The group of each rule, by its slot. */
  #home = new Uint8Array(64).fill(NOWHERE);
  readonly #builtSize: number;
  readonly #isMakeshift: boolean;
  #builtEntries = 0;
  #size: number;
  #lateCount = 0;
  #changes = 0;
  readonly #tasks: Task[] = [];
  /** By root, no rule has a smaller priority. */
  readonly #leasts = new Float64Array(ROOTS_MAX).fill(NEVER);

  /**
   * Of these rules of the table. It can be asked when `work` has said that all is done. `effort`:
   * whether it may take some times as long to make as others if it is better for that.
   */
  constructor(
    rules: RuleTable,
    slots: readonly number[] = rules.slots(),
    effort: 'little' | 'much' = 'much',
  ) {
    this.#rules = rules;
    this.pool = new LeafPool(rules);
    this.#size = slots.length;
    this.#builtSize = slots.length;
    const isVague = mostSleep(rules, slots);
    const isWide = isVague && effort === 'much';
    this.#isMakeshift = isVague && effort === 'little';
    this.#groups = isWide ? [new Int32Array(rules.keyWords)] : planGroups(rules, slots);
    assert(this.#groups.length < ROOTS_MAX, 'every group has a root, and so have late rules');
    const lists = this.#groups.map((): number[] => []);
    for (const slot of slots) lists[this.#settle(slot)]!.push(slot);
    this.visits = orderOf(rules, lists);
    const fixed = new Int32Array(rules.keyWords);
    const awake = isWide ? (BUDGET.awake * rules.size) / slots.length : 0;
    for (const [at, list] of lists.entries()) {
      if (list.length === 0) continue;
      this.#leasts[at] = list.reduce((m, slot) => Math.min(m, rules.priorities[slot]!), NEVER);
      const isRest = at > 0 && at === lists.length - 1;
      const share = list.length / slots.length;
      const rest = isRest ? BUDGET.rest / share ** 2 : 0;
      const budget = Math.max(BUDGET.group, rest, BUDGET.small / slots.length, awake);
      this.#plan({ at, slots: list, fixed, budget, leafMax: LEAF_MAX });
    }
  }

  /** The nodes, from 0 on those of the roots: see `EMPTY`. Changes may put others in its place. */
  get nodes(): Int32Array {
    return this.#nodes;
  }

  get roots(): number {
    return this.#groups.length + 1;
  }

  /** Octets of memory. */
  get octets(): number {
    return 4 * (this.#nodes.length + this.pool.data.length + this.pool.hiddenCount);
  }

  /** Much has changed since it was made: a new one would be better. */
  get isAged(): boolean {
    return this.#isMakeshift || 8 * this.#changes > this.#size;
  }

  /** It must be made anew, or it will be slow or large. */
  get isOutgrown(): boolean {
    const size = this.#size;
    if (size > 2 * this.#builtSize + 16 || 4 * size + 16 < this.#builtSize) return true;
    if (8 * this.#lateCount > Math.max(size, this.#rules.size / 4) + 64) return true;
    return this.pool.entries > 2 * this.#builtEntries + 4 * size + 1024;
  }

  /** Does some of what is left to do, about as much as looking at so many rules. True: all. */
  work(limit: number): boolean {
    let left = limit;
    while (this.#tasks.length > 0 && left > 0) {
      const task = this.#tasks.pop()!;
      left -= task.slots.length + LEAF_MAX;
      this.#do(task);
      this.#builtEntries = this.pool.entries;
    }
    return this.#tasks.length === 0;
  }

  /** No rule below that root has a smaller priority. */
  leastOf(root: number): number {
    return this.#leasts[root]!;
  }

  get rules(): RuleTable {
    return this.#rules;
  }

  /** Whether the rule is in the tree, or will be when all is done. */
  has(slot: number): boolean {
    return slot < this.#home.length && this.#home[slot] !== NOWHERE;
  }

  /** Takes in a rule of the table. */
  add(slot: number): void {
    let group = this.#settle(slot);
    if (this.#reach(group, slot, LEAVES_MAX) <= 0) {
      group = this.#groups.length;
      this.#home[slot] = group;
      this.#lateCount++;
    }
    this.#size++;
    this.#changes++;
    this.#leasts[group] = Math.min(this.#leasts[group]!, this.#rules.priorities[slot]!);
    this.#insert(group, slot, new Int32Array(this.#rules.keyWords));
  }

  /** Call it while the rule still is in the table. */
  remove(slot: number): void {
    const group = this.#home[slot]!;
    if (group === this.#groups.length) this.#lateCount--;
    this.#size--;
    this.#changes++;
    this.#home[slot] = NOWHERE;
    const found = this.#delete(group, slot, new Int32Array(this.#rules.keyWords));
    assert(found, 'the rule is in the tree');
  }

  /**
   * The slot of the first rule for a packet with the key at `k`, or -1. `flags`: what kind of
   * packet it is, see `LeafPool.scan`.
   */
  first(keys: Int32Array, k: number, flags: number): number {
    let best = NONE;
    for (let i = 0; i < this.visits.length; i++) {
      const root = this.visits[i]!;
      const nodes = this.#nodes;
      if (best !== NONE && this.#leasts[root]! > this.#rules.priorities[best]!) continue;
      let node = nodes[root]!;
      while (node > EMPTY) node = nodes[node + 1 + cutOf(nodes[node]!, keys, k, 1)]!;
      if (node === EMPTY || this.isBehind(~node, best)) continue;
      let found = this.pool.scan(~node, keys, k, flags);
      while (found === STALE) found = this.pool.scan(this.refresh(root, keys, k), keys, k, flags);
      best = this.earlier(best, found);
    }
    return best;
  }

  /** Walks over all leaves that a packet may come to of which only some bits are known. */
  visit(key: Int32Array, known: Int32Array, visitor: Visitor): void {
    for (let root = 0; root < this.roots; root++) this.#visit(root, key, known, visitor);
  }

  /** Makes the list anew to which this key leads: what hid others has gone. Where it is now. */
  refresh(root: number, keys: Int32Array, k: number): number {
    const fixed = new Int32Array(this.#rules.keyWords);
    let at = this.#descend(root, keys, k, fixed);
    this.#redo(at, ~this.#nodes[at]!, fixed);
    at = this.#descend(at, keys, k, fixed);
    // Where no rule is left, a list without rules says so.
    if (this.#nodes[at] === EMPTY) this.#setNode(at, ~this.pool.make([], []));
    return ~this.#nodes[at]!;
  }

  /** Nothing in the list comes before the rule. */
  isBehind(leaf: number, slot: number): boolean {
    return slot !== NONE && this.pool.least(leaf) > this.#rules.priorities[slot]!;
  }

  /** Of two rules the one that comes first; -1 is none. */
  earlier(a: number, b: number): number {
    if (a === NONE || b === NONE) return a === NONE ? b : a;
    return this.#rules.compare(a, b) < 0 ? a : b;
  }

  /** Where the node stands that is no branch; `fixed` gets the bits looked at on the way. */
  #descend(from: number, keys: Int32Array, k: number, fixed: Int32Array): number {
    let at = from;
    for (let node = this.#nodes[at]!; node > EMPTY; node = this.#nodes[at]!) {
      const cut = this.#nodes[node]!;
      markCut(cut, fixed);
      at = node + 1 + cutOf(cut, keys, k, 1);
    }
    return at;
  }

  #visit(at: number, key: Int32Array, known: Int32Array, visitor: Visitor): void {
    const node = this.#nodes[at]!;
    if (node === EMPTY || visitor.isDone()) return;
    if (node < EMPTY) return this.#visitLeaf(~node, visitor);
    const cut = this.#nodes[node]!;
    const open = ~cutOf(cut, known, 0, 1) & ((1 << cutBits(cut)) - 1);
    const value = cutOf(cut, key, 0, 1) & ~open;
    let way = 0;
    do {
      this.#visit(node + 1 + (value | way), key, known, visitor);
      way = nextWay(way, open);
    } while (way !== 0 && !visitor.isDone());
  }

  #visitLeaf(leaf: number, visitor: Visitor): void {
    if (!visitor.enter(this.pool.least(leaf))) return;
    for (const slot of this.pool.slots(leaf)) if (!visitor.each(slot)) break;
    if (!visitor.everything && !this.pool.isStale(leaf)) return;
    for (const slot of this.pool.hidden(leaf)) visitor.each(slot);
  }

  /** Puts the rule into a group by its shape. */
  #settle(slot: number): number {
    if (slot >= this.#home.length) {
      const home = new Uint8Array(Math.max(2 * this.#home.length, slot + 1)).fill(NOWHERE);
      home.set(this.#home);
      this.#home = home;
    }
    let group = 0;
    while (!hasShape(this.#rules, slot, this.#groups[group]!)) group++;
    this.#home[slot] = group;
    return group;
  }

  /** What is left of the limit after counting the leaves that the rule would be in. */
  #reach(at: number, slot: number, limit: number): number {
    const node = this.#nodes[at]!;
    if (node <= EMPTY || node >= PENDING) return limit - 1;
    const cut = this.#nodes[node]!;
    const open = this.#openOf(cut, slot);
    const value = this.#valueOf(cut, slot) & ~open;
    let left = limit;
    let way = 0;
    do {
      left = this.#reach(node + 1 + (value | way), slot, left);
      way = nextWay(way, open);
    } while (way !== 0 && left > 0);
    return left;
  }

  #insert(at: number, slot: number, fixed: Int32Array): void {
    const node = this.#nodes[at]!;
    if (node === EMPTY) return this.#setNode(at, ~this.pool.make([slot], []));
    if (node < EMPTY) return this.#insertIntoLeaf(at, ~node, slot, fixed);
    if (node >= PENDING) {
      this.#tasks[node - PENDING]!.slots.push(slot);
      return;
    }
    const cut = this.#nodes[node]!;
    const inner = fixed.slice();
    markCut(cut, inner);
    const open = this.#openOf(cut, slot);
    const value = this.#valueOf(cut, slot) & ~open;
    let way = 0;
    do {
      this.#insert(node + 1 + (value | way), slot, inner);
      way = nextWay(way, open);
    } while (way !== 0);
  }

  #insertIntoLeaf(at: number, leaf: number, slot: number, fixed: Int32Array): void {
    const { pool } = this;
    const len = pool.length(leaf);
    if (pool.isStale(leaf) || (len >= LEAF_MAX && this.#isHidden(leaf, slot, fixed))) {
      pool.hide(leaf, slot);
      return;
    }
    const place = pool.insert(leaf, slot);
    this.#setNode(at, ~place);
    // Tried when it needs more room anyway, so that what cannot be split is not tried all the time.
    if (len >= GROWN_MAX && roomFor(len + 1) !== roomFor(len)) this.#redo(at, place, fixed);
  }

  /** Rules far behind in a long list are not asked: an insertion must stay cheap. */
  #isHidden(leaf: number, slot: number, fixed: Int32Array): boolean {
    const asked = Math.min(this.pool.length(leaf), GROWN_MAX);
    for (let place = 0; place < asked; place++) {
      const other = this.pool.slotAt(leaf, place);
      if (this.#rules.compare(other, slot) > 0) return false;
      if (hides(this.#rules, other, slot, fixed)) return true;
    }
    return false;
  }

  /** Whether the rule was in every leaf where it should be. */
  #delete(at: number, slot: number, fixed: Int32Array): boolean {
    const node = this.#nodes[at]!;
    if (node === EMPTY) return false;
    if (node < EMPTY) return this.#deleteFromLeaf(at, ~node, slot, fixed);
    if (node >= PENDING) return takeOut(this.#tasks[node - PENDING]!.slots, slot);
    const cut = this.#nodes[node]!;
    const inner = fixed.slice();
    markCut(cut, inner);
    const open = this.#openOf(cut, slot);
    const value = this.#valueOf(cut, slot) & ~open;
    let found = true;
    let way = 0;
    do {
      found = this.#delete(node + 1 + (value | way), slot, inner) && found;
      way = nextWay(way, open);
    } while (way !== 0);
    return found;
  }

  #deleteFromLeaf(at: number, leaf: number, slot: number, fixed: Int32Array): boolean {
    const { pool } = this;
    let place = leaf;
    if (!pool.unhide(leaf, slot)) {
      place = pool.remove(leaf, slot);
      if (place === NONE) return false;
      this.#setNode(at, ~place);
      const bared = pool.hidden(place).some((other) => hides(this.#rules, slot, other, fixed));
      if (bared) pool.setStale(place);
    }
    if (pool.length(place) > 0 || pool.hidden(place).length > 0) return true;
    pool.give(place);
    this.#setNode(at, EMPTY);
    return true;
  }

  /** Makes a leaf anew, or a branch in its place. */
  #redo(at: number, leaf: number, fixed: Int32Array): void {
    const slots = [...this.pool.slots(leaf), ...this.pool.hidden(leaf)];
    this.pool.give(leaf);
    const before = this.#tasks.length;
    const inner = fixed.slice();
    this.#plan({ at, slots, fixed: inner, budget: BUDGET.leaf, leafMax: GROWN_MAX });
    while (this.#tasks.length > before) this.#do(this.#tasks.pop()!);
  }

  #plan(task: Task): void {
    const { at, slots, leafMax } = task;
    if (slots.length > leafMax) return this.#defer(task);
    slots.sort((a, b) => this.#rules.compare(a, b));
    this.#setNode(at, slots.length === 0 ? EMPTY : ~this.pool.make(slots, []));
  }

  #defer(task: Task): void {
    this.#setNode(task.at, PENDING + this.#tasks.length);
    this.#tasks.push(task);
  }

  /** Makes a leaf of the rules, or a branch, and plans what is below it. */
  #do(task: Task): void {
    const { at, slots, fixed, budget, leafMax } = task;
    if (slots.length <= leafMax) return this.#plan(task);
    if (slots.length <= HIDE_MAX) {
      slots.sort((a, b) => this.#rules.compare(a, b));
      const visible = visibleOf(this.#rules, slots, fixed, leafMax);
      if (visible !== undefined) return this.#makeLeaf(at, slots, visible);
    }
    const split = chooseSplit(this.#rules, upToCover(this.#rules, slots, fixed), fixed, budget);
    if (split === undefined) {
      slots.sort((a, b) => this.#rules.compare(a, b));
      if (slots.length > HIDE_SLOWLY_MAX) return this.#makeLeaf(at, slots, slots);
      const visible = visibleOf(this.#rules, slots, fixed, slots.length);
      return this.#makeLeaf(at, slots, visible ?? slots);
    }
    const node = this.#makeBranch(split.cut);
    this.#setNode(at, node);
    const inner = fixed.slice();
    markCut(split.cut, inner);
    const rest = budget / split.growth;
    for (const [way, group] of this.#deal(split.cut, slots).entries()) {
      if (group === undefined) continue;
      const part = { at: node + 1 + way, slots: group, fixed: inner, budget: rest, leafMax };
      // Of a long list there are so many leaves that all at once would take long.
      if (slots.length > HIDE_MAX) this.#defer(part);
      else this.#plan(part);
    }
  }

  /** The rules of each way. */
  #deal(cut: number, slots: readonly number[]): (number[] | undefined)[] {
    const groups = new Array<number[] | undefined>(1 << cutBits(cut)).fill(undefined);
    for (const slot of slots) {
      const open = this.#openOf(cut, slot);
      const value = this.#valueOf(cut, slot) & ~open;
      let way = 0;
      do {
        const group = groups[value | way];
        if (group === undefined) groups[value | way] = [slot];
        else group.push(slot);
        way = nextWay(way, open);
      } while (way !== 0);
    }
    return groups;
  }

  #makeLeaf(at: number, slots: readonly number[], visible: readonly number[]): void {
    if (visible.length === slots.length) return this.#setNode(at, ~this.pool.make(slots, []));
    const seen = new Set(visible);
    const hidden = slots.filter((slot) => !seen.has(slot));
    this.#setNode(at, ~this.pool.make(visible, hidden));
  }

  /** What the cut sees of a rule, and which of these bits the rule leaves open. */
  #valueOf(cut: number, slot: number): number {
    return cutOf(cut, this.#rules.words, slot * 2 * this.#rules.keyWords, 2);
  }

  #openOf(cut: number, slot: number): number {
    const mask = cutOf(cut, this.#rules.words, slot * 2 * this.#rules.keyWords + 1, 2);
    return ~mask & ((1 << cutBits(cut)) - 1);
  }

  #makeBranch(cut: number): number {
    const at = this.#used;
    this.#used += 1 + (1 << cutBits(cut));
    if (this.#used > this.#nodes.length) {
      const nodes = this.#nodes;
      this.#nodes = new Int32Array(Math.max(this.#used, 2 * nodes.length));
      this.#nodes.set(nodes);
    }
    this.#nodes[at] = cut;
    return at;
  }

  // The node comes in when it is known: what made it may have moved the array.
  #setNode(at: number, node: number): void {
    this.#nodes[at] = node;
  }
}

function takeOut(slots: number[], slot: number): boolean {
  const place = slots.indexOf(slot);
  if (place < 0) return false;
  slots[place] = slots.at(-1)!;
  slots.pop();
  return true;
}
