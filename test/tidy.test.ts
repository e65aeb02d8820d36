import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

/** The rules of the house that a machine can check. Each failure names the file and line. */

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const LINE_MAX = 100;
const FILE_MAX = 500;

/**
 * What each layer may import, besides itself. Siblings that are not listed do not know each other.
 */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  wire: ['base'],
  crypto: ['base'],
  sad: ['base', 'wire', 'crypto'],
  spd: ['base', 'wire'],
  engine: ['base', 'wire', 'crypto', 'sad', 'spd'],
  key: ['base', 'wire', 'crypto', 'sad', 'spd', 'engine'],
  setkey: ['base', 'wire', 'crypto', 'spd'],
  inet: ['base', 'wire', 'engine'],
  drivers: ['base', 'wire', 'crypto'],
  daemon: ['base', 'wire', 'crypto', 'sad', 'spd', 'engine', 'key', 'setkey', 'inet', 'drivers'],
  cli: [
    'base',
    'wire',
    'crypto',
    'sad',
    'spd',
    'engine',
    'key',
    'setkey',
    'inet',
    'drivers',
    'daemon',
  ],
};
/** Layers that may use the world: sockets, files, timers, packages. */
const OUTER = ['drivers', 'daemon', 'cli'];

/** What the inner layers get from `Env` and their callers instead. */
const WORLD =
  /\b(process\.|setTimeout|setInterval|setImmediate|Date\.now|new Date\b|Math\.random|performance\.)/;

interface Source {
  readonly path: string;
  readonly lines: readonly string[];
}

function sources(folder: string): Source[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(ROOT, folder, name))
    .map((path) => ({
      path: relative(ROOT, path),
      lines: readFileSync(path, 'utf8').split('\n'),
    }));
}

const product = sources('src');
const everything = [...product, ...sources('test'), ...sources('bench')];

/** Lines of these files that break a rule, as `file:line: text`. */
function breaches(
  files: readonly Source[],
  isBreach: (line: string, file: Source) => boolean,
): string[] {
  return files.flatMap((file) =>
    file.lines.flatMap((line, i) =>
      isBreach(line, file) ? [`${file.path}:${i + 1}: ${line.trim()}`] : [],
    ),
  );
}

function layerOf(file: Source): string {
  return file.path.split('/')[1]!;
}

function isInner(file: Source): boolean {
  return file.path.split('/').length > 2 && !OUTER.includes(layerOf(file));
}

function importOf(line: string): string | undefined {
  return /(?:from|import) '([^']+)'/.exec(line)?.[1] ?? /import\('([^']+)'\)/.exec(line)?.[1];
}

function isCode(line: string): boolean {
  return !/^\s*(\/?\*|\/\/)/.test(line);
}

describe('layers', () => {
  test('every folder of src is a layer', () => {
    const folders = new Set(product.filter((file) => file.path.split('/').length > 2).map(layerOf));
    expect([...folders].filter((folder) => !(folder in LAYERS))).toEqual([]);
  });

  test('imports go down only', () => {
    const bad = breaches(product, (line, file) => {
      const from = importOf(line);
      if (from === undefined || !from.startsWith('.') || file.path.split('/').length < 3)
        return false;
      const target = join(file.path, '..', from).split('/')[1]!;
      const layer = layerOf(file);
      // The package's own version stands beside the layers.
      if (target === 'version.ts') return !OUTER.includes(layer);
      return target !== layer && !LAYERS[layer]!.includes(target);
    });
    expect(bad).toEqual([]);
  });

  test('inner layers import no package, and of Node only node:crypto, in crypto', () => {
    const bad = breaches(product.filter(isInner), (line, file) => {
      const from = importOf(line);
      if (from === undefined || from.startsWith('.')) return false;
      return !(from === 'node:crypto' && layerOf(file) === 'crypto');
    });
    expect(bad).toEqual([]);
  });

  test('inner layers take clock, chance and the world from their caller', () => {
    expect(breaches(product.filter(isInner), (line) => isCode(line) && WORLD.test(line))).toEqual(
      [],
    );
  });
});

describe('files', () => {
  test('are short', () => {
    const long = everything.filter((file) => file.lines.length > FILE_MAX + 1);
    expect(long.map((file) => `${file.path}: ${file.lines.length} lines`)).toEqual([]);
  });

  test('have no catch-all names', () => {
    const bad = /(^|\/)(utils?|helpers?|common|misc|index)(\.ts|\/)/;
    expect(product.map((file) => file.path).filter((path) => bad.test(path))).toEqual([]);
  });
});

describe('lines', () => {
  test(`have at most ${LINE_MAX} columns, but for literals that cannot be broken`, () => {
    const isLong = (line: string) => line.length > LINE_MAX;
    const bad = breaches(
      everything,
      (line) => isLong(line) && !(isCode(line) && /[`'/]/.test(line)),
    );
    expect(bad).toEqual([]);
  });

  test('import with the ending .ts, and export by name', () => {
    const bad = breaches(everything, (line, { path }) => {
      if (path.startsWith('test/tidy')) return false;
      const from = importOf(line);
      const isBare = from?.startsWith('.') === true && !from.endsWith('.ts');
      return isBare || /^export (\*|default)/.test(line);
    });
    expect(bad).toEqual([]);
  });

  test('leave nothing for later', () => {
    const later = new RegExp(['TO', 'DO|FIX', 'ME|X', 'XX|@ts-', 'ignore'].join(''));
    expect(breaches(everything, (line) => later.test(line))).toEqual([]);
  });

  test('do not hide types', () => {
    const bad = breaches(
      product,
      (line) => isCode(line) && /\bas any\b|: any\b|^\s*(declare )?enum /.test(line),
    );
    expect(bad).toEqual([]);
  });

  test('compare secrets in constant time', () => {
    const bad = breaches(
      product,
      (line) =>
        isCode(line) && /\b(icv|tag|key)s?(\.\w+)? ===? (?!undefined)\w*(icv|tag|key)/i.test(line),
    );
    expect(bad).toEqual([]);
  });

  test('keep Buffer out of the inner layers', () => {
    const inner = product.filter((file) => isInner(file) && layerOf(file) !== 'crypto');
    expect(breaches(inner, (line) => isCode(line) && /\bBuffer\b/.test(line))).toEqual([]);
  });
});
