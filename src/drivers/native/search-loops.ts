import type * as Koffi from 'koffi';
import { assert } from '../../base/assert.ts';
import {
  type SearchBatch,
  type SearchLoops,
  type SearchTables,
  TABLE_FORMAT,
  type TableSearch,
} from '../../base/table-search.ts';
import { COMPILED_LIBRARY, compiledLibrary } from '../linux/compiled-library.ts';
import { type Absent, isAbsent, loadKoffi } from './koffi.ts';
import { addressOf, type NativeBlock, nativeBlock, setLong } from './memory.ts';
import { SMALL_MAX } from './regions.ts';

/** Words of `struct search` in native/fast/search.h, and roots of a table that it has room for. */
const JOB = {
  nodes: 0,
  lists: 2,
  priorities: 4,
  serials: 6,
  keys: 8,
  flags: 10,
  found: 12,
  nodesLen: 14,
  listsLen: 15,
  rulesLen: 16,
  keyWords: 17,
  room: 18,
  count: 19,
  plain: 20,
  rootCount: 21,
  staleRoot: 22,
  staleKey: 23,
  roots: 24,
  words: 40,
} as const;
const ROOTS_MAX = 8;
/** Keys that can be looked up together. */
const KEYS_MAX = 256;
const LAYOUT = [TABLE_FORMAT, JOB.words, KEYS_MAX, ROOTS_MAX];

/**
 * A call costs as much as three lookups. In small tables it would pay too, but who has one asks for
 * packets one by one.
 */
const WORTH = { rules: 1024, keys: 4 } as const;

/** No node at a root: there is no tree. */
const EMPTY = 0;
const PRIORITY_MAX = 0xffff_ffff;
const RESULTS = ['done', 'stale'] as const;

/** `plain`: without instructions that only some processors have. */
export type SearchKind = 'auto' | 'plain';

let loaded: SearchLoops | Absent | undefined;

/** The loops of this installation. */
export function searchLoops(): SearchLoops | Absent {
  if (loaded === undefined) {
    const library = compiledLibrary();
    loaded = 'why' in library ? library : searchLoopsFrom(library.path);
  }
  return loaded;
}

/** Loads native/fast/search.c from a shared library. */
export function searchLoopsFrom(path: string, kind: SearchKind = 'auto'): SearchLoops | Absent {
  const koffi = loadKoffi();
  if (isAbsent(koffi)) return koffi;
  try {
    const library = koffi.load(path);
    const symbol = library.symbol('testudo_search_layout');
    const numbers = [...(koffi.decode(symbol, 'uint32_t', LAYOUT.length) as Iterable<number>)];
    if (!numbers.every((number, i) => number === LAYOUT[i])) {
      return { why: `${COMPILED_LIBRARY} is of another version; run "npm rebuild testudo"` };
    }
    const search = library.func('int32_t testudo_search(uintptr_t)') as unknown as Search;
    return {
      name: 'compiled loops',
      worth: WORTH,
      open: (batch) => new CompiledSearch(koffi, search, batch, kind),
    };
  } catch (error) {
    return {
      why: `${COMPILED_LIBRARY}: ${error instanceof Error ? error.message : String(error)}`,
    };
  }
}

type Search = (job: number) => number;
type Table = Int32Array | Uint32Array | Float64Array | Uint8Array;

/**
 * One job, whose addresses are written again when an array is another than before: arrays do not
 * move, and those of the job stay referenced until then.
 */
class CompiledSearch implements TableSearch {
  readonly #koffi: typeof Koffi;
  readonly #search: Search;
  readonly #job: NativeBlock;
  readonly #batch: SearchBatch;
  #nodes: Int32Array | undefined;
  #lists: Int32Array | undefined;
  #priorities: Uint32Array | undefined;
  #serials: Float64Array | undefined;

  constructor(koffi: typeof Koffi, search: Search, batch: SearchBatch, kind: SearchKind) {
    const { keyWords, keys, flags, found } = batch;
    const room = flags.length;
    assert(keys.length === room * keyWords && found.length === room, 'room for the same keys');
    assert(room <= KEYS_MAX, 'no more keys than the loops take');
    this.#koffi = koffi;
    this.#search = search;
    this.#batch = batch;
    this.#job = nativeBlock(koffi, JOB.words * 4);
    const { words } = this.#job;
    words[JOB.keyWords] = keyWords;
    words[JOB.room] = room;
    words[JOB.plain] = kind === 'plain' ? 1 : 0;
    this.#point(JOB.keys, keys);
    this.#point(JOB.flags, flags);
    this.#point(JOB.found, found);
  }

  get staleRoot(): number {
    return this.#job.words[JOB.staleRoot]!;
  }

  get staleKey(): number {
    return this.#job.words[JOB.staleKey]!;
  }

  run(tables: SearchTables, count: number): 'done' | 'stale' | 'refused' {
    assert(count <= this.#batch.flags.length, 'keys that there is room for');
    this.#see(tables);
    const { nodes, visits } = tables;
    const { words } = this.#job;
    words[JOB.count] = count;
    let roots = 0;
    for (const root of visits) {
      if (nodes[root] === EMPTY) continue;
      words[JOB.roots + 2 * roots] = root;
      words[JOB.roots + 2 * roots + 1] = Math.min(tables.leastOf(root), PRIORITY_MAX);
      roots++;
    }
    words[JOB.rootCount] = roots;
    return RESULTS[this.#search(this.#job.address)] ?? 'refused';
  }

  #see({ nodes, pool, rules }: SearchTables): void {
    const { words } = this.#job;
    const lists = pool.data;
    const { priorities, serials } = rules;
    if (nodes !== this.#nodes) {
      this.#point(JOB.nodes, nodes);
      words[JOB.nodesLen] = nodes.length;
      this.#nodes = nodes;
    }
    if (lists !== this.#lists) {
      this.#point(JOB.lists, lists);
      words[JOB.listsLen] = lists.length;
      this.#lists = lists;
    }
    if (priorities === this.#priorities && serials === this.#serials) return;
    this.#point(JOB.priorities, priorities);
    this.#point(JOB.serials, serials);
    words[JOB.rulesLen] = Math.min(priorities.length, serials.length);
    this.#priorities = priorities;
    this.#serials = serials;
  }

  #point(word: number, table: Table): void {
    assert(table.byteLength > SMALL_MAX, 'an array that does not move');
    const bytes = new Uint8Array(table.buffer, table.byteOffset, table.byteLength);
    setLong(this.#job.words, 4 * word, addressOf(this.#koffi, bytes));
  }
}
