import { readFileSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { DROPS, type DropReason } from '../src/base/drop.ts';
import { testudo } from '../src/cli/commands.ts';
import { ALGORITHMS, type Algorithm, keyLengthText } from '../src/crypto/algorithms.ts';
import { nodeCrypto } from '../src/crypto/node-provider.ts';
import { ADVICE } from '../src/engine/explain-advice.ts';

/**
 * Tables in the manuals are made from the tables in the code. When one of these fails, run it with
 * UPDATE=1 in the environment, and look at what changed.
 */

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), `|${'---|'.repeat(head.length)}`, ...rows.map(line)].join('\n');
}

function algorithms(kinds: readonly Algorithm['kind'][]): string {
  const rows = ALGORITHMS.filter((row) => kinds.includes(row.kind)).map((row) => [
    [row.name, ...row.aliases].map((name) => `\`${name}\``).join(', '),
    keyLengthText(row),
    row.icvLen === 0 ? '' : String(8 * row.icvLen),
    row.source,
    [row.legacy ? 'legacy' : '', nodeCrypto.supports(row) ? '' : 'absent']
      .filter(Boolean)
      .join(', '),
  ]);
  return table(['name', 'key', 'ICV, bits', 'source', ''], rows);
}

function drops(): string {
  const rows = Object.entries(DROPS).map(([name, { side, text }]) => {
    return [`\`${name}\``, side, text, ADVICE[name as DropReason].text];
  });
  return table(['reason', 'packets', 'what it means', 'what to do'], rows);
}

function describeCommand(command: Command): string {
  const args = command.registeredArguments.map((one) => {
    const name = `${one.name()}${one.variadic ? '...' : ''}`;
    return one.required ? `<${name}>` : `[${name}]`;
  });
  const rows = command.options.map(({ flags, description, argChoices, defaultValue, envVar }) => {
    const isEmpty = Array.isArray(defaultValue) && defaultValue.length === 0;
    const hasDefault = defaultValue !== undefined && typeof defaultValue !== 'boolean' && !isEmpty;
    // Where sockets and state are depends on who runs it; the text above says how.
    const isPlace = flags.startsWith('--socket') || flags.startsWith('--state');
    const notes = [
      argChoices ? argChoices.join(', ') : '',
      hasDefault && !isPlace ? `default ${String(defaultValue)}` : '',
      envVar ? `or ${envVar}` : '',
    ].filter(Boolean);
    const text = notes.length > 0 ? `${description} (${notes.join('; ')})` : description;
    return [`\`${flags}\``, text.trim()];
  });
  const head = `## testudo ${[command.name(), ...args].join(' ')}\n\n${command.description()}`;
  return rows.length === 0 ? head : `${head}\n\n${table(['option', ''], rows)}`;
}

/** Replaces what stands between a marker and the end, or checks it. */
function check(file: string, marker: string, text: string): void {
  const path = new URL(`../docs/${file}`, import.meta.url);
  const before = readFileSync(path, 'utf8');
  const [start, end] = [`<!-- ${marker} -->\n`, '<!-- end -->'];
  const at = before.indexOf(start) + start.length;
  const after = `${before.slice(0, at)}${text}\n${before.slice(before.indexOf(end, at))}`;
  if (process.env.UPDATE === '1') writeFileSync(path, after);
  expect(readFileSync(path, 'utf8')).toBe(after);
}

describe('made from the code', () => {
  test('the algorithms of setkey(8)', () => {
    const text = `### Encryption, \`-E\`\n\n${algorithms(['cipher', 'aead'])}\n\n### Authentication, \`-A\`\n\n${algorithms(['mac'])}`;
    check('man/setkey.8.md', 'algorithms', text);
  });

  test('the commands of testudo(1)', () => {
    check('man/testudo.1.md', 'commands', testudo().commands.map(describeCommand).join('\n\n'));
  });

  test('the reasons for drops', () => {
    check('drops.md', 'drops', drops());
  });
});
