import type { SearchLoops, SearchTables } from '../../../src/base/table-search.ts';
import { compiledLibrary } from '../../../src/drivers/linux/compiled-library.ts';
import { isAbsent } from '../../../src/drivers/native/koffi.ts';
import { searchLoops, searchLoopsFrom } from '../../../src/drivers/native/search-loops.ts';
import { FAST_VARIABLE } from './natives.ts';

/** The loops of this machine: as they are chosen, and as they are on any processor. */
export function searches(): readonly (readonly [string, SearchLoops])[] {
  const another = process.env[FAST_VARIABLE];
  const library = another ? { path: another } : compiledLibrary();
  if ('why' in library) return none(library.why);
  return (['auto', 'plain'] as const).flatMap((kind) => {
    const isUsual = another === undefined && kind === 'auto';
    const loops = isUsual ? searchLoops() : searchLoopsFrom(library.path, kind);
    return isAbsent(loops) ? none(loops.why) : [[kind, loops] as const];
  });
}

function none(why: string): [] {
  if (process.env.CI === 'true') throw new Error(`CI needs it: ${why}`);
  console.log(`compiled searches are not tested: ${why}`);
  return [];
}

/** Loops that are used for tables and batches of any size, and what became of their searches. */
export class Watched implements SearchLoops {
  readonly name = 'watched';
  readonly worth = { rules: 0, keys: 1 };
  readonly ends = { done: 0, stale: 0, refused: 0 };
  /** The most trees of a table that have rules. */
  trees = 0;
  /** The most rules of a list. */
  listLen = 0;
  readonly #loops: SearchLoops;

  constructor(loops: SearchLoops) {
    this.#loops = loops;
  }

  readonly open: SearchLoops['open'] = (batch) => {
    const search = this.#loops.open(batch);
    const run = (tables: SearchTables, count: number) => {
      const end = search.run(tables, count);
      this.ends[end]++;
      this.#look(tables);
      return end;
    };
    return {
      run,
      get staleRoot() {
        return search.staleRoot;
      },
      get staleKey() {
        return search.staleKey;
      },
    };
  };

  #look({ nodes, visits, pool }: SearchTables): void {
    this.trees = Math.max(this.trees, visits.filter((root) => nodes[root] !== 0).length);
    for (const root of visits) {
      const node = nodes[root]!;
      if (node < 0) this.listLen = Math.max(this.listLen, pool.data[~node]!);
    }
  }
}
