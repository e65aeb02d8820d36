import { once } from 'node:events';
import { cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DaemonHost } from '../test/hosts/daemon-host.ts';
import { announceSkip, Lab, whyNoHosts } from '../test/hosts/namespaces.ts';

/**
 * One TCP stream (iperf3) between two network namespaces, plain and through two hosts, every way
 * once a round, so that a ratio compares what ran under the same conditions:
 *
 *     npm run bench -- --rounds 5 --seconds 5
 *
 * Prints a Markdown table: median, spread, and the median of the ratios to the bare wire. Needs
 * root and iperf3. Run it when nothing else runs on the machine.
 */
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '5' },
  },
});

const A = '10.9.0.1';
const B = '10.9.0.2';
const GCM = [
  '0x8f2a6c1e9b7d4035a1c8e6f20d5b3947c0ffee01',
  '0x17e4b0d98a5c362f4fb1936de8a07c52c0ffee02',
];
const CBC = ['0x8f2a6c1e9b7d4035a1c8e6f20d5b3947', '0x17e4b0d98a5c362f4fb1936de8a07c52'];
const SHA2 = ['1', '2'].map((digit) => `0x${digit.repeat(64)}`);

interface Way {
  readonly name: string;
  /** SAs from A to B and back; undefined: no hosts at all. */
  readonly sas?: readonly [string, string];
  readonly rule?: string;
  readonly args?: readonly string[];
}

const RAW = ['--log-level', 'error'];
const WAYS: readonly Way[] = [
  { name: 'bare veth' },
  {
    name: 'ESP transport, AES-128-GCM',
    sas: [esp('0x1001', `aes-gcm-16 ${GCM[0]}`), esp('0x1002', `aes-gcm-16 ${GCM[1]}`, true)],
    rule: 'esp/transport//require',
    args: RAW,
  },
  {
    name: 'ESP tunnel in UDP, AES-128-GCM',
    sas: [
      `add ${A}[4500] ${B}[4500] esp-udp 0x1001 -m tunnel -r 64 -E aes-gcm-16 ${GCM[0]};`,
      `add ${B}[4500] ${A}[4500] esp-udp 0x1002 -m tunnel -r 64 -E aes-gcm-16 ${GCM[1]};`,
    ],
    rule: 'esp/tunnel/SRC-DST/require',
    args: [...RAW, '--no-raw', '--encap-port', '4500'],
  },
  {
    name: 'ESP transport, AES-128-CBC and HMAC-SHA2-256',
    sas: [
      esp('0x1001', `aes-cbc ${CBC[0]} -A hmac-sha256 ${SHA2[0]}`),
      esp('0x1002', `aes-cbc ${CBC[1]} -A hmac-sha256 ${SHA2[1]}`, true),
    ],
    rule: 'esp/transport//require',
    args: RAW,
  },
  {
    name: 'AH transport, HMAC-SHA2-256',
    sas: [
      `add ${A} ${B} ah 0x1001 -m transport -r 64 -A hmac-sha256 ${SHA2[0]};`,
      `add ${B} ${A} ah 0x1002 -m transport -r 64 -A hmac-sha256 ${SHA2[1]};`,
    ],
    rule: 'ah/transport//require',
    args: RAW,
  },
];

function esp(spi: string, algorithm: string, back = false): string {
  const ends = back ? `${B} ${A}` : `${A} ${B}`;
  return `add ${ends} esp ${spi} -m transport -r 64 -E ${algorithm};`;
}

function config(way: Way, us: string, them: string): string {
  const rule = (src: string, dst: string) => way.rule!.replace('SRC', src).replace('DST', dst);
  return [
    'flush; spdflush;',
    ...way.sas!,
    `spdadd ${us} ${them} any -P out ipsec ${rule(us, them)};`,
    `spdadd ${them} ${us} any -P in ipsec ${rule(them, us)};`,
    '',
  ].join('\n');
}

/** Mbit/s that the receiver counted. */
async function measure(way: Way, seconds: number): Promise<number> {
  const lab = new Lab();
  try {
    const [a, b] = [lab.space('a'), lab.space('b')];
    lab.wire(
      { space: a, device: 'w', addresses: [`${A}/24`] },
      { space: b, device: 'w', addresses: [`${B}/24`] },
    );
    if (way.sas) {
      await DaemonHost.start(lab, a, config(way, A, B), way.args);
      await DaemonHost.start(lab, b, config(way, B, A), way.args);
    }
    const server = lab.spawn(b, 'iperf3', ['-s', '-1', '--forceflush']);
    await once(server.stdout!, 'data');
    await sleep(200);
    const { stdout } = await lab.run(a, 'iperf3', ['-c', B, '-t', String(seconds), '-J']);
    const result = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number } } };
    return result.end.sum_received.bits_per_second / 1e6;
  } finally {
    lab.close();
  }
}

function median(of: readonly number[]): number {
  const sorted = [...of].sort((x, y) => x - y);
  return sorted[sorted.length >> 1]!;
}

async function main(): Promise<void> {
  if (announceSkip('bench/throughput', whyNoHosts('iperf3'))) return;
  const found = new Map(WAYS.map((way) => [way, [] as number[]]));
  for (let round = 1; round <= Number(values.rounds); round++) {
    for (const [way, results] of found) {
      results.push(await measure(way, Number(values.seconds)));
      process.stderr.write(`round ${round}: ${way.name}: ${results.at(-1)!.toFixed(0)} Mbit/s\n`);
    }
  }
  const bare = found.get(WAYS[0]!)!;
  const { model } = cpus()[0]!;
  console.log(`${model.trim()}, ${cpus().length} CPUs, Node.js ${process.version}`);
  console.log('\n| | Mbit/s, median [min, max] | of the bare wire |\n|---|---|---|');
  for (const [way, results] of found) {
    const ratio = median(results.map((result, i) => result / bare[i]!));
    const range = `[${Math.min(...results).toFixed(0)}, ${Math.max(...results).toFixed(0)}]`;
    console.log(
      `| ${way.name} | ${median(results).toFixed(0)} ${range} | ${(100 * ratio).toFixed(1)} % |`,
    );
  }
}

await main();
