import { existsSync } from 'node:fs';

/** A file of the project, from the sources as from what they are compiled to. */
export function projectFile(path: string): URL {
  let here = new URL('.', import.meta.url);
  while (!existsSync(new URL('package.json', here))) here = new URL('..', here);
  return new URL(path, here);
}

/** Packets and messages that others made. */
export function vectorFile(name: string): URL {
  return projectFile(`test/vectors/data/${name}`);
}
