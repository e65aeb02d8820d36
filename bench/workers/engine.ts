import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { Bells } from '../../src/daemon/shards/bell.ts';
import { MainControl } from '../../src/daemon/shards/control.ts';
import { ringEnds, shardMemory } from '../../src/daemon/shards/memory.ts';
import { Shard } from '../../src/daemon/shards/shard.ts';
import { systemEnv } from '../../src/daemon/system-env.ts';
import { chooseCrypto } from '../../src/drivers/native/tier.ts';
import { BATCH, channel, Main, portOf, slots } from './divided.ts';
import type { ThreadTask } from './thread.ts';

const WARM_UP = 200;
const BATCHES = 2000;
const RUN_MS = 700;
const THREAD = new URL('thread.js', import.meta.url);
const provider = chooseCrypto('auto').provider;

/** Nanoseconds to seal a packet by an SA of this shard, and by one of another on this thread. */
export function handOver(octets: number): { own: number; passed: number } {
  const memory = shardMemory(2);
  const bells = new Bells(memory.bells, () => {});
  const { port1, port2 } = channel();
  let sealed = 0;
  const other = new Shard({
    ...{ self: 1, env: systemEnv('error'), crypto: provider, bells, ...ringEnds(memory, 1) },
    control: new MainControl(memory.controls[0]!, portOf(port2), () => bells.ring(0)),
    slots: slots(),
    transmit: (_, count) => {
      sealed += count;
    },
    deliver: () => {},
    refused: () => ({ wire: 0, local: 0 }),
    readArrived: () => {},
    stopped: () => {},
    waiting: () => main.shards.serve(),
  });
  const main = new Main(memory, bells, [portOf(port1)], provider, octets, () => other.turn());
  const measure = (sa: number): number => {
    const run = (batches: number) => {
      for (let i = 0; i < batches; i++) {
        main.output(sa);
        other.turn();
      }
    };
    run(WARM_UP);
    const began = process.hrtime.bigint();
    run(BATCHES);
    return Number(process.hrtime.bigint() - began) / (BATCHES * BATCH);
  };
  // In turns, so that both are compiled before either counts.
  measure(0);
  measure(1);
  const [own, passed] = [measure(0), measure(1)];
  const expected = 2 * (WARM_UP + BATCHES) * BATCH;
  if (main.sealed !== expected || sealed !== expected) throw new Error('packets were lost');
  main.shards.stop();
  return { own, passed };
}

/**
 * Packets a second that are sealed when this thread reads them all, and passes a share of them to a
 * second one.
 */
export async function handOverBetweenThreads(octets: number, share: number): Promise<number> {
  const memory = shardMemory(2);
  const bells = new Bells(memory.bells, () => {});
  const { port1, port2 } = channel();
  const task: ThreadTask = { kind: 'serve', memory, port: port2 };
  const worker = new Worker(THREAD, { workerData: task, transferList: [port2] });
  await once(worker, 'message');
  const main = new Main(memory, bells, [portOf(port1)], provider, octets);
  const run = (forMs: number): number => {
    const endMs = performance.now() + forMs;
    let [batches, owed] = [0, 0];
    for (; performance.now() < endMs; batches++) {
      owed += share;
      const isPassed = owed >= 1;
      if (isPassed) owed--;
      main.output(isPassed ? 1 : 0);
      // The other one is behind: this thread could not read more.
      while (isPassed && main.isBehind) main.shards.turn();
    }
    return batches * BATCH;
  };
  run(RUN_MS / 2);
  const began = performance.now();
  const count = run(RUN_MS);
  main.shards.report(false);
  const seconds = (performance.now() - began) / 1000;
  if (main.refused > 0) throw new Error('packets were lost');
  main.shards.stop();
  await once(worker, 'exit');
  return count / seconds;
}

/** Packets a second that threads seal together, each for itself. */
export async function sideBySide(octets: number, threads: number): Promise<number> {
  const task: ThreadTask = { kind: 'alone', octets, forMs: RUN_MS };
  const workers = Array.from({ length: threads }, () => new Worker(THREAD, { workerData: task }));
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  for (const worker of workers) worker.postMessage('go');
  const rates = await Promise.all(
    workers.map(async (worker) => {
      const [rate] = (await once(worker, 'message')) as [number];
      return rate;
    }),
  );
  await Promise.all(workers.map((worker) => worker.threadId < 0 || once(worker, 'exit')));
  return rates.reduce((sum, rate) => sum + rate, 0);
}
