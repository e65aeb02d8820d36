import { parseArgs } from 'node:util';
import type { Prefix } from '../src/base/address.ts';
import { isAbsent } from '../src/drivers/native/koffi.ts';
import { searchLoops } from '../src/drivers/native/search-loops.ts';
import { BATCH_MAX } from '../src/engine/flight.ts';
import { PORT_ANY, type Policy, PROTOCOL_ANY } from '../src/spd/policy.ts';
import type { Lookup } from '../src/spd/policy-index.ts';
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
 *     node dist/bench/policies.js [--rounds 5] [--flows 192000] [--only text] [--read]
 *                                 [--compiled off]
 *
 * Prints a Markdown table. First packets in batches, as hosts decide them (`Spd.lookupBatch`), then
 * one at a time (`Spd.lookup`); the ratio of the largest to the smallest;
 * how long it took to add 100,000 policies one by one; and octets for each of them of the tables
 * that find it.
 */
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    flows: { type: 'string', default: '192000' },
    only: { type: 'string', default: '' },
    read: { type: 'boolean', default: false },
    compiled: { type: 'string', default: 'auto' },
  },
});

const SIZES = [10, 1_000, 100_000];
/** What hosts search large tables by. */
const loops = values.compiled === 'off' ? { why: 'switched off' } : searchLoops();
const search = isAbsent(loops) ? undefined : loops;
const clock = { monotonicMs: () => 0, wallMs: () => 0 };

/** Packets of new flows, back to back, all of one length. */
interface Flows {
  readonly octets: Uint8Array;
  readonly len: number;
  readonly count: number;
}

function makeTable(set: PolicySet, count: number): { spd: Spd; addMs: number } {
  const dice = new Dice(count);
  const spd = new Spd({ clock, flows: 0, search });
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

/** Packets are decided so many at a time. */
const BATCH = BATCH_MAX;
/** Lookups that are timed together: so few that most such runs are not interrupted. */
const RUN = 17 * BATCH;
/** What is left when the slower three quarters of the runs are: the machine has other work too. */
const QUANTILE = 0.25;

type Way = 'decode' | 'batch' | 'single';

const cursors = Array.from({ length: BATCH }, () => new Cursor());
const answers: Lookup[] = new Array<Lookup>(RUN).fill('none');
const some: Lookup[] = new Array<Lookup>(BATCH).fill('none');
const types = new Array<string>(BATCH).fill('');

/**
 * Nanoseconds for each of the flows from `from` on. An answer is a reference to a policy; `--read`
 * also reads from the policy what is to be done, as callers do next.
 */
function timeRun({ octets, len }: Flows, from: number, spd: Spd, way: Way): number {
  const packets = cursors.map(() => ({ bytes: octets }));
  const began = process.hrtime.bigint();
  for (let i = 0; i < RUN; i += BATCH) {
    for (let j = 0, at = (from + i) * len; j < BATCH; j++, at += len) {
      decode(octets, at, at + len, cursors[j]!);
    }
    if (way === 'single') {
      for (let j = 0; j < BATCH; j++) some[j] = spd.lookup('out', octets, cursors[j]!);
    } else if (way === 'batch') {
      spd.lookupBatch('out', packets, cursors, BATCH, some);
    }
    if (values.read) for (let j = 0; j < BATCH; j++) types[j] = typeOf(some[j]!);
    else for (let j = 0; j < BATCH; j++) answers[i + j] = some[j]!;
  }
  return Number(process.hrtime.bigint() - began) / RUN;
}

function typeOf(answer: Lookup): string {
  return typeof answer === 'object' ? answer.type : answer;
}

/** What is left of the time for a lookup when that for decoding is taken off, for every run. */
function costs(flows: Flows, spd: Spd, way: Way): number[] {
  const all: number[] = [];
  for (let from = 0; from + RUN <= flows.count; from += RUN) {
    const decoding = timeRun(flows, from, spd, 'decode');
    all.push(timeRun(flows, from, spd, way) - decoding);
  }
  return all;
}

function quantile(numbers: readonly number[], part: number): number {
  return [...numbers].sort((a, b) => a - b)[Math.floor(part * numbers.length)]!;
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
  return `${quantile(costs, 0.5).toFixed(0)} ns over ${megabytes} MiB`;
}

/** For each size what a lookup costs, in batches and one at a time. */
function measure(set: PolicySet, rounds: number): string[] {
  const tables = SIZES.map((size) => makeTable(set, size));
  const flows = tables.map(({ spd }) => makeFlows(set, spd.list('out'), Number(values.flows)));
  const rows = (['batch', 'single'] as const).map((way) => {
    const all: number[][] = SIZES.map(() => []);
    // In turn, so that what happens on the machine meanwhile happens to all.
    for (let round = 0; round <= rounds; round++) {
      for (const [i, { spd }] of tables.entries()) {
        const found = costs(flows[i]!, spd, way);
        // The first round is for the compiler, and for the table to settle.
        if (round > 0) all[i]!.push(...found);
      }
    }
    const typical = all.map((some) => quantile(some, QUANTILE));
    const ratio = Math.max(...typical) / Math.min(...typical);
    return [...typical.map((ns) => `${ns.toFixed(0)} ns`), ratio.toFixed(2)].join(' | ');
  });
  const { spd, addMs } = tables.at(-1)!;
  return [...rows, `${(addMs / 1000).toFixed(2)} s`, (spd.indexOctets / spd.size).toFixed(0)];
}

const how = isAbsent(loops)
  ? `in JavaScript: ${loops.why}`
  : `by ${loops.name} in batches, from ${loops.worth.rules} policies on`;
process.stdout.write(`Large tables are searched ${how}.\n`);
process.stdout.write(`A read from memory: ${[0.5, 4, 32].map(readCost).join(', ')}.\n\n`);
const columns = [...SIZES, 'ratio', ...SIZES.map((size) => `alone: ${size}`), 'ratio'];
const heads = ['policies', ...columns, '100,000 added in', 'octets each'];
process.stdout.write(`| ${heads.join(' | ')} |\n|---|${'--:|'.repeat(heads.length - 1)}\n`);
for (const set of POLICY_SETS) {
  if (!set.name.includes(values.only)) continue;
  const cells = measure(set, Number(values.rounds));
  process.stdout.write(`| ${set.name} | ${cells.join(' | ')} |\n`);
}
