import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { address } from '../../src/base/address.ts';
import { startPfkeyServer } from '../../src/daemon/pfkey-server.ts';
import { HeldKeys } from '../../src/sad/held-keys.ts';
import { saSpec } from '../../src/sad/sa.ts';
import { Slab } from '../../src/sad/slab.ts';
import { type Rig, rig } from '../key/rig.ts';
import { idleLoop } from './idle-loop.ts';

const COUNT = 50_000;
const DUMP = 10;
const NONE = new Uint8Array(0);

let folder: string;
let host: Rig;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'testudo-dump-'));
  host = rig();
  idleLoop();
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

/** Larval ones, which need no cryptography: the dump is the same. */
function fill(): void {
  const slab = new Slab();
  const src = address('10.0.0.1');
  const dst = address('10.0.0.2');
  const keys = new HeldKeys({ auth: 0, encrypt: 0, authKey: NONE, encryptKey: NONE }, slab);
  for (let i = 0; i < COUNT; i++) {
    host.sad.add(saSpec({ protocol: 'esp', spi: 0x1000 + i, src, dst, keys }), 'larval');
  }
}

test('a reader of 4 kB at a time that sleeps gets all of 50,000 SAs, and the rest goes on meanwhile', async () => {
  fill();
  const path = join(folder, 'pfkey');
  const server = await startPfkeyServer({ engine: host.engine, path, log: host.env.log });
  const socket = connect({ path, onread: { buffer: Buffer.alloc(4096), callback: arrived } });
  let rest: Buffer = Buffer.alloc(0);
  const seqs: number[] = [];
  const spis = new Set<number>();
  let turnsOfOthers = 0;
  let done: () => void = () => {};
  const all = new Promise<void>((resolve) => {
    done = resolve;
  });

  function arrived(size: number, chunk: Uint8Array): boolean {
    rest = Buffer.concat([rest, chunk.subarray(0, size)]);
    let at = 0;
    while (rest.length - at >= 16) {
      const len = 8 * rest.readUInt16LE(at + 4);
      if (rest.length - at < len) break;
      seqs.push(rest.readUInt32LE(at + 8));
      spis.add(rest.readUInt32BE(at + 16 + 4));
      at += len;
    }
    rest = Buffer.from(rest.subarray(at));
    if (seqs.at(-1) === 0) done();
    // Now and then it sleeps for a turn of everybody else.
    if (spis.size % 7 === 0) {
      socket.pause();
      setImmediate(() => socket.resume());
    }
    return true;
  }

  const others = setInterval(() => {
    // Only while the dump is under way: what the reader does afterwards is no matter.
    if (host.sad.readers > 0) turnsOfOthers++;
  }, 1);
  const request = Buffer.alloc(16);
  request.set([2, DUMP, 0, 0, 2]);
  socket.write(request);
  await all;
  clearInterval(others);
  expect(seqs).toEqual(Array.from({ length: COUNT }, (_, i) => COUNT - 1 - i));
  expect(spis.size).toBe(COUNT);
  expect(turnsOfOthers).toBeGreaterThan(20);
  socket.destroy();
  await server.close();
});
