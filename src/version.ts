import { readFileSync } from 'node:fs';

/** Of this package, as its package.json says; found from the sources and from what is built. */
export const version: string = readVersion(['../package.json', '../../package.json']);

function readVersion(places: readonly string[]): string {
  for (const place of places) {
    try {
      const text = readFileSync(new URL(place, import.meta.url), 'utf8');
      return (JSON.parse(text) as { version: string }).version;
    } catch {
      // The other place then.
    }
  }
  return 'unknown';
}
