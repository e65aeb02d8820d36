import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, test } from 'vitest';
import { vectorFile } from '../../files.ts';
import { describeWithPeer } from '../peer.ts';
import type { Command, Result } from './afkey-run.ts';
import { bootUml, missingUml } from './uml.ts';

/**
 * Our setkey and the AF_KEY of a live Linux kernel: the recorded commands, one after the other,
 * must print what the setkey of ipsec-tools printed.
 */

interface Recorded extends Command {
  readonly id: number;
  readonly messages: readonly string[];
  readonly stdout: string;
}

/** What our setkey does otherwise than ipsec-tools', and why. */
const DIFFERENT: readonly { readonly command: RegExp; readonly why: string }[] = [
  { command: /^\d+ deleteall/, why: 'ipsec-tools prints what it did not delete' },
  { command: /-E simple;/, why: 'ipsec-tools warns of an obsolete algorithm' },
  { command: /\/33\[any\]/, why: 'refused before it is sent' },
];

const PROGRAM = fileURLToPath(
  new URL('../../../dist/test/interop/uml/afkey-run.js', import.meta.url),
);

function whyNot(): string | undefined {
  if (!existsSync(PROGRAM)) return 'dist/ is not built: npm run build';
  return missingUml();
}

describeWithPeer('setkey and the kernel in User Mode Linux', whyNot(), () => {
  const text = readFileSync(vectorFile('setkey.json'), 'utf8');
  const all = JSON.parse(text) as { vectors: readonly Recorded[] };
  // The others are mistakes, and never came to a kernel.
  const vectors = all.vectors.filter(({ messages }) => messages.length > 0);
  let results: readonly Result[];

  beforeAll(async () => {
    const uml = bootUml({
      script: fileURLToPath(new URL('afkey.sh', import.meta.url)),
      files: {
        'commands.json': JSON.stringify(vectors.map(({ argv, command }) => ({ argv, command }))),
        node: process.execPath,
        program: PROGRAM,
      },
    });
    try {
      results = JSON.parse(await uml.file('results.json')) as readonly Result[];
    } finally {
      await uml.stop();
    }
  });

  test('all commands were run', () => {
    expect([results.length, results.filter(({ exit }) => exit !== 0)]).toEqual([229, []]);
  });

  test('what was sent and refused, or accepted, printed the same', () => {
    const wrong = vectors.flatMap((one, i) => {
      const { stdout, stderr } = results[i]!;
      const name = `${one.id} ${one.command.slice(0, 100)}`;
      if (DIFFERENT.some(({ command }) => command.test(name))) return [];
      const [mine, theirs] = [entriesOf(stdout), entriesOf(one.stdout)];
      const same = JSON.stringify(mine) === JSON.stringify(theirs);
      return same
        ? []
        : [{ name, mine: without(mine, theirs), theirs: without(theirs, mine), stderr }];
    });
    expect(wrong).toEqual([]);
  });
});

function without(all: readonly string[], others: readonly string[]): string[] {
  return all.filter((one) => !others.includes(one));
}

/**
 * The entries of a dump in any order, without times, process ids, numbers given out and hexadecimal
 * dumps.
 */
function entriesOf(stdout: string): string[] {
  const masked = stdout
    .replaceAll(/\tcreated: .*\n/g, '')
    .replaceAll(/\tdiff: .*\n/g, '')
    .replaceAll(/\tlast: .*\n/g, '')
    .replaceAll(/(pid|spid|sadb_seq|seq|refcnt)=\d+/g, '$1=N')
    .replaceAll(/(unique|require|use)#\d+/g, '$1#N')
    // Of the protocol that means every protocol, ipsec-tools prints the number.
    .replaceAll(/ 255$/gm, ' any')
    .replaceAll(/state=(mature|dying)/g, 'state=alive');
  const entries = masked.split(/^(?=\S)/m).filter((one) => !/^[0-9a-f]{8}: /.test(one));
  // Once each: SPI 0 is there twice for ipsec-tools, which also takes 0x100000000 for it.
  return [...new Set(entries)].sort();
}
