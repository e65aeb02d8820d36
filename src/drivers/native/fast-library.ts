import type { LibraryHandle } from 'koffi';
import { COMPILED_LIBRARY, compiledLibrary } from '../linux/compiled-library.ts';
import { type Absent, isAbsent, loadKoffi } from './koffi.ts';
import { LAYOUT } from './layout.ts';

/** What native/fast/jobs.c exports: the loop over jobs, compiled where there was a compiler. */
export interface FastLibrary {
  /** Referenced for as long as its function is called. */
  readonly library: LibraryHandle;
  /** Does jobs `from` to `from + count` of the queue at this address; 0 if the numbers fit. */
  readonly run: (queue: number, from: number, count: number) => number;
}

let loaded: FastLibrary | Absent | undefined;

/** The library of this installation. */
export function loadFast(): FastLibrary | Absent {
  if (loaded === undefined) {
    const library = compiledLibrary();
    loaded = 'why' in library ? library : loadFastFrom(library.path);
  }
  return loaded;
}

export function loadFastFrom(path: string): FastLibrary | Absent {
  const koffi = loadKoffi();
  if (isAbsent(koffi)) return koffi;
  try {
    const library = koffi.load(path);
    const numbers = koffi.decode(
      library.symbol('testudo_jobs_layout'),
      'uint32_t',
      LAYOUT.length + 1,
    );
    if (!isSame([...(numbers as Iterable<number>)])) {
      return { why: `${COMPILED_LIBRARY} is of another version; run "npm rebuild testudo"` };
    }
    const run = library.func('uint32_t testudo_jobs_run(uintptr_t queue, uint32_t, uint32_t)');
    return { library, run };
  } catch (error) {
    return {
      why: `${COMPILED_LIBRARY}: ${error instanceof Error ? error.message : String(error)}`,
    };
  }
}

function isSame([count, ...numbers]: readonly number[]): boolean {
  return count === LAYOUT.length && numbers.every((number, i) => number === LAYOUT[i]);
}
