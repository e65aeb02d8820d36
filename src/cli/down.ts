import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { KeyError } from '../base/error.ts';
import { request } from '../daemon/control-client.ts';
import { attachmentStatePath, controlPath } from '../daemon/paths.ts';
import { cleanUp, RULE_PREF_DEFAULT, TABLE_DEFAULT } from '../drivers/linux/attachment.ts';
import { integer, socketOption } from './options.ts';

interface DownOptions {
  readonly socket: string;
  readonly table: number;
  readonly rulePref: number;
}

/** How long an orderly stop may take. */
const STOP_MS = 10_000;

export function downCommand(): Command {
  return new Command('down')
    .description(
      'stop a host; after a crash, remove what it has left: then packets go in the clear',
    )
    .addOption(socketOption())
    .option('--table <number>', 'routing table of the host', integer(1, 2 ** 31), TABLE_DEFAULT)
    .option('--rule-pref <number>', 'its routing rule', integer(1, 32_765), RULE_PREF_DEFAULT)
    .action(down);
}

async function down(options: DownOptions): Promise<void> {
  const { socket, table, rulePref } = options;
  if (await stopRunning(socket)) {
    process.stdout.write('testudo: stopped\n');
    return;
  }
  if (process.getuid?.() !== 0 || process.platform !== 'linux') {
    throw new Error(`no host is running on ${socket}`);
  }
  cleanUp({ table, rulePref, stateFile: attachmentStatePath(socket) });
  process.stdout.write('testudo: no host was running; what one may have left is removed\n');
}

/** Whether there was one to stop; returns when it is gone. */
async function stopRunning(socket: string): Promise<boolean> {
  try {
    await request(controlPath(socket), 'stop');
  } catch (error) {
    if (error instanceof KeyError && error.errno === 'ENOENT') return false;
    // It may be gone before its answer is read.
    if (!(error instanceof KeyError && error.errno === 'EIO')) throw error;
  }
  const until = Date.now() + STOP_MS;
  while (Date.now() < until) {
    const isThere = await request(controlPath(socket), 'status').then(
      () => true,
      (error: unknown) =>
        !(error instanceof KeyError && (error.errno === 'ENOENT' || error.errno === 'EIO')),
    );
    if (!isThere) return true;
    await sleep(50);
  }
  throw new Error(`the host on ${socket} has not stopped in ${STOP_MS / 1000} s`);
}
