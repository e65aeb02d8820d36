import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { address } from '../src/base/address.ts';
import { nodeCrypto } from '../src/crypto/node-provider.ts';
import { startPfkeyServer } from '../src/daemon/pfkey-server.ts';
import { systemEnv } from '../src/daemon/system-env.ts';
import { KeyEngine } from '../src/key/engine.ts';
import { HeldKeys } from '../src/sad/held-keys.ts';
import { saSpec } from '../src/sad/sa.ts';
import { Slab } from '../src/sad/slab.ts';
import { packetFrom } from '../src/wire/packet.ts';
import { Pair } from '../test/engine/pair.ts';
import { counting, ipv4Packet, udp } from '../test/wire/octets.ts';
import { dumpSlowly } from './dump-reader.ts';

/**
 * A million SAs dumped to a reader that takes 4 kB and sleeps, while the same process protects
 * packets as fast as it can: is any SA missing, and what does the dump cost the packets? Rates are
 * per second of processor time, so that other work on the machine does not matter.
 *
 *     npm run build && node dist/bench/dump.js [SAs] [milliseconds of sleep]
 */
const COUNT = Number(process.argv[2] ?? 1_000_000);
const SLEEP_MS = Number(process.argv[3] ?? 4);
const BASE_MS = 10_000;

const NONE = new Uint8Array(0);
const env = systemEnv('error');
const pair = new Pair([{}]);
const { host, sad, spd } = pair.a;
const PLAIN = ipv4Packet({ protocol: 17 }, udp(counting(1000)));
const packets = Array.from({ length: 32 }, () => packetFrom(PLAIN));
const start = packets[0]!.at;

/** Protects one batch; what comes out is counted by the host. */
function protect(): void {
  for (const packet of packets) {
    packet.at = start;
    packet.end = start + PLAIN.length;
    packet.bytes.set(PLAIN, start);
  }
  host.output(packets, packets.length);
  pair.a.sent.length = 0;
}

function fill(): void {
  const slab = new Slab();
  const ends = { src: address('10.0.0.1'), dst: address('10.0.0.9') };
  const keys = new HeldKeys({ auth: 0, encrypt: 0, authKey: NONE, encryptKey: NONE }, slab);
  for (let i = sad.size; i < COUNT; i++) {
    sad.add(saSpec({ protocol: 'esp', spi: 0x1_0000 + i, ...ends, keys }), 'larval');
  }
}

/** Protects until told to stop; packets per second of processor time. */
async function run(until: Promise<unknown>): Promise<number> {
  let isOver = false;
  void until.then(() => {
    isOver = true;
  });
  const before = host.stats.espSealed;
  const began = process.cpuUsage();
  while (!isOver) {
    for (let i = 0; i < 8; i++) protect();
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { user, system } = process.cpuUsage(began);
  return (host.stats.espSealed - before) / ((user + system) / 1e6);
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

fill();
const folder = mkdtempSync(join(tmpdir(), 'testudo-bench-'));
const path = join(folder, 'pfkey');
const engine = new KeyEngine({ env, sad, spd, crypto: nodeCrypto, allowLegacy: false });
const server = await startPfkeyServer({ engine, path, log: env.log });
await run(pause(2000));
const alone = await run(pause(BASE_MS));
const dumping = dumpSlowly(path, SLEEP_MS);
const began = performance.now();
const during = await run(dumping);
const seconds = (performance.now() - began) / 1000;
const { seen, distinct, ordered } = await dumping;
console.log(`| ${COUNT} SAs, a reader of 4 kB every ${SLEEP_MS} ms | |`);
console.log('|---|---|');
console.log(`| entries, different SPIs, counted down to 0 | ${seen}, ${distinct}, ${ordered} |`);
console.log(`| seconds | ${seconds.toFixed(0)} |`);
console.log(
  `| packets per second of CPU, without and with | ${alone.toFixed(0)}, ${during.toFixed(0)} |`,
);
console.log(`| of the rate is left | ${((100 * during) / alone).toFixed(1)} % |`);
await server.close();
rmSync(folder, { recursive: true });
