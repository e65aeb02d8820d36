import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { Bells } from '../../src/daemon/shards/bell.ts';
import { MainControl } from '../../src/daemon/shards/control.ts';
import { ringEnds, type ShardMemory } from '../../src/daemon/shards/memory.ts';
import { Shard } from '../../src/daemon/shards/shard.ts';
import { systemEnv } from '../../src/daemon/system-env.ts';
import { chooseCrypto } from '../../src/drivers/native/tier.ts';
import { BATCH, EnginePair } from '../engine-pair.ts';
import { portOf, slots } from './divided.ts';

/** What one thread of the benchmark does. */
export type ThreadTask =
  | { readonly kind: 'serve'; readonly memory: ShardMemory; readonly port: MessagePort }
  | { readonly kind: 'alone'; readonly octets: number; readonly forMs: number };

const WARM_UP = 400;

const task = workerData as ThreadTask;
const crypto = chooseCrypto('auto').provider;
if (task.kind === 'serve') serve(task.memory, task.port);
else alone(task.octets, task.forMs);

/** The second shard of a host, without links and without an event loop. */
function serve(memory: ShardMemory, port: MessagePort): void {
  const bells = new Bells(memory.bells, () => {});
  let isRunning = true;
  const shard = new Shard({
    ...{ self: 1, env: systemEnv('error'), crypto, bells, ...ringEnds(memory, 1) },
    control: new MainControl(memory.controls[0]!, portOf(port), () => bells.ring(0)),
    slots: slots(),
    transmit: () => {},
    deliver: () => {},
    refused: () => ({ wire: 0, local: 0 }),
    readArrived: () => {},
    stopped: () => {
      isRunning = false;
    },
  });
  parentPort!.postMessage('ready');
  setImmediate(() => {
    while (isRunning) {
      const calls = bells.calls(1);
      shard.turn();
      if (isRunning) bells.wait(1, calls, 100);
    }
    port.close();
  });
}

/** An engine by itself, that seals when it is told to. */
function alone(octets: number, forMs: number): void {
  const pair = new EnginePair({
    ...{ provider: crypto, env: systemEnv('error'), octets, tunnels: 1 },
    ...{ mode: 'tunnel', inUdp: false, flows: 'one' },
  });
  for (let i = 0; i < WARM_UP; i++) {
    pair.refill();
    pair.seal();
  }
  parentPort!.once('message', () => {
    const began = performance.now();
    let batches = 0;
    for (; performance.now() - began < forMs; batches++) {
      pair.refill();
      pair.seal();
    }
    const seconds = (performance.now() - began) / 1000;
    pair.close();
    parentPort!.postMessage((batches * BATCH) / seconds);
    parentPort!.close();
  });
  parentPort!.postMessage('ready');
}
