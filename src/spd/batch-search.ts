import { cutOf } from './cut.ts';
import { STALE } from './leaf-pool.ts';
import { EMPTY, type RuleTree } from './rule-tree.ts';

/** So many packets are looked up together. */
export const SEARCH_MAX = 64;

const NONE = -1;
/** From the head of a list to the next line of the processor's cache. */
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
  readonly #keyWords: number;
  /** Nobody reads it; without it the reads that fetch would be left out. */
  fetched = 0;

  constructor(keyWords: number) {
    this.#keyWords = keyWords;
  }

  /**
   * For each of `count` packets, with their keys and flags one after the other, what `first` of the
   * tree says.
   */
  run(tree: RuleTree, keys: Int32Array, flags: Uint8Array, count: number, found: Int32Array): void {
    found.fill(NONE, 0, count);
    for (let root = tree.roots - 1; root >= 0; root--) {
      if (tree.nodes[root] === EMPTY) continue;
      do {
        this.#descend(tree.nodes, root, keys, count);
        this.#fetch(tree.pool.data, count);
      } while (!this.#scan(tree, root, keys, flags, count, found));
    }
  }

  #descend(nodes: Int32Array, root: number, keys: Int32Array, count: number): void {
    const at = this.#nodes;
    const moving = this.#moving;
    const step = this.#keyWords;
    for (let i = 0; i < count; i++) {
      at[i] = nodes[root]!;
      moving[i] = i;
    }
    // Which packets go on is noted without a branch: nobody could guess it.
    for (let left = nodes[root]! > EMPTY ? count : 0; left > 0; ) {
      let more = 0;
      for (let j = 0; j < left; j++) {
        const i = moving[j]!;
        const node = at[i]!;
        const next = nodes[node + 1 + cutOf(nodes[node]!, keys, i * step, 1)]!;
        at[i] = next;
        moving[more] = i;
        more += next > EMPTY ? 1 : 0;
      }
      left = more;
    }
  }

  #fetch(lists: Int32Array, count: number): void {
    const at = this.#nodes;
    let fetched = 0;
    for (let i = 0; i < count; i++) {
      const list = at[i]! < EMPTY ? ~at[i]! : 0;
      fetched ^= lists[list]! ^ lists[Math.min(list + LINE_WORDS, lists.length - 1)]!;
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
    const step = this.#keyWords;
    const { pool } = tree;
    for (let i = 0; i < count; i++) {
      const node = at[i]!;
      if (node === EMPTY || tree.isBehind(~node, found[i]!)) continue;
      const slot = pool.scan(~node, keys, i * step, flags[i]!);
      if (slot === STALE) {
        tree.refresh(root, keys, i * step);
        return false;
      }
      found[i] = tree.earlier(found[i]!, slot);
    }
    return true;
  }
}
