import { createRequire } from 'node:module';
import { endianness } from 'node:os';
import type * as Koffi from 'koffi';

/** A sentence that says why something is not there. */
export interface Absent {
  readonly why: string;
}

let loaded: typeof Koffi | Absent | undefined;

/** koffi, where structs can be written as layout.ts does. */
export function loadKoffi(): typeof Koffi | Absent {
  loaded ??= load();
  return loaded;
}

export function isAbsent(found: object): found is Absent {
  return 'why' in found;
}

function load(): typeof Koffi | Absent {
  const { arch } = process;
  if (endianness() !== 'LE' || !(arch.endsWith('64') || arch === 'x64')) {
    return { why: `not on this processor (${arch})` };
  }
  try {
    return createRequire(import.meta.url)('koffi') as typeof Koffi;
  } catch (error) {
    const [reason] = error instanceof Error ? error.message.split('\n') : [String(error)];
    return { why: `koffi does not load: ${reason}` };
  }
}
