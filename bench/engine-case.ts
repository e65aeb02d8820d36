import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { inlineDeeply } from '../src/daemon/inlining.ts';
import { systemEnv } from '../src/daemon/system-env.ts';
import { BATCH, EnginePair, type EnginePairOptions, type Flows } from './engine-pair.ts';
import { mean, median } from './numbers.ts';
import { engineTiers, NO_CRYPTO } from './providers.ts';
import { profile, type Shares, sharesOf } from './stages.ts';

/**
 * One round of `engine.ts` for one provider, in a process of its own: as in a host, there is no
 * other provider that the compiler would have to reckon with. Prints JSON.
 *
 *     node dist/bench/engine-case.js --crypto node [--packets 100000] [--sizes 64,512,1400]
 *         [--tables 1,1000] [--mode transport] [--raw] [--profile]
 *
 * With `--profile`: the shares of the stages, and no times.
 */

/** How long the profiler looks at each size: thousands of samples. */
const PROFILE_MS = 700;

/** Packets: what is done once a batch is compiled only after thousands of batches. */
const WARM_UP = 3000 * BATCH;

/** Of one SA. */
const FLOWS = ['row', 'one', 'many'] as const;
export const SIDES = ['seal', 'open'] as const;
export type Side = (typeof SIDES)[number];

/** What was measured: a size with one SA, or 1400 octets with so many. */
export interface Subject {
  readonly octets: number;
  readonly tunnels: number;
  readonly flows: Flows;
}

/** Nanoseconds per packet. */
export interface CaseTimes {
  readonly subject: Subject;
  readonly side: Side;
  /** Of the middle batch, which is what it costs when nobody else is on the processor. */
  readonly middle: number;
  /** Of all batches, whatever happened meanwhile. */
  readonly all: number;
}

export interface CaseShares {
  readonly subject: Subject;
  readonly side: Side;
  readonly shares: Shares;
}

interface Options extends Pick<EnginePairOptions, 'mode' | 'inUdp'> {
  readonly crypto: string;
  readonly packets: number;
  readonly sizes: readonly number[];
  readonly tables: readonly number[];
  readonly profile: boolean;
}

function makePair({ crypto, mode, inUdp }: Options, subject: Subject): EnginePair {
  const provider = engineTiers().find(({ name }) => name === crypto)?.provider;
  if (provider === undefined) throw new Error(`there is no provider "${crypto}"`);
  const pair = new EnginePair({ provider, env: systemEnv('error'), mode, inUdp, ...subject });
  if (crypto !== NO_CRYPTO) pair.verify();
  return pair;
}

function subjectsOf({ sizes, tables }: Options): Subject[] {
  return [
    ...sizes.flatMap((octets) => FLOWS.map((flows) => ({ octets, tunnels: 1, flows }))),
    ...tables.map((tunnels) => ({ octets: 1400, tunnels, flows: 'all' }) as const),
  ];
}

function times(options: Options): CaseTimes[] {
  return subjectsOf(options).flatMap((subject) => {
    const pair = makePair(options, subject);
    const { packets } = options;
    // The compiler is done, and all SAs have been used, before it counts.
    for (let i = 0; i < Math.max(WARM_UP, 2 * subject.tunnels); i += BATCH) pair.pass();
    const found = measure(pair, packets);
    pair.close();
    return SIDES.map((side) => ({
      subject,
      side,
      middle: median(found[side]),
      all: mean(found[side]),
    }));
  });
}

/** Nanoseconds per packet of each batch. */
function measure(pair: EnginePair, packets: number): Record<Side, Float64Array> {
  const batches = Math.ceil(packets / BATCH);
  const [sealNs, openNs] = [new Float64Array(batches), new Float64Array(batches)];
  for (let i = 0; i < batches; i++) {
    pair.refill();
    const began = performance.now();
    pair.seal();
    const sealed = performance.now();
    pair.carry();
    const carried = performance.now();
    pair.open();
    const opened = performance.now();
    sealNs[i] = ((sealed - began) * 1e6) / BATCH;
    openNs[i] = ((opened - carried) * 1e6) / BATCH;
  }
  return { seal: sealNs, open: openNs };
}

function shares(options: Options): CaseShares[] {
  return subjectsOf({ ...options, tables: [] }).flatMap((subject) => {
    const pair = makePair(options, subject);
    for (let i = 0; i < options.packets; i += BATCH) pair.pass();
    const found = profile(() => {
      const began = performance.now();
      while (performance.now() < began + PROFILE_MS) pair.pass();
    });
    pair.close();
    return SIDES.map((side) => ({ subject, side, shares: sharesOf(found, side) }));
  });
}

function optionsOf(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      crypto: { type: 'string', default: NO_CRYPTO },
      packets: { type: 'string', default: '100000' },
      sizes: { type: 'string', default: '64,512,1400' },
      tables: { type: 'string', default: '' },
      mode: { type: 'string', default: 'tunnel' },
      raw: { type: 'boolean', default: false },
      profile: { type: 'boolean', default: false },
    },
  });
  const numbers = (text: string) => text.split(',').filter(Boolean).map(Number);
  return {
    crypto: values.crypto,
    packets: Number(values.packets),
    sizes: numbers(values.sizes),
    tables: numbers(values.tables),
    mode: values.mode === 'transport' ? 'transport' : 'tunnel',
    inUdp: !values.raw,
    profile: values.profile,
  };
}

function main(): void {
  const options = optionsOf(process.argv.slice(2));
  if (options.profile) {
    // What is put into one another no longer has a name of its own in a profile.
    console.log(JSON.stringify(shares(options)));
    return;
  }
  // As `testudo up` does.
  inlineDeeply();
  console.log(JSON.stringify(times(options)));
}

if (process.argv[1]?.endsWith('/engine-case.js')) main();
