import { linkSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type PfkeyServer, startPfkeyServer } from '../../src/daemon/pfkey-server.ts';
import { type Rig, rig } from '../key/rig.ts';
import { idleLoop } from './idle-loop.ts';
import { address, discard, find, key, message, OctetsClient, sa } from './octets-client.ts';

const GETSPI = 1;
const ADD = 3;
const GET = 5;
const FLUSH = 9;
const DUMP = 10;
const SPDADD = 14;
const SPDDUMP = 18;
const ESP = 3;

const ENDS = [address(5, 10, 0, 0, 1), address(6, 10, 0, 0, 2)];

let folder: string;
let path: string;
let host: Rig;
let logged: string[];
const servers: PfkeyServer[] = [];
const clients: OctetsClient[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'testudo-'));
  path = join(folder, 'run', 'pfkey');
  host = rig();
  logged = [];
});

afterEach(async () => {
  vi.restoreAllMocks();
  for (const client of clients.splice(0)) client.close();
  for (const server of servers.splice(0)) await server.close();
  rmSync(folder, { recursive: true });
});

async function start(clientMax?: number): Promise<PfkeyServer> {
  const server = await startPfkeyServer({
    engine: host.engine,
    path,
    log: (_level, line) => logged.push(line),
    ...(clientMax === undefined ? {} : { clientMax }),
  });
  servers.push(server);
  return server;
}

async function open(): Promise<OctetsClient> {
  const client = await OctetsClient.open(path);
  clients.push(client);
  return client;
}

/** What the server does next comes after what it has been sent before. */
async function roundTrip(client: OctetsClient): Promise<void> {
  client.send(message(99, 0, 0xffff_fff0));
  for (;;) {
    const reply = await client.read();
    if (reply === undefined || reply.readUInt32LE(8) === 0xffff_fff0) return;
  }
}

describe('the socket', () => {
  test('is private, and gone after an orderly end', async () => {
    const server = await start();
    expect(statSync(join(folder, 'run')).mode & 0o777).toBe(0o700);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await servers.pop()!.close();
    expect(() => statSync(server.path)).toThrow(/ENOENT/);
  });

  test('a second host is told that there is one', async () => {
    await start();
    await expect(start()).rejects.toThrow(/a host is listening on .*pfkey already/);
    const client = await open();
    client.send(message(FLUSH, 0, 1));
    expect((await client.read())?.[2]).toBe(0);
  });

  test('what a crash has left is replaced; other things are left alone', async () => {
    const dead = createServer().listen(join(folder, 'dead'));
    await new Promise((resolve) => dead.once('listening', resolve));
    path = join(folder, 'dead');
    // A socket whose owner is gone: the name stays when the descriptor is closed behind libuv's
    // back.
    linkSync(path, join(folder, 'stale'));
    await new Promise((resolve) => dead.close(resolve));
    path = join(folder, 'stale');
    await start();
    expect((await open()).closed).toBe(false);

    path = join(folder, 'file');
    writeFileSync(path, 'mine');
    await expect(start()).rejects.toThrow(/is not a socket; it is left alone/);
    expect(statSync(path).size).toBe(4);
  });

  test('one client too many is turned away', async () => {
    const server = await start(2);
    const [first] = [await open(), await open()];
    await roundTrip(first);
    const third = await open();
    expect(await third.read()).toBeUndefined();
    expect(server.clients).toBe(2);
    expect(logged).toEqual([expect.stringContaining('turned away')]);
  });
});

