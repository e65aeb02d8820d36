import { spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type CaseShares, type CaseTimes, SIDES, type Side, type Subject } from './engine-case.ts';
import type { Flows } from './engine-pair.ts';
import { table } from './markdown.ts';
import { median, spread } from './numbers.ts';
import { engineTiers } from './providers.ts';
import { type Shares, STAGES } from './stages.ts';

/**
 * The engine alone, without any I/O: nanoseconds per packet to seal and to open, policy and SA
 * lookup and all checks included, by stage, packet size and provider of cryptography; and what
 * large tables add. Two hosts in memory, batches of 64 packets, AES-128-GCM in tunnel mode.
 *
 *     node dist/bench/engine.js [--rounds 5] [--packets 100000] [--crypto none,node]
 *         [--sizes 64,512,1400] [--tables 1,64,1000,100000] [--mode transport] [--raw] [--json]
 */
const CASE = fileURLToPath(new URL('./engine-case.js', import.meta.url));

/** One row of a table: nanoseconds per packet, one number a round. */
interface Times {
  readonly crypto: string;
  readonly subject: Subject;
  readonly side: Side;
  readonly middle: readonly number[];
  readonly all: readonly number[];
}

export interface EngineRow extends Times {
  readonly shares: Shares;
}

export interface EngineFindings {
  /**
   * By size, all packets through one SA: cut from one large packet, as in a TCP stream; of one
   * flow; and each of another flow than the one before.
   */
  readonly sizes: readonly EngineRow[];
  /**
   * By the number of SAs, each with a policy of its own; every packet goes through another SA than
   * the one before. 1400 octets.
   */
  readonly tables: readonly Times[];
}

function run<T>(args: readonly string[]): T {
  const { stdout, stderr, status } = spawnSync(process.execPath, [CASE, ...args], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as T;
}

/** All providers once a round, so that what happens on the machine meanwhile happens to all. */
function measure(
  tiers: readonly string[],
  rounds: number,
  args: readonly string[],
  tables: string,
): EngineFindings {
  const found = new Map(tiers.map((crypto) => [crypto, [] as CaseTimes[][]]));
  for (let round = 0; round < rounds; round++) {
    for (const [crypto, results] of found) {
      results.push(run(['--crypto', crypto, ...args, '--tables', tables]));
    }
  }
  const sizes: EngineRow[] = [];
  const others: Times[] = [];
  for (const [crypto, results] of found) {
    const shares: CaseShares[] = run(['--crypto', crypto, ...args, '--profile']);
    for (const [i, { subject, side }] of results[0]!.entries()) {
      const middle = results.map((round) => round[i]!.middle);
      const all = results.map((round) => round[i]!.all);
      const row = { crypto, subject, side, middle, all };
      const own = shares.find((one) => one.side === side && isSame(one.subject, subject));
      if (subject.flows !== 'all') sizes.push({ ...row, shares: own!.shares });
      else others.push(row);
    }
  }
  return { sizes, tables: others };
}

function isSame(one: Subject, other: Subject): boolean {
  return one.octets === other.octets && one.flows === other.flows;
}

/** How the table calls them. */
const FLOWS: Readonly<Record<Flows, string>> = {
  row: ' in a row',
  one: '',
  many: ', many flows',
  all: ', many SAs',
};

/** Markdown: one row for each provider, size and side, with the stages. */
export function stageTable(rows: readonly EngineRow[]): string {
  const head = ['ns per packet', 'total', ...STAGES, 'rest', 'mean of all batches'];
  const lines = [...rows]
    .sort((a, b) => a.subject.octets - b.subject.octets)
    .map(({ crypto, subject, side, middle, all, shares }) => {
      const total = median(middle);
      const stages = [...STAGES, 'rest' as const].map((stage) =>
        (total * shares[stage]).toFixed(0),
      );
      const { octets, flows } = subject;
      const name = `${crypto}, ${octets} octets${FLOWS[flows]}, ${side}`;
      return [name, spread(middle), ...stages, median(all).toFixed(0)];
    });
  return table(head, lines);
}

/** Markdown: one row for each provider and side, one column for each size of the tables. */
export function sizesTable(rows: readonly Times[]): string {
  const counts = [...new Set(rows.map(({ subject }) => subject.tunnels))];
  const providers = [...new Set(rows.map(({ crypto }) => crypto))];
  const lines = providers.flatMap((provider) => {
    return SIDES.map((side) => {
      const own = rows.filter((row) => row.crypto === provider && row.side === side);
      return [`${provider}, ${side}`, ...own.map(({ middle }) => spread(middle))];
    });
  });
  return table(['ns per packet by SAs and policies', ...counts.map(String)], lines);
}

function main(): void {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      packets: { type: 'string', default: '100000' },
      sizes: { type: 'string', default: '64,512,1400' },
      tables: { type: 'string', default: '1,64,1000,100000' },
      mode: { type: 'string', default: 'tunnel' },
      raw: { type: 'boolean', default: false },
      crypto: { type: 'string', default: '' },
      json: { type: 'boolean', default: false },
    },
  });
  const wanted = values.crypto.split(',').filter(Boolean);
  const tiers = engineTiers().filter(({ name }) => wanted.length === 0 || wanted.includes(name));
  const present = tiers.filter(({ absent }) => absent === undefined).map(({ name }) => name);
  const { packets, sizes, mode } = values;
  const args = ['--packets', packets, '--sizes', sizes, '--mode', mode];
  if (values.raw) args.push('--raw');
  const findings = measure(present, Number(values.rounds), args, values.tables);
  if (values.json) {
    console.log(JSON.stringify(findings));
    return;
  }
  console.log(`${cpus()[0]!.model.trim()}, Node.js ${process.version}\n`);
  for (const { name, absent } of tiers) {
    if (absent !== undefined) console.log(`${name}: skipped, ${absent}\n`);
  }
  if (findings.sizes.length > 0) console.log(`${stageTable(findings.sizes)}\n`);
  if (findings.tables.length > 0) console.log(sizesTable(findings.tables));
}

if (process.argv[1]?.endsWith('/engine.js')) main();
