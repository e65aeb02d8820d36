import { Command } from 'commander';
import { type Address, formatAddress } from '../base/address.ts';
import { request } from '../daemon/control-client.ts';
import { controlPath } from '../daemon/paths.ts';
import type { PingLine, PingResult } from '../daemon/services.ts';
import { integer, readAddress, socketOption } from './options.ts';

interface PingOptions {
  readonly socket: string;
  readonly count: number;
  readonly size: number;
  readonly interval: number;
}

export function pingCommand(): Command {
  return new Command('ping')
    .description('ICMP echo from a host in user space, which the ping of the system cannot use')
    .argument('<address>', 'whom', readAddress)
    .addOption(socketOption())
    .option('-c, --count <number>', 'how many requests', integer(1, 1_000_000), 4)
    .option('-s, --size <octets>', 'data in each', integer(0, 65_000), 56)
    .option('-i, --interval <milliseconds>', 'between two', integer(1, 60_000), 1000)
    .action(ping);
}

async function ping(to: Address, options: PingOptions): Promise<void> {
  const { socket, count, size, interval } = options;
  const text = formatAddress(to);
  process.stdout.write(`PING ${text}: ${size} data octets\n`);
  const args = { to: text, count, size, intervalMs: interval };
  const result = (await request(controlPath(socket), 'ping', args, {
    timeoutMs: 0,
    onLine: (line) => process.stdout.write(`${pingText(line as PingLine)}\n`),
  })) as PingResult;
  const lost = Math.round((1 - result.received / result.sent) * 100);
  process.stdout.write(`${result.sent} sent, ${result.received} received, ${lost} % lost\n`);
  if (result.received === 0) process.exitCode = 1;
}

export function pingText(line: PingLine): string {
  const { octets, from, seq, hopLimit, milliseconds } = line;
  return `${octets + 8} octets from ${from}: icmp_seq=${seq} ttl=${hopLimit} time=${milliseconds.toFixed(2)} ms`;
}
