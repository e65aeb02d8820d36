import { Command } from 'commander';
import { request } from '../daemon/control-client.ts';
import { controlPath } from '../daemon/paths.ts';
import { traceText } from '../daemon/trace-command.ts';
import type { TraceLine } from '../engine/tracer.ts';
import { integer, socketOption } from './options.ts';

interface TraceOptions {
  readonly socket: string;
  readonly rate: number;
  readonly json?: boolean;
}

export function traceCommand(): Command {
  return new Command('trace')
    .description('what becomes of packets of a running host, as they come')
    .argument(
      '[selector...]',
      '[in|out] [protocol [source [destination]]], or a reason for drops; all packets if not said',
    )
    .addOption(socketOption())
    .option('--rate <number>', 'the most packets a second', integer(1, 1000), 10)
    .option('--json', 'one JSON object per line, each with a whole explanation')
    .action(trace);
}

async function trace(words: readonly string[], options: TraceOptions): Promise<void> {
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  process.once('SIGTERM', () => stop.abort());
  // Whoever read it, such as head(1), has had enough.
  process.stdout.on('error', () => stop.abort());
  const args = { selector: words.join(' '), perSecond: options.rate };
  await request(controlPath(options.socket), 'trace', args, {
    timeoutMs: 0,
    signal: stop.signal,
    onLine: (line) => {
      const text = options.json ? JSON.stringify(line) : traceText(line as TraceLine);
      process.stdout.write(`${text}\n`);
    },
  });
}
