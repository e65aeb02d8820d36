import { parentPort, workerData } from 'node:worker_threads';
import type { Env } from '../../base/env.ts';
import { libc } from '../../drivers/linux/libc.ts';
import { pausePackets, readArrived } from '../../drivers/linux/poll.ts';
import { openShareLinks } from '../../drivers/linux/share-links.ts';
import { wake, watchWake } from '../../drivers/linux/wake.ts';
import { isAbsent } from '../../drivers/native/koffi.ts';
import { searchLoops } from '../../drivers/native/search-loops.ts';
import { chooseCrypto } from '../../drivers/native/tier.ts';
import { systemEnv } from '../system-env.ts';
import { Bells } from './bell.ts';
import { MainControl } from './control.ts';
import { ringEnds } from './memory.ts';
import { Shard } from './shard.ts';
import { clockBehindMs, exchangeSlots, portOf, type ThreadStart } from './thread-parts.ts';

/** The longest that limits of SAs are not looked at, and that the use of policies is not told. */
const TICK_MS = 250;

/** The thread of a shard: started by `threads.ts`, ends when the main one ends it. */
run(workerData as ThreadStart);

function run({ self, memory, wakes, port, links: opened, crypto, ...start }: ThreadStart): void {
  const c = libc('workers');
  const env = onMainClock(systemEnv(start.logLevel), start.clockBehindMs);
  const share = { self, count: wakes.length };
  const links = openShareLinks({ ...opened, share });
  const search = searchLoops();
  const bells = new Bells(memory.bells, (shard) => wake(c, wakes[shard]!));
  const shard = new Shard({
    ...{ self, env, bells, ...ringEnds(memory, self) },
    crypto: chooseCrypto(crypto).provider,
    search: isAbsent(search) ? undefined : search,
    control: new MainControl(memory.controls[self - 1]!, portOf(port), () => bells.ring(0)),
    slots: exchangeSlots(),
    transmit: (packets, count) => links.wire.send(packets, count),
    deliver: (packets, count) => links.local.send(packets, count),
    refused: () => ({ wire: links.wire.refused, local: links.local.refused }),
    backlog: () => links.wire.backlog.counts,
    readArrived: () => readArrived(c),
    pause: pausePackets,
    stopped: () => {
      clearTimeout(timer);
      links.close();
      // Nothing is left that keeps the thread; but it may be called from one of these.
      setImmediate(() => {
        waking?.close();
        port.close();
      });
    },
  });
  let waking: { close(): void } | undefined;
  let timer: NodeJS.Timeout | undefined;
  const tick = () => {
    const now = env.clock.monotonicMs();
    const dueMs = shard.poll(now) - now;
    timer = setTimeout(tick, Math.max(1, Math.min(dueMs, TICK_MS)));
  };
  waking = watchWake(c, wakes[self]!, () => shard.turn());
  links.wire.receive(shard.input);
  links.local.receive(shard.output);
  tick();
  shard.turn();
  parentPort!.postMessage('ready');
}

/** Times that shards tell each other are of one clock. */
function onMainClock(env: Env, mainBehindMs: number): Env {
  const aheadMs = clockBehindMs() - mainBehindMs;
  const { monotonicMs, wallMs } = env.clock;
  return { ...env, clock: { monotonicMs: () => monotonicMs() + aheadMs, wallMs } };
}
