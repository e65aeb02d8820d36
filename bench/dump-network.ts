import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DaemonHost } from '../test/hosts/daemon-host.ts';
import { whyNoHosts } from '../test/hosts/namespaces.ts';
import { A, B, config, makePair, type Pair } from '../test/hosts/pair.ts';
import { type Dumped, dumpSlowly } from './dump-reader.ts';
import { ADD, request } from './pfkey-octets.ts';

/**
 * What a dump of many SAs to a slow reader costs the packets: one TCP stream of iperf3 runs all the
 * time between two hosts of ours, and its rate is measured without a dump, while one of them dumps
 * all of its SAs to a reader that takes 4 kB and sleeps, and without again. Needs root and iperf3.
 *
 *     npm run build && node dist/bench/dump-network.js --count 1000000 --sleep 2
 *
 * Prints a Markdown table. Other work on the machine shows in the two rates without a dump: they
 * should be alike.
 */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '1000000' },
    sleep: { type: 'string', default: '2' },
    seconds: { type: 'string', default: '10' },
  },
});
const COUNT = Number(values.count);
const SECONDS = Number(values.seconds);
const CHUNK = 500;

/** Adds SAs by PF_KEY, and waits for the last answer. */
async function fill(path: string, count: number): Promise<void> {
  const socket = connect(path);
  await once(socket, 'connect');
  for (let at = 0; at < count; at += CHUNK) {
    const some = Array.from({ length: Math.min(CHUNK, count - at) }, (_, i) =>
      request(ADD, at + i),
    );
    const answered = lastAnswer(socket, at + some.length - 1);
    socket.write(Buffer.concat(some));
    await answered;
  }
  socket.destroy();
}

function lastAnswer(socket: Socket, last: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let rest: Buffer = Buffer.alloc(0);
    const arrived = (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      while (rest.length >= 16 && rest.length >= 8 * rest.readUInt16LE(4)) {
        if (rest[2] !== 0) reject(new Error(`errno ${rest[2]}`));
        const isLast = rest.readUInt32LE(8) === last;
        rest = rest.subarray(8 * rest.readUInt16LE(4));
        if (!isLast) continue;
        socket.off('data', arrived);
        resolve();
      }
    };
    socket.on('data', arrived);
  });
}

/** Mbit/s that arrived at B's device while `during` went on. */
async function rate({ lab, b }: Pair, during: Promise<unknown>): Promise<number> {
  const octets = () => Number(lab.sh(b, 'cat /sys/class/net/w0/statistics/rx_bytes'));
  const [before, began] = [octets(), performance.now()];
  await during;
  return (8 * (octets() - before)) / (performance.now() - began) / 1000;
}

async function startIperf({ lab, a, b }: Pair): Promise<readonly ChildProcess[]> {
  const server = lab.spawn(b, 'iperf3', ['-s', '-1', '--forceflush']);
  await once(server.stdout!, 'data');
  const client = lab.spawn(a, 'iperf3', ['-c', B.v4, '-B', A.v4, '-t', '86400']);
  client.stdout!.resume();
  server.stdout!.resume();
  return [client, server];
}

async function main(): Promise<void> {
  const why = whyNoHosts('iperf3');
  if (why !== undefined) throw new Error(why);
  const pair = makePair();
  try {
    const [a] = await Promise.all([
      DaemonHost.start(pair.lab, pair.a, config('a')),
      DaemonHost.start(pair.lab, pair.b, config('b')),
    ]);
    await fill(a.socket, COUNT);
    const programs = await startIperf(pair);
    await sleep(3000);
    const before = await rate(pair, sleep(1000 * SECONDS));
    const began = performance.now();
    const dumping = dumpSlowly(a.socket, Number(values.sleep));
    const during = await rate(pair, dumping);
    const seconds = (performance.now() - began) / 1000;
    const after = await rate(pair, sleep(1000 * SECONDS));
    for (const program of programs) program.kill('SIGKILL');
    print(await dumping, [before, during, after], seconds);
  } finally {
    pair.lab.close();
  }
}

function print(dumped: Dumped, rates: readonly [number, number, number], seconds: number): void {
  const [before, during, after] = rates;
  const { seen, distinct, ordered } = dumped;
  const left = (100 * during) / ((before + after) / 2);
  console.log(`| ${COUNT} SAs, a reader of 4 kB every ${values.sleep} ms | |`);
  console.log('|---|---|');
  console.log(`| entries, different SPIs, counted down to 0 | ${seen}, ${distinct}, ${ordered} |`);
  console.log(`| seconds | ${seconds.toFixed(0)} |`);
  const text = [before, during, after].map((one) => one.toFixed(0)).join(', ');
  console.log(`| Mbit/s before, during and after the dump | ${text} |`);
  console.log(`| of the rate is left | ${left.toFixed(1)} % |`);
}

await main();
