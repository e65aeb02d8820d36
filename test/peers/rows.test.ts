import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

/** The table of docs/COMPLIANCE.md that says where each row of the peers' tests is shown. */

interface Cited {
  readonly row: string;
  readonly path: string;
  /** Words that are to be found in the file. */
  readonly names: readonly string[];
}

function read(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
}

function rows(): Cited[] {
  const table = read('docs/COMPLIANCE.md').split("## Rows of the peers' tests\n")[1]!;
  const lines = table.split('\n').filter((line) => /^\|(?! suite|-)/.test(line));
  return lines.flatMap((line) => {
    const [, , row, here] = line.split(/(?<!\\)\|/);
    return here!
      .split(/(?=`test\/)/)
      .filter((part) => part.startsWith('`'))
      .filter((part) => part.includes('.test.ts`'))
      .map((part) => ({
        row: row!.trim(),
        path: /^`([^`]+)`/.exec(part)![1]!,
        names: [...part.matchAll(/“([^”]+)”/g)].map(([, name]) => name!),
      }));
  });
}

const CITED = rows();

test('there are as many as there should be', () => expect(CITED.length).toBeGreaterThan(35));

test.each(CITED)('$row: $path', ({ path, names }) => {
  const text = read(path);
  for (const name of names) expect([name, text.includes(name)]).toEqual([name, true]);
});
