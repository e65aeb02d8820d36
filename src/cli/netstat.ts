import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { request } from '../daemon/control-client.ts';
import type { StatLine, StatReport } from '../daemon/netstat-table.ts';
import { controlPath } from '../daemon/paths.ts';
import { integer, socketOption } from './options.ts';

interface NetstatOptions {
  readonly socket: string;
  readonly s?: number;
  readonly protocol?: string;
  readonly json?: boolean;
  readonly watch?: number | true;
}

export function netstatCommand(): Command {
  return new Command('netstat')
    .description('what a running host has counted, in the wording of netstat(1)')
    .addOption(socketOption())
    .option('-s', 'statistics; twice: only what is not 0', (_, before: number) => before + 1, 0)
    .option('-p, --protocol <name>', 'only ipsec, ipsec6, esp, ah, ip, ip6, icmp, icmp6 or pfkey')
    .option('--json', 'as one JSON object')
    .option('--watch [seconds]', 'again and again, every second if not said', integer(1, 86_400))
    .action(netstat);
}

async function netstat(options: NetstatOptions): Promise<void> {
  const { socket, protocol, json, watch } = options;
  const args = protocol === undefined ? {} : { protocol };
  for (;;) {
    const reports = (await request(controlPath(socket), 'netstat', args)) as StatReport[];
    process.stdout.write(
      json ? `${JSON.stringify(reportsJson(reports), null, 2)}\n` : reportsText(reports, options.s),
    );
    if (watch === undefined) return;
    await sleep(1000 * (watch === true ? 1 : watch));
  }
}

/** As netstat prints: groups with a header, lines behind a tab. `verbosity` 2 leaves zeros out. */
export function reportsText(reports: readonly StatReport[], verbosity = 1): string {
  return reports
    .map(({ header, lines }) => {
      const shown = lines.flatMap((line) => lineText(line, verbosity < 2));
      return [header, ...shown].map((line) => `${line}\n`).join('');
    })
    .join('');
}

/** `{ "ipsec": { "in_success": 3, "in_esphist": { "aes-cbc": 3 } } }`. */
export function reportsJson(reports: readonly StatReport[]): Record<string, unknown> {
  return Object.fromEntries(
    reports.map(({ name, lines }) => [
      name,
      Object.fromEntries(
        lines.map((line) => [line.key, line.kind === 'count' ? line.count : line.counts]),
      ),
    ]),
  );
}

function lineText(line: StatLine, withZeros: boolean): string[] {
  if (line.kind === 'count') {
    const text = line.text.replace(/\(((\w*)\/)?(\w+)\)/g, (_, __, one: string, many: string) =>
      line.count === 1 ? (one ?? '') : many,
    );
    return line.count > 0 || withZeros ? [`\t${line.count} ${text}`] : [];
  }
  const rows = Object.entries(line.counts).filter(([, count]) => count > 0);
  if (rows.length === 0) return [];
  return [`\t${line.text}:`, ...rows.map(([name, count]) => `\t\t${name}: ${count}`)];
}
