import { median, quantile } from '../../numbers.ts';
import type { Testbed } from '../testbed.ts';
import type { Tunnel } from '../variant.ts';

/** Milliseconds there and back. */
export interface Pings {
  readonly median: number;
  readonly p99: number;
  /** Share of pings that were not answered. */
  readonly lost: number;
}

const INTERVAL_S = 0.01;

/** A hundred pings a second from A to B, for so many seconds. */
export async function ping(bed: Testbed, { from, to }: Tunnel, seconds: number): Promise<Pings> {
  const count = Math.round(seconds / INTERVAL_S);
  const args = ['-n', '-i', String(INTERVAL_S), '-c', String(count), '-W', '1', '-I', from, to];
  const { stdout } = await bed.lab.run(bed.a.space, 'ping', args);
  return pingsOf(stdout, count);
}

/** Of what ping prints. */
export function pingsOf(stdout: string, count: number): Pings {
  const times = [...stdout.matchAll(/ time=([\d.]+) ms/g)].map((match) => Number(match[1]));
  return { median: median(times), p99: quantile(times, 0.99), lost: 1 - times.length / count };
}
