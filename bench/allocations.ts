import { existsSync, readFileSync } from 'node:fs';
import { type HeapProfiler, type Runtime, Session } from 'node:inspector';
import { SourceMap } from 'node:module';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { GCProfiler } from 'node:v8';
import { inlineDeeply } from '../src/daemon/inlining.ts';
import { systemEnv } from '../src/daemon/system-env.ts';
import { BATCH, EnginePair } from './engine-pair.ts';
import { table } from './markdown.ts';
import { engineTiers, type Tier } from './providers.ts';

/**
 * Octets of heap that a packet costs on the fast path, out and in, and who asks for them:
 *
 *     node dist/bench/allocations.js [--packets 1000000] [--octets 1400] [--crypto node]
 *         [--mode transport] [--raw] [--tunnels 1] [--sites 12] [--json]
 *
 * With `--tunnels` above 1 every packet goes through another SA than the one before. The provider
 * `none` does no cryptography, so what is left is the engine's.
 */
type CallFrame = Runtime.CallFrame;

/** Every so many octets of heap one allocation is looked at. */
const SAMPLE_OCTETS = 128;
/** Enough for the compiler to be done with what is called. */
const WARM_UP = 50_000;
/** Looking at samples is slow. */
const SAMPLED_MAX = 200_000;
const ROOT = fileURLToPath(new URL('..', import.meta.url));

export interface Site {
  readonly name: string;
  readonly octets: number;
}

/**
 * Octets of heap that were asked for while `work` ran, to the octet: what is there afterwards, and
 * what each collection meanwhile took away.
 */
export function allocatedBy(work: () => void): number {
  const profiler = new GCProfiler();
  const before = process.memoryUsage().heapUsed;
  profiler.start();
  work();
  const { statistics } = profiler.stop();
  let octets = process.memoryUsage().heapUsed - before;
  for (const { beforeGC, afterGC } of statistics) {
    octets += beforeGC.heapStatistics.usedHeapSize - afterGC.heapStatistics.usedHeapSize;
  }
  return octets;
}

/** The functions that asked for heap while `work` ran, the greediest first. An estimate. */
export function sitesOf(work: () => void): Site[] {
  const session = new Session();
  session.connect();
  session.post('HeapProfiler.startSampling', {
    samplingInterval: SAMPLE_OCTETS,
    includeObjectsCollectedByMajorGC: true,
    includeObjectsCollectedByMinorGC: true,
  } as HeapProfiler.StartSamplingParameterType);
  work();
  let root: HeapProfiler.SamplingHeapProfileNode | undefined;
  session.post('HeapProfiler.stopSampling', (error, { profile }) => {
    if (error) throw error;
    root = profile.head;
  });
  session.disconnect();
  const sites = new Map<string, number>();
  const visit = (node: HeapProfiler.SamplingHeapProfileNode): void => {
    const name = placeOf(node.callFrame);
    if (node.selfSize > 0) sites.set(name, (sites.get(name) ?? 0) + node.selfSize);
    for (const child of node.children) visit(child);
  };
  visit(root!);
  return [...sites].map(([name, octets]) => ({ name, octets })).sort((a, b) => b.octets - a.octets);
}

/** `function file:line`, of the sources where there is a map to them. */
function placeOf({ functionName, url, lineNumber, columnNumber }: CallFrame): string {
  const name = functionName || '(anonymous)';
  if (!url.startsWith('file:')) return `${name} ${url}`;
  const path = fileURLToPath(url);
  if (existsSync(`${path}.map`)) {
    const map = new SourceMap(JSON.parse(readFileSync(`${path}.map`, 'utf8')));
    const entry = map.findEntry(lineNumber, columnNumber);
    if ('originalLine' in entry) {
      const source = relative(ROOT, join(path, '..', entry.originalSource));
      return `${name} ${source.replace(/^(\.\.\/)+/, '')}:${entry.originalLine + 1}`;
    }
  }
  return `${name} ${relative(ROOT, path)}:${lineNumber + 1}`;
}

/** Of one provider; octets of heap per packet, sealed and opened. */
export interface AllocationRow {
  readonly crypto: string;
  readonly perPacket: number;
  /** By the function that asks, an estimate. */
  readonly sites: readonly Site[];
}

/** Markdown: one row for each provider. */
export function allocationTable(rows: readonly AllocationRow[]): string {
  const lines = rows.map(({ crypto, perPacket, sites }) => {
    const most = sites.slice(0, 3).map(({ name, octets }) => `${name} (${octets.toFixed(1)})`);
    return [crypto, perPacket.toFixed(2), most.join(', ')];
  });
  return table(['', 'octets a packet', 'most of it'], lines);
}

function optionsOf(args: readonly string[]) {
  const { values } = parseArgs({
    args: [...args],
    options: {
      packets: { type: 'string', default: '1000000' },
      octets: { type: 'string', default: '1400' },
      crypto: { type: 'string', default: '' },
      mode: { type: 'string', default: 'tunnel' },
      raw: { type: 'boolean', default: false },
      tunnels: { type: 'string', default: '1' },
      sites: { type: 'string', default: '12' },
      json: { type: 'boolean', default: false },
    },
  });
  return {
    packets: Number(values.packets),
    crypto: values.crypto.split(',').filter(Boolean),
    sites: Number(values.sites),
    json: values.json,
    pair: {
      mode: values.mode === 'transport' ? 'transport' : 'tunnel',
      inUdp: !values.raw,
      octets: Number(values.octets),
      tunnels: Number(values.tunnels),
      flows: Number(values.tunnels) > 1 ? 'all' : 'one',
    } as const,
  };
}

function measure(
  { name, provider }: Tier,
  { packets, pair: options, sites }: ReturnType<typeof optionsOf>,
): AllocationRow {
  const pair = new EnginePair({ provider: provider!, env: systemEnv('error'), ...options });
  const pass = (count: number) => () => {
    for (let i = 0; i < count; i += BATCH) pair.pass();
  };
  pass(WARM_UP)();
  const perPacket = allocatedBy(pass(packets)) / packets;
  const some = Math.min(packets, SAMPLED_MAX);
  const found = sitesOf(pass(some)).slice(0, sites);
  pair.close();
  return {
    crypto: name,
    perPacket,
    sites: found.map((site) => ({ ...site, octets: site.octets / some })),
  };
}

function main(): void {
  // As `testudo up` does.
  inlineDeeply();
  const options = optionsOf(process.argv.slice(2));
  const rows: AllocationRow[] = [];
  for (const tier of engineTiers()) {
    if (options.crypto.length > 0 && !options.crypto.includes(tier.name)) continue;
    if (tier.provider === undefined) {
      process.stderr.write(`${tier.name}: skipped, ${tier.absent}\n`);
      continue;
    }
    const row = measure(tier, options);
    rows.push(row);
    if (options.json) continue;
    console.log(`${row.crypto}: ${row.perPacket.toFixed(2)} octets a packet, out and in\n`);
    const lines = row.sites.map((site) => [site.name, site.octets.toFixed(2)]);
    console.log(`${table([`${row.crypto}: who asks`, 'octets a packet, sampled'], lines)}\n`);
  }
  if (options.json) console.log(JSON.stringify(rows));
}

if (process.argv[1]?.endsWith('/allocations.js')) main();
