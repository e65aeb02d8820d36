import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { announceSkip, whyNoHosts } from '../test/hosts/namespaces.ts';
import type { AllocationRow } from './allocations.ts';
import type { EngineFindings } from './engine.ts';
import type { MemoryRow } from './memory.ts';
import { MEASUREMENTS, measure } from './network/measure.ts';
import { runRounds } from './network/rounds.ts';
import { closeAllOnSignal } from './network/testbed.ts';
import { allVariants } from './network/variants.ts';
import { type Findings, report, reportPicture } from './report.ts';

/**
 * Everything that is measured, with ratios to everything that is installed. Needs root, iperf3, and
 * a machine on which nothing else runs; bench/packages.txt names the peers' packages.
 *
 *     npm run bench -- [--rounds 5] [--seconds 5] [--only wireguard,testudo-node] [--quick]
 *         [--measure ping,tcp,load,udp,engine,memory,allocations] [--wireguard-go PATH]...
 *         [--congestion cubic] [--out docs] [--json FILE]
 *
 * Prints the report. A whole run also writes it to docs/performance.md, with a picture; a part of
 * it is written only where `--out` says. `--only`: parts of names of variants; bare veth and the
 * system calls alone always come along. `--quick`: one round of one second, to see whether it
 * works.
 */
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** What is measured in programs of their own, and how. */
const APART = {
  engine: { file: 'engine.js', flags: [] },
  memory: { file: 'memory.js', flags: ['--expose-gc'] },
  allocations: { file: 'allocations.js', flags: [] },
} as const;
type Apart = keyof typeof APART;
const QUICK: Readonly<Record<Apart, readonly string[]>> = {
  engine: ['--rounds', '1', '--packets', '20000', '--tables', '1,1000'],
  memory: [],
  allocations: ['--packets', '100000'],
};
const REPORT = 'performance.md';
const PICTURE = 'performance.svg';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    only: { type: 'string', default: '' },
    quick: { type: 'boolean', default: false },
    measure: { type: 'string' },
    'wireguard-go': { type: 'string', multiple: true, default: ['wireguard-go'] },
    congestion: { type: 'string', default: 'cubic' },
    out: { type: 'string' },
    json: { type: 'string' },
  },
});

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

function machine(): string {
  const { model } = cpus()[0]!;
  const day = new Date().toISOString().slice(0, 10);
  const node = `Node.js ${process.versions.node}, OpenSSL ${process.versions.openssl}`;
  return `${day}; ${model.trim()}, ${cpus().length} processors, Linux ${release()}, ${node}.`;
}

/**
 * Runs a program of this folder, and returns what it prints as JSON. Undefined when it fails: what
 * else was found must not be lost with it.
 */
function apart<T>(what: Apart): T | undefined {
  say(`${what} …`);
  const { file, flags } = APART[what];
  const program = fileURLToPath(new URL(`./${file}`, import.meta.url));
  const args = [...flags, program, '--json', ...(values.quick ? QUICK[what] : [])];
  const { stdout, stderr, status, signal } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (status !== 0) {
    say(`${what} failed: ${signal ?? stderr}`);
    return undefined;
  }
  return JSON.parse(stdout) as T;
}

async function find(wanted: readonly string[]): Promise<Findings> {
  const { congestion } = values;
  const isWanted = (what: string) => wanted.includes(what);
  const only = values.only.split(',').filter(Boolean);
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 5));
  const seconds = Number(values.seconds ?? (values.quick ? 1 : 5));
  const measurements = MEASUREMENTS.filter(isWanted);
  const variants = allVariants(values['wireguard-go']).filter(({ id, isBare }) => {
    return only.length === 0 || isBare || only.some((part) => id.includes(part));
  });
  const isHere = measurements.length > 0 && !announceSkip('bench', whyNoHosts('iperf3', 'ethtool'));
  const { found, missing } = isHere
    ? await runRounds({ rounds, seconds, wanted: measurements, variants, measure, congestion }, say)
    : { found: [], missing: [] };
  const network = { machine: machine(), rounds, seconds, congestion, found, missing };
  // It has taken most of the time.
  if (values.json) writeFileSync(values.json, JSON.stringify(network));
  const engine = isWanted('engine') ? apart<EngineFindings>('engine') : undefined;
  const memory = isWanted('memory') ? apart<MemoryRow[]>('memory') : undefined;
  const allocations = isWanted('allocations') ? apart<AllocationRow[]>('allocations') : undefined;
  return {
    ...network,
    ...(engine ? { engine } : {}),
    ...(memory ? { memory } : {}),
    ...(allocations ? { allocations } : {}),
  };
}

async function main(): Promise<void> {
  closeAllOnSignal();
  const all = [...MEASUREMENTS, ...Object.keys(APART)];
  const wanted = values.measure?.split(',') ?? all;
  const unknown = wanted.find((what) => !all.includes(what));
  if (unknown !== undefined) throw new Error(`there is no "${unknown}", but ${all.join(', ')}`);
  const findings = await find(wanted);
  const text = report(findings, PICTURE);
  console.log(text);
  if (values.json) writeFileSync(values.json, JSON.stringify(findings));
  const isWhole = !values.quick && values.only === '' && values.measure === undefined;
  const folder = values.out ?? (isWhole ? join(ROOT, 'docs') : undefined);
  if (folder === undefined) return;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, REPORT), text);
  writeFileSync(join(folder, PICTURE), reportPicture(findings));
}

await main();
