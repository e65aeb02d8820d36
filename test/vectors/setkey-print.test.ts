import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { hexDump } from '../../src/setkey/print-message.ts';
import type { PrintContext } from '../../src/setkey/print-parts.ts';
import { formatPolicyEntry } from '../../src/setkey/print-policy.ts';
import { formatSa } from '../../src/setkey/print-sa.ts';
import { fromHex } from '../../src/wire/bytes.ts';
import { decode } from '../../src/wire/pfkey.ts';

interface Recorded {
  readonly group: string;
  readonly command: string;
  readonly argv: readonly string[];
  readonly messages: readonly string[];
  readonly kernelReplies: readonly string[];
  readonly stdout: string;
}

const file = new URL('data/setkey.json', import.meta.url);
const { vectors } = JSON.parse(readFileSync(file, 'utf8')) as { vectors: readonly Recorded[] };

describe('what setkey printed of what Linux answered', () => {
  const shown = vectors.filter(
    ({ stdout, kernelReplies }) =>
      stdout.includes('sadb_seq=') || (stdout.includes('spid=') && kernelReplies.length > 0),
  );
  test('all are there', () => expect(shown.length).toBe(15));

  for (const one of shown) {
    // deleteall prints the SAs it does not delete, which nobody asked for.
    if (one.group === 'deleteall') continue;
    test(`${one.group} ${one.command}`, () => {
      const [flags = ''] = one.argv;
      const context: PrintContext = { now: nowOf(one.stdout), time, ports: flags.includes('p') };
      const messages = one.kernelReplies.map((hex) => decode(fromHex(hex), 'linux'));
      const printed = messages.map((message) =>
        message.type.startsWith('X_SPD')
          ? formatPolicyEntry(message, context)
          : formatSa(message, context),
      );
      const dump = one.argv.includes('-H') ? hexDump(fromHex(one.messages[0]!)) : '';
      expect(masked(dump + printed.join(''))).toBe(masked(ours(one.stdout)));
    });
  }
});

/**
 * Its build has no name for protocol 255 and prints the number; KAME and FreeBSD print `any`, and
 * so do we.
 */
function ours(stdout: string): string {
  return stdout.replaceAll(/^(\S+ \S+) 255$/gm, '$1 any');
}

/** The time of printing changes within a dump, and pids with every run. */
function masked(text: string): string {
  return text
    .replaceAll(/\tcurrent: \w{3} .*$/gm, '\tcurrent: NOW')
    .replaceAll(/diff: \d+\(s\)/g, 'diff: N(s)');
}

function nowOf(stdout: string): number {
  const found = /\tcurrent: (\w{3} .*)$/m.exec(stdout);
  return found ? Date.parse(`${found[1]} UTC`) / 1000 : 0;
}

/** The recording was made where local time is UTC. */
function time(seconds: number): string {
  const [, day, month, year, clock] = new Date(seconds * 1000).toUTCString().split(' ');
  return `${month} ${day!.replace(/^0/, ' ')} ${clock} ${year}`;
}
