import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { announceSkip, whyNoHosts } from '../test/hosts/namespaces.ts';
import { table } from './markdown.ts';
import { type Pings, ping } from './network/load/ping.ts';
import { processorTime, residentOctets } from './network/load/processor.ts';
import { testudo, type Way } from './network/peers/testudo.ts';
import { closeAllOnSignal, Testbed } from './network/testbed.ts';
import type { Tunnel } from './network/variant.ts';
import { median } from './numbers.ts';

/**
 * Full load for a long time: does memory grow, do pings grow slower?
 *
 *     node dist/bench/soak.js --minutes 60 [--crypto node] [--way tunnel-udp] [--every 10]
 *
 * Four TCP streams of iperf3 through two hosts, both directions at once; resident memory of both,
 * and pings, every ten seconds. A table at the end, and whether the memory of the last quarter is
 * more than that of the second: the exit status is 1 if it is by more than a tenth.
 */
const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '60' },
    crypto: { type: 'string', default: 'node' },
    way: { type: 'string', default: 'tunnel-udp' },
    every: { type: 'string', default: '10' },
    plain: { type: 'boolean', default: false },
  },
});

const GROWTH_MAX = 1.1;
/** Lines of the table at the end, whatever the number of samples. */
const LINES_MAX = 30;

interface Sample {
  readonly seconds: number;
  /** Of the hosts at A and at B. */
  readonly resident: readonly number[];
  readonly pings: Pings;
  /** Octets that B's inner side has got since the last sample, as megabits a second. */
  readonly mbps: number;
  /** Share of one processor that both hosts have used since the last sample. */
  readonly processors: number;
}

async function run(bed: Testbed, tunnel: Tunnel, seconds: number): Promise<Sample[]> {
  const load = startLoad(bed, tunnel, seconds);
  const samples: Sample[] = [];
  const every = Number(values.every);
  const began = performance.now();
  let before = { ...countersOf(bed, tunnel), ms: began };
  while (performance.now() - began < 1000 * (seconds - every / 2)) {
    const pings = await ping(bed, tunnel, every / 2);
    const due = began + 1000 * every * (samples.length + 1);
    await sleep(Math.max(0, due - performance.now()));
    if (load.failed() !== undefined) throw new Error(`iperf3 ended: ${load.failed()}`);
    const now = { ...countersOf(bed, tunnel), ms: performance.now() };
    const ms = now.ms - before.ms;
    samples.push({
      seconds: (now.ms - began) / 1000,
      resident: tunnel.pids.map(residentOctets),
      pings,
      mbps: (8 * (now.octets - before.octets)) / ms / 1000,
      processors: (1000 * (now.programs - before.programs)) / ms,
    });
    process.stderr.write(`${lineOf(samples.at(-1)!).join('  ')}\n`);
    before = now;
  }
  return samples;
}

function startLoad(bed: Testbed, { from, to }: Tunnel, seconds: number) {
  const server = bed.lab.spawn(bed.b.space, 'iperf3', ['-s', '-B', to]);
  server.stdout!.resume();
  // Each end of it is longer under way than the last sample.
  const args = ['-c', to, '-B', from, '-P', '4', '--bidir', '-t', String(seconds + 60), '-i', '0'];
  const client = bed.lab.spawn(bed.a.space, 'sh', ['-c', `sleep 1; exec iperf3 ${args.join(' ')}`]);
  let said = '';
  for (const stream of [client.stdout!, client.stderr!]) {
    stream.on('data', (text) => {
      said = `${said}${text}`.slice(-2000);
    });
  }
  return { failed: () => (client.exitCode === null ? undefined : said) };
}

function countersOf(bed: Testbed, { pids }: Tunnel) {
  const received = bed.lab.sh(bed.b.space, 'cat /sys/class/net/w/statistics/rx_bytes');
  return { octets: Number(received), programs: processorTime(pids).programs };
}

function lineOf({ seconds, resident, pings, mbps, processors }: Sample): string[] {
  return [
    seconds.toFixed(0),
    ...resident.map((octets) => (octets / 2 ** 20).toFixed(1)),
    pings.median.toFixed(2),
    pings.p99.toFixed(2),
    mbps.toFixed(0),
    processors.toFixed(2),
  ];
}

function report(samples: readonly Sample[]): boolean {
  const head = ['seconds', 'MiB at A', 'MiB at B', 'ping ms, median', 'p99', 'Mbit/s', 'CPUs'];
  const step = Math.max(1, Math.ceil(samples.length / LINES_MAX));
  console.log(table(head, samples.filter((_, i) => i % step === 0).map(lineOf)));
  const quarter = Math.floor(samples.length / 4);
  let isFlat = true;
  for (const [i, name] of ['A', 'B'].entries()) {
    const of = (from: number) => {
      return median(samples.slice(from, from + quarter).map(({ resident }) => resident[i]!));
    };
    if (quarter === 0) break;
    const growth = of(samples.length - quarter) / of(quarter);
    console.log(`\nMemory at ${name}, last quarter ÷ second quarter: ${growth.toFixed(3)}`);
    if (!(growth <= GROWTH_MAX)) isFlat = false;
  }
  return isFlat;
}

async function main(): Promise<void> {
  closeAllOnSignal();
  if (announceSkip('bench/soak', whyNoHosts('iperf3'))) return;
  const { crypto, plain } = values;
  const variant = testudo({
    crypto,
    way: values.way as Way,
    offload: !plain,
    compiled: true,
    pinned: false,
    limited: false,
  });
  if (variant.absent !== undefined) throw new Error(variant.absent);
  const bed = new Testbed();
  try {
    const tunnel = await variant.start(bed);
    await bed.ready(tunnel.from, tunnel.to);
    await bed.prove(tunnel.from, tunnel.to);
    const samples = await run(bed, tunnel, 60 * Number(values.minutes));
    console.log(`${variant.name}, ${variant.about}\n`);
    if (!report(samples)) process.exitCode = 1;
  } finally {
    bed.close();
  }
}

await main();
