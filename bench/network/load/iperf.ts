import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Testbed } from '../testbed.ts';
import type { Tunnel } from '../variant.ts';

export interface TcpLoad {
  readonly streams: number;
  readonly seconds: number;
  /** TCP's congestion control: BBR paces itself by what it has measured, CUBIC by what was lost. */
  readonly congestion: string;
}

/** TCP from A to B by iperf3: Mbit/s that the receiver counted. */
export async function tcpMbps(
  bed: Testbed,
  { from, to }: Tunnel,
  { streams, seconds, congestion }: TcpLoad,
): Promise<number> {
  const server = bed.lab.spawn(bed.b.space, 'iperf3', ['-s', '-1', '-B', to, '--forceflush']);
  try {
    const ended = once(server, 'close').then(() => Promise.reject(new Error('no iperf3 server')));
    await Promise.race([once(server.stdout!, 'data'), ended]);
    await sleep(100);
    const how = ['-P', String(streams), '-t', String(seconds), '-C', congestion];
    const args = ['-c', to, '-B', from, ...how, '-J'];
    const { stdout } = await bed.lab.run(bed.a.space, 'iperf3', args);
    const { end, error } = JSON.parse(stdout) as {
      end: { sum_received?: { bits_per_second: number } };
      error?: string;
    };
    if (end.sum_received === undefined) throw new Error(`iperf3: ${error}`);
    return end.sum_received.bits_per_second / 1e6;
  } finally {
    server.kill('SIGKILL');
  }
}
