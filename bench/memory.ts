import { nodeCrypto } from '../src/crypto/node-provider.ts';
import { systemEnv } from '../src/daemon/system-env.ts';
import { Spd } from '../src/spd/spd.ts';
import { EnginePair } from './engine-pair.ts';
import { table } from './markdown.ts';
import { Dice, POLICY_SETS, specOf } from './policy-sets.ts';

/**
 * Octets of memory per policy, per place for a flow, and per SA that is in use: heap and external
 * memory after a full collection. Idle SAs are what `sa-memory.ts` measures.
 *
 *     node --expose-gc dist/bench/memory.js [--json]
 */
const POLICIES = 100_000;
const FLOWS = 65_536;
const ACTIVE_SAS = 2_000;

export interface MemoryRow {
  readonly what: string;
  readonly octets: number;
}

const clock = { monotonicMs: () => 0, wallMs: () => 0 };

function used(): number {
  globalThis.gc!();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** Nothing is let go of before the end: when the collector gives what back is its own affair. */
const kept: unknown[] = [];

/** What `make` leaves behind. */
function weigh(make: () => unknown): number {
  const before = used();
  kept.push(make());
  return used() - before;
}

function perPolicy(name: string): number {
  const set = POLICY_SETS.find((one) => one.name === name)!;
  const octets = weigh(() => {
    const dice = new Dice(POLICIES);
    const spd = new Spd({ clock, flows: 0 });
    const seen = new Set<string>();
    for (let tries = 0; spd.size < POLICIES; tries++) {
      const made = set.make(dice, tries, POLICIES);
      const selector = JSON.stringify(made.selector);
      if (seen.has(selector)) continue;
      seen.add(selector);
      spd.add(specOf(made));
    }
    return spd;
  });
  return octets / POLICIES;
}

/** The caches of three directions and two families have so many places each. */
function perFlow(): number {
  const without = weigh(() => new Spd({ clock, flows: 0 }));
  const withFlows = weigh(() => new Spd({ clock, flows: FLOWS }));
  return (withFlows - without) / (6 * FLOWS);
}

/** Of a tunnel that has sent and received, what the SA at one end takes. */
function perActiveSa(): number {
  const options = {
    provider: nodeCrypto,
    env: systemEnv('error'),
    mode: 'tunnel',
    inUdp: true,
    octets: 64,
    flows: 'all',
  } as const;
  const weighPair = (tunnels: number) => {
    return weigh(() => {
      const pair = new EnginePair({ ...options, tunnels });
      for (let i = 0; i < 4 * tunnels; i += 64) pair.pass();
      return pair;
    });
  };
  const [few, many] = [weighPair(64), weighPair(64 + ACTIVE_SAS)];
  return (many - few) / (2 * ACTIVE_SAS);
}

export function memoryTable(rows: readonly MemoryRow[]): string {
  return table(
    ['', 'octets each'],
    rows.map(({ what, octets }) => [what, octets.toFixed(0)]),
  );
}

function main(): void {
  if (globalThis.gc === undefined) throw new Error('run it with node --expose-gc');
  const [v4, v6] = ['random networks and ports, IPv4', 'random networks and ports, IPv6'] as const;
  const rows: MemoryRow[] = [
    { what: `policy, IPv4 (of ${POLICIES}, random networks and ports)`, octets: perPolicy(v4) },
    { what: `policy, IPv6 (of ${POLICIES}, random networks and ports)`, octets: perPolicy(v6) },
    { what: 'place in the flow cache, mean of IPv4 and IPv6', octets: perFlow() },
    {
      what: 'SA in use, AES-128-GCM by node:crypto, window of 2,048, with its policy',
      octets: perActiveSa(),
    },
  ];
  console.log(process.argv.includes('--json') ? JSON.stringify(rows) : memoryTable(rows));
}

if (process.argv[1]?.endsWith('/memory.js')) main();
