import { parseArgs } from 'node:util';
import type { Prefix } from '../src/base/address.ts';
import { PORT_ANY, type Policy, PROTOCOL_ANY } from '../src/spd/policy.ts';
import { Spd } from '../src/spd/spd.ts';
import { setU16 } from '../src/wire/bytes.ts';
import { Cursor, decode } from '../src/wire/cursor.ts';
import * as ipv4 from '../src/wire/ipv4.ts';
import * as ipv6 from '../src/wire/ipv6.ts';
import { Dice, POLICY_SETS, type PolicySet, specOf } from './policy-sets.ts';

/**
 * What it costs to find the policy of a packet, with 10, 1,000 and 100,000 policies: nanoseconds
 * per lookup without the flow cache, every lookup a flow that was not seen before. Half of the
 * flows are of packets that some policy is about, half go from anywhere to anywhere.
 *
 *     node dist/bench/policies.js [--rounds 5] [--flows 200000]
 *
 * Prints a Markdown table: medians of the rounds, the ratio of the largest to the smallest, and how
 * long it took to add 100,000 policies one by one.
 */
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    flows: { type: 'string', default: '200000' },
  },
});

const SIZES = [10, 1_000, 100_000];
const clock = { monotonicMs: () => 0, wallMs: () => 0 };

/** Packets of new flows, back to back, all of one length. */
interface Flows {
  readonly octets: Uint8Array;
  readonly len: number;
  readonly count: number;
}

function makeTable(set: PolicySet, count: number): { spd: Spd; addMs: number } {
  const dice = new Dice(count);
  const spd = new Spd({ clock, flows: 0 });
  const seen = new Set<string>();
  const specs = [];
  for (let tries = 0; specs.length < count && tries < 20 * count; tries++) {
    const made = set.make(dice, tries, count);
    const name = JSON.stringify(made.selector);
    if (seen.has(name)) continue;
    seen.add(name);
    specs.push(specOf(made));
  }
  const began = process.cpuUsage();
  for (const spec of specs) spd.add(spec);
  return { spd, addMs: process.cpuUsage(began).user / 1000 };
}

function makeFlows(set: PolicySet, policies: readonly Policy[], count: number): Flows {
  const dice = new Dice(7);
  const headerLen = set.family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
  const len = headerLen + 8;
  const octets = new Uint8Array(count * len);
  for (let i = 0; i < count; i++) {
    const at = i * len;
    const about = i % 2 === 0 ? policies[dice.below(policies.length)]!.selector : undefined;
    const protocol = about && about.protocol !== PROTOCOL_ANY ? about.protocol : 6;
    const header = set.family === 4 ? ipv4 : ipv6;
    if (set.family === 4) ipv4.write(octets, at, 0, len, 1, 0, 64, protocol);
    else ipv6.write(octets, at, 0, 0, 8, protocol, 64);
    octets.set(addressIn(dice, set.family, about?.src), at + header.SRC_AT);
    octets.set(addressIn(dice, set.family, about?.dst), at + header.DST_AT);
    setU16(octets, at + headerLen, portOf(dice, about?.sport));
    setU16(octets, at + headerLen + 2, portOf(dice, about?.dport));
  }
  return { octets, len, count };
}

function addressIn(dice: Dice, family: 4 | 6, within: Prefix | undefined): Uint8Array {
  const octets = dice.octets(family === 4 ? 4 : 16);
  if (octets[0] === 127) octets[0] = 126;
  for (let bit = 0; within && bit < within.length; bit++) {
    const mask = 0x80 >> (bit & 7);
    const octet = octets[bit >> 3]! & ~mask;
    octets[bit >> 3] = octet | (within.address.bytes[bit >> 3]! & mask);
  }
  return octets;
}

function portOf(dice: Dice, port: number | undefined): number {
  return port === undefined || port === PORT_ANY ? dice.below(65_536) : port;
}

/**
 * Nanoseconds of processor time per flow: decoding alone, or decoding and lookup. Not of the clock,
 * which runs on while others compute.
 */
function run(flows: Flows, spd: Spd | undefined): number {
  const cursor = new Cursor();
  const { octets, len, count } = flows;
  let found = 0;
  const began = process.cpuUsage();
  for (let i = 0, at = 0; i < count; i++, at += len) {
    decode(octets, at, at + len, cursor);
    if (spd !== undefined && spd.lookup('out', octets, cursor) !== 'none') found++;
  }
  const ns = (process.cpuUsage(began).user * 1000) / count;
  if (found > count) throw new Error('never');
  return ns;
}

function median(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1]!;
}

/**
 * What a read from memory costs on this machine at this time, by how much memory the reads go over:
 * a large table of policies is a few of them, and neighbours on the machine make them dearer.
 */
function readCost(megabytes: number): string {
  const lines = megabytes * 16_384;
  const words = new Int32Array(lines * 16);
  const dice = new Dice(1);
  const order = Array.from({ length: lines }, (_, i) => i);
  for (let i = lines - 1; i > 0; i--) {
    const j = dice.below(i);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  for (const [i, line] of order.entries()) words[line * 16] = order[(i + 1) % lines]! * 16;
  const costs = [1, 2, 3, 4, 5].map(() => {
    const began = process.cpuUsage();
    let at = 0;
    for (let i = 0; i < 1_000_000; i++) at = words[at]!;
    if (at < 0) throw new Error('never');
    return process.cpuUsage(began).user / 1000;
  });
  return `${median(costs).toFixed(0)} ns over ${megabytes} MiB`;
}

const rounds = Number(values.rounds);
const only = process.env.BENCH_ONLY;
process.stdout.write(`A read from memory: ${[0.5, 4, 32].map(readCost).join(', ')}.\n\n`);
process.stdout.write(
  `| policies | ${SIZES.join(' | ')} | largest / smallest | 100,000 added in |\n`,
);
process.stdout.write(`|---|${SIZES.map(() => '--:').join('|')}|--:|--:|\n`);
for (const set of POLICY_SETS) {
  if (only && !set.name.includes(only)) continue;
  const tables = SIZES.map((size) => makeTable(set, size));
  const flows = tables.map(({ spd }) => makeFlows(set, spd.list('out'), Number(values.flows)));
  const costs: number[][] = SIZES.map(() => []);
  // In turn, so that what happens on the machine meanwhile happens to all.
  for (let round = 0; round <= rounds; round++) {
    for (const [i, { spd }] of tables.entries()) {
      const cost = run(flows[i]!, spd) - run(flows[i]!, undefined);
      if (round > 0) costs[i]!.push(cost);
    }
  }
  const medians = costs.map(median);
  const ratio = Math.max(...medians) / Math.min(...medians);
  const seconds = (tables.at(-1)!.addMs / 1000).toFixed(2);
  const cells = medians.map((ns) => `${ns.toFixed(0)} ns`).join(' | ');
  process.stdout.write(`| ${set.name} | ${cells} | ${ratio.toFixed(2)} | ${seconds} s |\n`);
}