describe('a program made of octets', () => {
  test('adds an SA, gets it back with its key, and another hears of it without', async () => {
    await start();
    const [client, other] = [await open(), await open()];
    await roundTrip(other);
    client.send(message(ADD, ESP, 7, sa(0x1001), ...ENDS, key(0x5a)));
    const added = (await client.read())!;
    expect([...added.subarray(0, 4), added.readUInt32LE(8), added.readUInt32LE(12)]).toEqual([
      2,
      ADD,
      0,
      ESP,
      7,
      4711,
    ]);
    expect(added.length).toBe(8 * added.readUInt16LE(4));
    expect(find(added, 9)).toBeUndefined();
    expect(await other.read()).toEqual(added);
    client.send(message(GET, ESP, 8, sa(0x1001), ...ENDS));
    const got = (await client.read())!;
    expect(find(got, 9)).toEqual(key(0x5a));
    expect(find(got, 1)?.readUInt32BE(4)).toBe(0x1001);
    expect(find(got, 6)?.subarray(12, 16)).toEqual(Buffer.of(10, 0, 0, 2));
    // Current, hard and soft lifetimes, and the mode.
    for (const number of [2, 3, 4, 19]) expect(find(got, number)).toBeDefined();
  });

  test('may cut and join its messages as it likes', async () => {
    await start();
    const client = await open();
    const both = Buffer.concat([
      message(ADD, ESP, 1, sa(0x1001), ...ENDS, key(1)),
      message(FLUSH, 0, 2),
    ]);
    for (const octet of both.subarray(0, 40)) client.send(Buffer.of(octet));
    client.send(both.subarray(40));
    expect((await client.read())?.readUInt32LE(8)).toBe(1);
    expect((await client.read())?.readUInt32LE(8)).toBe(2);
  });

  test('gets an errno for what cannot be read, and may go on', async () => {
    await start();
    const client = await open();
    const wrongVersion = message(FLUSH, 0, 1);
    wrongVersion[0] = 3;
    const cutExtension = message(GET, ESP, 3, sa(0x1001));
    cutExtension.writeUInt16LE(9, 16);
    const bad = [wrongVersion, message(99, 0, 2), cutExtension, message(ADD, 0, 4)];
    client.send(...bad);
    for (const seq of [1, 2, 3, 4]) {
      const reply = (await client.read())!;
      expect([reply.length, reply[0], reply[2], reply.readUInt32LE(8)]).toEqual([16, 2, 22, seq]);
    }
    expect(host.engine.reasonFor(4711, 3)).toMatch(/extension SA has 72 octets/);
    client.send(message(FLUSH, 0, 5));
    expect((await client.read())?.[2]).toBe(0);
  });

  test('is disconnected when its messages cannot be told apart', async () => {
    const server = await start();
    const client = await open();
    const tooShort = message(FLUSH, 0, 1);
    tooShort.writeUInt16LE(1, 4);
    client.send(tooShort);
    expect(await client.read()).toBeUndefined();
    const second = await open();
    const tooLong = message(FLUSH, 0, 1);
    tooLong.writeUInt16LE(8193, 4);
    second.send(tooLong);
    expect(await second.read()).toBeUndefined();
    expect(logged).toEqual([
      expect.stringContaining('8 octets, a header has 16'),
      expect.stringContaining('65544 octets'),
    ]);
    await roundTrip(await open());
    expect(server.clients).toBe(1);
  });

  test('still gets its answers when it has closed its sending side', async () => {
    await start();
    const client = await open();
    for (let i = 0; i < 300; i++) client.send(message(GETSPI, ESP, i, ...ENDS));
    client.send(message(DUMP, 0, 300));
    client.end();
    const seqs: number[] = [];
    for (let one = await client.read(); one; one = await client.read()) {
      expect(one[2]).toBe(0);
      seqs.push(one.readUInt32LE(8));
    }
    expect(seqs.slice(0, 300)).toEqual(Array.from({ length: 300 }, (_, i) => i));
    expect(seqs.slice(300)).toEqual(Array.from({ length: 300 }, (_, i) => 299 - i));
  });
});

test('a program that floods keeps others waiting for a part of it only', async () => {
  await start();
  const [greedy, other] = [await open(), await open()];
  await Promise.all([roundTrip(greedy), roundTrip(other)]);
  let last = 0;
  // All at once there, before the other says a word.
  const flood = Array.from({ length: 4000 }, (_, i) => message(FLUSH, ESP, i));
  greedy.send(Buffer.concat(flood));
  const all = (async () => {
    while (last < 3999) last = (await greedy.read())!.readUInt32LE(8);
  })();
  await new Promise((resolve) => setImmediate(resolve));
  const hurried = roundTrip(other);
  await hurried;
  expect(last).toBeLessThan(2000);
  await all;
});

