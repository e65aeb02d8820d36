import { parseArgs } from 'node:util';
import { whyNoHosts } from '../test/hosts/namespaces.ts';
import { table } from './markdown.ts';
import { handOver, handOverBetweenThreads, sideBySide } from './workers/engine.ts';
import { networkRates } from './workers/network.ts';

/**
 * Hosts whose work is divided among threads (`testudo up --workers`): what a hand-over costs, how
 * engines run beside each other, and what comes of it between two hosts on this machine.
 *
 *     node dist/bench/workers.js [--rounds 3] [--seconds 2] [--octets 1400] [--no-network]
 */
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '2' },
    octets: { type: 'string', default: '1400' },
    'no-network': { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const octets = Number(values.octets);

function times<T>(measure: () => T): T[] {
  return Array.from({ length: rounds }, measure);
}

// The best of all rounds: whatever else runs on the machine makes each of them only worse.
const ns = (numbers: readonly number[]) => Math.min(...numbers).toFixed(0);
const best = (numbers: readonly number[]) => Math.max(...numbers);
const rate = (numbers: readonly number[]) => (best(numbers) / 1e6).toFixed(2);

function print(title: string, head: readonly string[], rows: readonly (readonly string[])[]): void {
  process.stdout.write(`${title}\n\n${table(head, rows)}\n\n`);
}

const all = times(() => handOver(octets));
print(
  `One packet of ${octets} octets, sealed, ns; both shards on one thread`,
  ['SA', 'ns'],
  [
    ['its own', ns(all.map(({ own }) => own))],
    ['of another shard', ns(all.map(({ passed }) => passed))],
  ],
);

const shares = [0, 0.5, 1];
const between: string[][] = [];
for (const share of shares) {
  const found: number[] = [];
  for (let i = 0; i < rounds; i++) found.push(await handOverBetweenThreads(octets, share));
  between.push([`${share * 100} %`, rate(found)]);
}
print('One thread reads, two seal; million packets a second', ['passed on', 'Mpps'], between);

const beside: string[][] = [];
let alone = 0;
for (const threads of [1, 2, 3]) {
  const found: number[] = [];
  for (let i = 0; i < rounds; i++) found.push(await sideBySide(octets, threads));
  alone ||= best(found);
  beside.push([String(threads), rate(found), (best(found) / alone).toFixed(2)]);
}
print(
  'Engines that have nothing to do with each other; million packets a second together',
  ['threads', 'Mpps', 'ratio'],
  beside,
);

const why = values['no-network'] ? 'it was not asked for' : whyNoHosts('iperf3');
if (why !== undefined) {
  process.stdout.write(`No network: ${why}\n`);
} else {
  const rows: string[][] = [];
  for (const workers of [1, 2, 3]) {
    const found: number[] = [];
    for (let i = 0; i < rounds; i++)
      found.push(await networkRates(workers, Number(values.seconds)));
    rows.push([String(workers), best(found).toFixed(2)]);
  }
  print(
    'Two hosts on this machine, ESP in UDP, four TCP connections with SAs of their own; Gb/s together',
    ['workers of each', 'Gb/s'],
    rows,
  );
}
