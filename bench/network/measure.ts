import { setTimeout as sleep } from 'node:timers/promises';
import { type Datagrams, datagrams, MIXES, type Mix } from './load/datagrams.ts';
import { tcpMbps } from './load/iperf.ts';
import { type Pings, ping } from './load/ping.ts';
import { type Processor, processorTime } from './load/processor.ts';
import { Testbed } from './testbed.ts';
import type { Tunnel, Variant } from './variant.ts';

/** What can be measured. `tcp`: one stream, with processor time; `load`: four, with pings. */
export const MEASUREMENTS = ['ping', 'tcp', 'load', 'udp'] as const;
export type Measurement = (typeof MEASUREMENTS)[number];

/** Of one variant in one round; what was not asked for is missing. */
export interface Result {
  readonly pingIdle?: Pings;
  readonly tcpMbps?: number;
  /** Seconds of processor time for a gigabit of the one stream, both ends together. */
  readonly secondsPerGbit?: Processor;
  readonly tcp4Mbps?: number;
  readonly pingLoaded?: Pings;
  readonly udp?: Partial<Readonly<Record<Mix, Datagrams>>> | undefined;
}

export interface MeasureOptions {
  /** Of each measurement. */
  readonly seconds: number;
  readonly wanted: readonly Measurement[];
  /** TCP's congestion control. */
  readonly congestion: string;
}

const WARM_UP_S = 2;

/** Idle pings take this share of the seconds of a measurement. */
const PING_SHARE = 0.4;

/** After so many times the seconds that it should take, and this many more, it has failed. */
const PATIENCE = 3;
const PATIENCE_S = 30;

/**
 * Sets a variant up, makes sure that it is what it says, and measures it. Rejects when it does not
 * work, or takes for ever.
 */
export async function measure(variant: Variant, how: MeasureOptions): Promise<Result> {
  const bed = new Testbed();
  const { seconds, wanted } = how;
  const expected = WARM_UP_S + seconds * (wanted.length + Object.keys(MIXES).length);
  const limit = new AbortController();
  try {
    const late = sleep(1000 * (PATIENCE_S + PATIENCE * expected), undefined, {
      signal: limit.signal,
    }).then(() => {
      throw new Error(`it hangs: ${bed.doing}`);
    });
    return await Promise.race([measureIn(bed, variant, how), late]);
  } finally {
    limit.abort();
    bed.close();
  }
}

async function measureIn(bed: Testbed, variant: Variant, how: MeasureOptions): Promise<Result> {
  const { seconds, wanted } = how;
  if (variant.limited) bed.limitWire();
  bed.doing = 'starts';
  const tunnel = await variant.start(bed);
  await bed.ready(tunnel.from, tunnel.to);
  bed.doing = 'is looked at on the wire';
  if (variant.isBare !== true) await bed.prove(tunnel.from, tunnel.to);
  let result: Result = {};
  for (const one of MEASUREMENTS.filter((name) => wanted.includes(name))) {
    bed.doing = `is measured, ${one}`;
    if (one === 'ping')
      result = { ...result, pingIdle: await ping(bed, tunnel, PING_SHARE * seconds) };
    if (one === 'tcp') result = { ...result, ...(await oneStream(bed, tunnel, how)) };
    if (one === 'load') result = { ...result, ...(await fourStreams(bed, tunnel, how)) };
    if (one === 'udp') result = { ...result, udp: await allMixes(bed, tunnel, seconds) };
  }
  return result;
}

async function oneStream(bed: Testbed, tunnel: Tunnel, how: MeasureOptions): Promise<Result> {
  // Programs that compile themselves, or find out how fast they may be, have had their time.
  await tcpMbps(bed, tunnel, { ...how, seconds: WARM_UP_S, streams: 1 });
  const before = processorTime(tunnel.pids);
  const mbps = await tcpMbps(bed, tunnel, { ...how, streams: 1 });
  const after = processorTime(tunnel.pids);
  const gigabits = (mbps * how.seconds) / 1000;
  return {
    tcpMbps: mbps,
    secondsPerGbit: {
      programs: (after.programs - before.programs) / gigabits,
      machine: (after.machine - before.machine) / gigabits,
    },
  };
}

/** The pings are too few to be felt by the streams. */
async function fourStreams(bed: Testbed, tunnel: Tunnel, how: MeasureOptions): Promise<Result> {
  const [mbps, pings] = await Promise.all([
    tcpMbps(bed, tunnel, { ...how, streams: 4 }),
    ping(bed, tunnel, PING_SHARE * how.seconds),
  ]);
  return { tcp4Mbps: mbps, pingLoaded: pings };
}

async function allMixes(bed: Testbed, tunnel: Tunnel, seconds: number): Promise<Result['udp']> {
  const found: Partial<Record<Mix, Datagrams>> = {};
  for (const mix of Object.keys(MIXES) as Mix[]) {
    found[mix] = await datagrams(bed, tunnel, mix, seconds);
  }
  return found;
}
