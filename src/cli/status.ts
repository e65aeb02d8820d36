import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { KeyError } from '../base/error.ts';
import { request } from '../daemon/control-client.ts';
import { controlPath } from '../daemon/paths.ts';
import type { SocketLine } from '../daemon/socket-status.ts';
import type { Status } from '../daemon/status.ts';
import type { BacklogCounts } from '../drivers/backlog-counts.ts';
import { integer, socketOption } from './options.ts';
import { socketsText } from './status-sockets.ts';

interface StatusOptions {
  readonly socket: string;
  readonly json?: boolean;
  readonly wait?: number;
  readonly sockets?: boolean;
}

export function statusCommand(): Command {
  return new Command('status')
    .description('what a running host has and has done')
    .addOption(socketOption())
    .option('--json', 'as one JSON object')
    .option('--wait <seconds>', 'wait so long for the host to be ready', integer(0, 3600))
    .option('--sockets', 'the sockets of programs that have a policy, and how they are protected')
    .action(async (options: StatusOptions) => {
      const status = await askStatus(options.socket, options.wait ?? 0);
      if (options.sockets) {
        const sockets = (await request(controlPath(options.socket), 'sockets')) as SocketLine[];
        process.stdout.write(
          options.json ? `${JSON.stringify(sockets, null, 2)}\n` : socketsText(sockets),
        );
        return;
      }
      process.stdout.write(
        options.json ? `${JSON.stringify(status, null, 2)}\n` : statusText(status),
      );
    });
}

/** Asks until the host answers or the time is over. */
export async function askStatus(socket: string, waitSeconds: number): Promise<Status> {
  const until = Date.now() + waitSeconds * 1000;
  for (;;) {
    try {
      return (await request(controlPath(socket), 'status')) as Status;
    } catch (error) {
      const isEarly = error instanceof KeyError && ['ENOENT', 'EAGAIN'].includes(error.errno);
      if (!isEarly || Date.now() >= until) throw error;
      await sleep(50);
    }
  }
}

export function statusText(status: Status): string {
  const { sas, policies } = status;
  const lines = [
    `testudo ${status.version}, pid ${status.pid}, up ${status.uptimeSeconds} s`,
    `attached  ${status.attachment}`,
    `crypto    ${status.crypto}`,
    ...status.io.map((line) => `packets   ${line}`),
    `wire MTU  ${status.wireMtu}`,
    `SAs       ${sas.mature} mature, ${sas.dying} dying, ${sas.larval} larval`,
    `policies  ${policies.in} in, ${policies.out} out, ${policies.fwd} fwd`,
    `          large tables are searched by ${status.search}`,
    '',
    'packets',
    ...Object.entries(status.packets)
      .filter(([, count]) => count > 0)
      .map(([what, count]) => row(count, what)),
    ...(status.backlog ? backlogText(status.backlog) : []),
    '',
    'dropped',
    ...status.drops.map((drop) =>
      row(drop.count, `${drop.side.padEnd(3)} ${drop.reason}: ${drop.text}`),
    ),
    ...Object.entries(status.refused)
      .filter(([, count]) => count > 0)
      .map(([link, count]) => row(count, `refused by link ${link}`)),
  ];
  if (lines.at(-1) === 'dropped') lines.push(row(0, 'nothing'));
  if (status.workers.length > 0) lines.push('', ...workersText(status.workers));
  return `${lines.join('\n')}\n`;
}

function row(count: number, what: string): string {
  return `${String(count).padStart(12)}  ${what}`;
}

function backlogText({ waited, waiting, pauses, full }: BacklogCounts): string[] {
  if (waited === 0) return [];
  return [
    row(waited, `waited for a wire that is slower, ${waiting} do now`),
    row(pauses, 'pauses of the local side meanwhile'),
    row(full, 'had no room to wait, and are among those refused by the wire'),
  ];
}

function workersText(workers: Status['workers']): string[] {
  const head = ['worker', 'SAs', 'sealed', 'opened', 'passed on', 'taken over', 'no room'];
  const rows = workers.map(({ shard, sas, sealed, opened, passed, taken, refused }) => {
    return [shard, sas, sealed, opened, passed, taken, refused].map(String);
  });
  return [head, ...rows].map((cells) => cells.map((cell) => cell.padStart(12)).join(''));
}
