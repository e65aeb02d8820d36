import type { SearchLoops, TableSearch } from '../base/table-search.ts';
import { cutOf } from './cut.ts';
import { LEAST_AT, STALE } from './leaf-pool.ts';
import { EMPTY, type RuleTree } from './rule-tree.ts';

/** So many packets are looked up together. */
export const SEARCH_MAX = 192;

// The compiler takes names that only this file has as constants; imported ones it looks up.
const wayOf = cutOf;
const STALE_LIST = STALE;
const LEAST = LEAST_AT;

const NONE = -1;
/** No list is behind it: priorities have 32 bits. */
const NO_BOUND = 0xffff_ffff;
/** From one line of the processor's cache to the next; most lists end in the third. */
const LINE_WORDS = 16;

/**
 * Looks up many packets in a tree, in stages: all take their first step down, then all their
 * second, then the lists of all are fetched, then all are scanned. A table of 100,000 rules does
 * not fit into the processor's own cache, and what one packet waits for the next one does not: the
 * reads of a stage are under way together.
 */
export class BatchSearch {
  /** Where each packet is on its way down. */
  readonly #nodes = new Int32Array(SEARCH_MAX);
  readonly #moving = new Int32Array(SEARCH_MAX);
  /** The priority of what each packet has found: lists of later ones need not be looked at. */
  readonly #bounds = new Uint32Array(SEARCH_MAX);
  readonly keyWords: number;
  /** The keys and flags of packets, one after the other, as `first` of the tree gets them. */
  readonly keys: Int32Array;
  readonly flags = new Uint8Array(SEARCH_MAX);
  /** What it says of each. */
  readonly found = new Int32Array(SEARCH_MAX);
  readonly #loops: SearchLoops | undefined;
  #compiled: TableSearch | undefined;
  /** Nobody reads it; without it the reads that fetch would be left out. */
  fetched = 0;

  /** `loops`: what large tables are searched by where it is there. */
  constructor(keyWords: number, loops?: SearchLoops) {
    this.keyWords = keyWords;
    this.keys = new Int32Array(SEARCH_MAX * keyWords);
    this.#loops = loops;
  }

  /** Looks up the first `count` keys. */
  run(tree: RuleTree, count: number): void {
    if (this.#runCompiled(tree, count)) return;
    const { keys, flags, found } = this;
    found.fill(NONE, 0, count);
    this.#bounds.fill(NO_BOUND, 0, count);
    for (const root of tree.visits) {
      if (tree.nodes[root] === EMPTY) continue;
      do {
        this.#descend(tree, root, keys, count);
        this.#fetch(tree.pool.data, count);
      } while (!this.#scan(tree, root, keys, flags, count, found));
    }
  }

  /** False: there are no loops, they are not worth it, or they refused. */
  #runCompiled(tree: RuleTree, count: number): boolean {
    const loops = this.#loops;
    if (loops === undefined) return false;
    if (tree.rules.size < loops.worth.rules || count < loops.worth.keys) return false;
    this.#compiled ??= loops.open(this);
    const search = this.#compiled;
    for (;;) {
      const result = search.run(tree, count);
      if (result !== 'stale') return result === 'done';
      tree.refresh(search.staleRoot, this.keys, search.staleKey * this.keyWords);
    }
  }

  #descend(tree: RuleTree, root: number, keys: Int32Array, count: number): void {
    const { nodes } = tree;
    const at = this.#nodes;
    const moving = this.#moving;
    const bounds = this.#bounds;
    const step = this.keyWords;
    const least = tree.leastOf(root);
    const first = nodes[root]!;
    let left = 0;
    for (let i = 0; i < count; i++) {
      const isBehind = bounds[i]! < least;
      at[i] = isBehind ? 0 : first;
      if (isBehind) continue;
      moving[left] = i;
      left = (left + 1) | 0;
    }
    if (first < 0) return;
    // Which packets go on is noted without a branch: nobody could guess it.
    while (left > 0) {
      let more = 0;
      for (let j = 0; j < left; j++) {
        const i = moving[j]!;
        const node = at[i]!;
        const next = nodes[(node + 1 + wayOf(nodes[node]!, keys, Math.imul(i, step), 1)) | 0]!;
        at[i] = next;
        moving[more] = i;
        more = (more + ((0 - next) >>> 31)) | 0;
      }
      left = more;
    }
  }

  #fetch(lists: Int32Array, count: number): void {
    const at = this.#nodes;
    const last = (lists.length - 1) | 0;
    let fetched = 0;
    for (let i = 0; i < count; i++) {
      const node = at[i]!;
      const list = ~node & (node >> 31);
      fetched ^= lists[list]! ^ lists[Math.min((list + LINE_WORDS) | 0, last)]!;
      fetched ^= lists[Math.min((list + 2 * LINE_WORDS) | 0, last)]!;
    }
    this.fetched = fetched;
  }

  /** False: a list had to be made anew, and all are to take their way again. */
  #scan(
    tree: RuleTree,
    root: number,
    keys: Int32Array,
    flags: Uint8Array,
    count: number,
    found: Int32Array,
  ): boolean {
    const at = this.#nodes;
    const bounds = this.#bounds;
    const step = this.keyWords;
    const { pool } = tree;
    const { priorities } = tree.rules;
    const lists = pool.data;
    const last = tree.visits[tree.visits.length - 1]!;
    for (let i = 0; i < count; i++) {
      const node = at[i]!;
      if (node === 0 || lists[(~node + LEAST) | 0]! >>> 0 > bounds[i]!) continue;
      const slot = pool.scan(~node, keys, Math.imul(i, step), flags[i]!);
      if (slot === NONE) continue;
      if (slot === STALE_LIST) {
        tree.refresh(root, keys, i * step);
        return false;
      }
      const before = found[i]!;
      if (before !== NONE) {
        const priority = priorities[slot]!;
        const isTie = priority === bounds[i]!;
        if (priority > bounds[i]! || (isTie && tree.earlier(before, slot) === before)) continue;
      }
      found[i] = slot;
      // After the last tree nobody asks, and most tables have one: it would be one more wait.
      if (root !== last) bounds[i] = priorities[slot]!;
    }
    return true;
  }
}
