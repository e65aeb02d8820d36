import { once } from 'node:events';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import type { LogLevel } from '../../base/env.ts';
import { libc } from '../../drivers/linux/libc.ts';
import { pausePackets } from '../../drivers/linux/poll.ts';
import type { ShareLinksOptions } from '../../drivers/linux/share-links.ts';
import { openWake, wake, watchWake } from '../../drivers/linux/wake.ts';
import type { TierName } from '../../drivers/native/tier.ts';
import { Bells } from './bell.ts';
import { ShardControl } from './control.ts';
import { ringEnds, type ShardMemory, shardMemory } from './memory.ts';
import type { MainEnds } from './shards.ts';
import { clockBehindMs, exchangeSlots, portOf, type ThreadStart } from './thread-parts.ts';

export interface ThreadsOptions {
  /** How many threads there are with the main one: 2 or more. */
  readonly count: number;
  readonly links: Omit<ShareLinksOptions, 'share'>;
  readonly crypto: TierName;
  readonly logLevel: LogLevel;
  /** A thread has ended, and nobody has asked it to. */
  readonly died: (why: string) => void;
}

/** The main thread's end of all that it shares with the threads of other shards. */
export interface Threads extends MainEnds {
  readonly pause: (isPaused: boolean) => void;
  /** Sets who is called when other threads have left something for this one. */
  watch(turn: () => void): void;
  /** Ends the threads. Resolves when they have ended. */
  close(): Promise<void>;
}

const WORKER = new URL(
  import.meta.url.endsWith('.ts') ? 'worker.ts' : 'worker.js',
  import.meta.url,
);

/** How long a thread may take to end. */
const END_MS = 5000;

/**
 * Starts threads with shards of a host, one after the other: the kernel numbers sockets that share
 * a port in the order in which they are bound. The main thread's own are bound already. Rejects,
 * with all of them ended, when one cannot open its links.
 */
export async function startThreads(options: ThreadsOptions): Promise<Threads> {
  const { count, died } = options;
  const c = libc('workers');
  const memory = shardMemory(count);
  const wakes = Array.from({ length: count }, () => openWake(c));
  const bells = new Bells(memory.bells, (shard) => wake(c, wakes[shard]!));
  const workers: Worker[] = [];
  const controls: ShardControl[] = [];
  let watching: { close(): void } | undefined;
  let isClosed = false;
  const close = async () => {
    isClosed = true;
    watching?.close();
    for (const control of controls) control.send({ kind: 'stop' });
    // The descriptors stay: a thread that is ending may still ring.
    await Promise.all(workers.map(ended));
  };
  try {
    for (let self = 1; self < count; self++) {
      const { port1, port2 } = new MessageChannel();
      port1.unref();
      const worker = startThread(options, memory, wakes, self, port2);
      await ready(worker);
      workers.push(worker);
      watchDeath(worker, self, (why) => {
        if (!isClosed) died(why);
      });
      const control = new ShardControl(memory.controls[self - 1]!, portOf(port1), () =>
        bells.ring(self),
      );
      controls.push(control);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return {
    ...{ bells, controls, slots: exchangeSlots(), close, ...ringEnds(memory, 0) },
    pause: pausePackets,
    watch(turn) {
      watching = watchWake(c, wakes[0]!, turn);
    },
  };
}

function startThread(
  { links, crypto, logLevel }: ThreadsOptions,
  memory: ShardMemory,
  wakes: readonly number[],
  self: number,
  port: MessagePort,
): Worker {
  const behindMs = clockBehindMs();
  const start: ThreadStart = {
    ...{ self, memory, wakes, port, links, crypto, logLevel },
    clockBehindMs: behindMs,
  };
  return new Worker(WORKER, { workerData: start, transferList: [port], name: `testudo ${self}` });
}

function ready(worker: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.once('message', () => {
      worker.off('error', reject);
      resolve();
    });
    worker.once('error', reject);
  });
}

/**
 * A thread ends by itself when it has closed everything. One that is ended from outside may be in
 * the middle of native code, which takes the process with it.
 */
async function ended(worker: Worker): Promise<void> {
  if (worker.threadId < 0) return;
  const timer = setTimeout(() => void worker.terminate(), END_MS);
  await once(worker, 'exit');
  clearTimeout(timer);
}

function watchDeath(worker: Worker, self: number, died: (why: string) => void): void {
  let why = 'it ended';
  worker.on('error', (error) => {
    why = error.stack ?? String(error);
  });
  worker.on('exit', () => died(`worker ${self} is gone: ${why}`));
}