describe('a reader that is slow', () => {
  async function readSlowly(client: OctetsClient): Promise<Buffer[]> {
    const entries: Buffer[] = [];
    for (;;) {
      const entry = (await client.read())!;
      entries.push(entry);
      if (entry.readUInt32LE(8) === 0) return entries;
      if (entries.length % 25 !== 0) continue;
      client.pause();
      await new Promise((resolve) => setImmediate(resolve));
      client.resume();
    }
  }

  test('gets every one of 1000 larval SAs', async () => {
    idleLoop();
    await start();
    const maker = host.connect();
    const spis = new Set<number>();
    for (let i = 0; i < 1000; i++) {
      const { spec } = host.sad.reserve(larval(), 0x1000, 0xffff);
      spis.add(spec.spi);
    }
    const client = await open();
    client.send(message(DUMP, 0, 1));
    client.pause();
    // Meanwhile things change.
    await roundTrip(await open());
    maker.ask('FLUSH', 'ah');
    for (const one of [...host.sad.all()].slice(500, 600)) host.sad.remove(one);
    client.resume();
    const entries = await readSlowly(client);
    const dumped = entries.filter((one) => one[1] === DUMP);
    expect(dumped.map((one) => one.readUInt32LE(8))).toEqual(
      Array.from({ length: 1000 }, (_, i) => 999 - i),
    );
    expect(new Set(dumped.map((one) => find(one, 1)!.readUInt32BE(4)))).toEqual(spis);
  });

  test('gets every one of 240 policies', async () => {
    await start();
    const client = await open();
    for (let i = 0; i < 240; i++) {
      client.send(
        message(
          SPDADD,
          0,
          i,
          discard(1 + (i % 3)),
          address(5, 10, 1, 0, i),
          address(6, 10, 0, 0, 2),
        ),
      );
      expect((await client.read())?.[2]).toBe(0);
    }
    client.send(message(SPDDUMP, 0, 300));
    const entries = await readSlowly(client);
    expect(entries.map((one) => one.readUInt32LE(8))).toEqual(
      Array.from({ length: 240 }, (_, i) => 239 - i),
    );
    const ids = new Set(entries.map((one) => find(one, 18)!.readUInt32LE(8)));
    expect(ids.size).toBe(240);
  });

  test('that never reads costs the others nothing, and what it misses is counted', async () => {
    idleLoop();
    const server = await start();
    const [stalled, client] = [await open(), await open()];
    await roundTrip(stalled);
    stalled.pause();
    for (let i = 0; i < 2000; i++) host.sad.reserve(larval(), 0x1000, 0xffff_ffff);
    stalled.send(message(DUMP, 0, 1), message(DUMP, 0, 2), message(FLUSH, 0, 3));
    await roundTrip(client);
    for (let i = 0; i < 100; i++) host.engine.announceToAll(notice());
    expect(server.droppedNotices).toBe(0);
    for (let i = 0; i < 1100; i++) host.engine.announceToAll(notice());
    expect(server.droppedNotices).toBeLessThan(500);
    expect(server.droppedNotices).toBeGreaterThan(0);
    // It has not been heard beyond its first request, so nothing is flushed.
    expect(host.sad.size).toBe(2000);
    client.close();
    // When it wakes up, the dumps are whole.
    stalled.resume();
    let [dumps, entries] = [0, 0];
    for (;;) {
      const one = (await stalled.read())!;
      if (one[1] === DUMP) {
        entries++;
        if (one.readUInt32LE(8) === 0) dumps++;
      }
      if (one[1] === FLUSH && one.readUInt32LE(12) === 4711) break;
    }
    expect([dumps, entries]).toEqual([2, 4000]);
    expect(host.sad.size).toBe(0);
  });

  test('that goes away in the middle of a dump leaves nothing behind', async () => {
    idleLoop();
    const server = await start();
    for (let i = 0; i < 2000; i++) host.sad.reserve(larval(), 0x1000, 0xffff_ffff);
    const client = await open();
    client.send(message(DUMP, 0, 1));
    await client.read();
    expect(host.sad.readers).toBe(1);
    client.close();
    const other = await open();
    // The host sees it when it wants to send the next entries.
    while (server.clients > 1) {
      await roundTrip(other);
      await sleep(1);
    }
    expect(server.clients).toBe(1);
    expect(host.engine.counters.clients).toBe(1);
    expect(host.sad.readers).toBe(0);
  });
});

/** About 1000 octets. */
function notice() {
  const head = { type: 'FLUSH', errno: 0, satype: 'esp', seq: 0, pid: 0, reserved: 0 } as const;
  const identity = { type: 'IDENTITY_SRC', idType: 2, id: 0, text: 'x'.repeat(1000) } as const;
  return { ...head, extensions: [identity] };
}

function larval() {
  const ip = (last: number) => ({ family: 4 as const, bytes: Uint8Array.of(10, 0, 0, last) });
  const none = new Uint8Array(0);
  return {
    protocol: 'esp' as const,
    src: ip(1),
    dst: ip(2),
    keys: { auth: 0, encrypt: 0, authKey: none, encryptKey: none },
    mode: 'any' as const,
    reqid: 0,
    replayPackets: 0,
    esn: false,
    flags: 0,
    padding: 'sequential' as const,
    ahAlignLen: 4 as const,
    tunnel: {},
    hard: { packets: 0, bytes: 0, addSeconds: 0, useSeconds: 0 },
    soft: { packets: 0, bytes: 0, addSeconds: 0, useSeconds: 0 },
    identities: [],
    pid: 0,
    seq: 0,
    origin: 'client' as const,
  };
}
