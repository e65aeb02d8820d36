/**
 * What finds, for a batch of keys at once, the first of many rules that fits each, in tables that
 * somebody else keeps: code that is compiled for the processor. Who has none searches by itself.
 */
export interface SearchLoops {
  /** For people. */
  readonly name: string;
  /** In how large a table, and for how many keys at once, they are the better choice. */
  readonly worth: { readonly rules: number; readonly keys: number };
  /** For keys that are always in these arrays, which are longer than 64 octets. */
  open(batch: SearchBatch): TableSearch;
}

/**
 * What nodes, cuts and lists mean (src/spd/rule-tree.ts, cut.ts, leaf-pool.ts); loops say for which
 * they are made. It changes when that changes.
 */
export const TABLE_FORMAT = 1;

/** Keys, one after the other, with their flags, and where the numbers of their rules go, or -1. */
export interface SearchBatch {
  readonly keyWords: number;
  readonly keys: Int32Array;
  readonly flags: Uint8Array;
  readonly found: Int32Array;
}

/** Trees over flat arrays, which may be others from one search to the next. */
export interface SearchTables {
  readonly nodes: Int32Array;
  /** The nodes of the trees' roots, in the order in which they are best asked. */
  readonly visits: readonly number[];
  /** No rule below that root has a smaller priority. */
  leastOf(root: number): number;
  /** The lists that trees end in. */
  readonly pool: { readonly data: Int32Array };
  /** By the number of the rule: its priority, and what decides between equal ones. */
  readonly rules: { readonly priorities: Uint32Array; readonly serials: Float64Array };
}

export interface TableSearch {
  /**
   * Looks up the first `count` keys. `stale`: nothing was found, since the list has to be made anew
   * to which the key `staleKey` leads from `staleRoot`. `refused`: nothing was found, the tables
   * are not what they should be.
   */
  run(tables: SearchTables, count: number): 'done' | 'stale' | 'refused';
  readonly staleRoot: number;
  readonly staleKey: number;
}
