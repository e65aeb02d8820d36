import { describe, expect, test } from 'vitest';
import { nodeCrypto } from '../../../src/crypto/node-provider.ts';
import { hex, specOf } from '../../crypto/make.ts';
import { natives } from './natives.ts';

const NATIVES = natives();

const GCM = { cipher: 'aes-gcm-16', cipherKey: '01'.repeat(20) };
const CBC = {
  cipher: 'aes-cbc',
  cipherKey: '02'.repeat(16),
  mac: 'hmac-sha256',
  macKey: '03'.repeat(32),
};
const LEN = 40;

describe.each(NATIVES)('the queue of $name', ({ provider }) => {
  const { queue } = provider;

  test('all transforms share it, and it has room for a batch', () => {
    const transforms = [provider.esp(specOf(GCM)), provider.esp(specOf(CBC))];
    for (const esp of transforms) expect(esp.queue).toBe(queue);
    expect(queue.capacity).toBeGreaterThanOrEqual(256);
    for (const esp of transforms) esp.wipe();
  });

  test('numbers go up with each job and begin again after run', () => {
    const esp = provider.esp(specOf(GCM));
    const p = new Uint8Array(3 * 100);
    for (let round = 0; round < 2; round++) {
      expect([0, 1, 2].map((i) => esp.sealLater!(p, 100 * i, 100 * i + LEN, -1))).toEqual([
        0, 1, 2,
      ]);
      expect(queue.count).toBe(3);
      queue.run();
      expect(queue.count).toBe(0);
      expect([0, 1, 2].map((i) => queue.ok(i))).toEqual([true, true, true]);
    }
    esp.wipe();
  });

  test('nothing happens before run, and run without jobs is nothing', () => {
    const esp = provider.esp(specOf(GCM));
    const p = new Uint8Array(100);
    queue.run();
    const job = esp.sealLater!(p, 0, LEN, -1);
    expect(p.every((octet) => octet === 0)).toBe(true);
    expect(() => queue.ok(job)).toThrow('a job of the last run');
    queue.run();
    expect(p.some((octet) => octet !== 0)).toBe(true);
    esp.wipe();
  });

  test('one job more than fits is a mistake of ours, and the others are done', () => {
    const esp = provider.esp(specOf(GCM));
    const p = new Uint8Array(queue.capacity * 64);
    for (let i = 0; i < queue.capacity; i++) esp.sealLater!(p, i * 64, i * 64 + LEN, -1);
    expect(() => esp.sealLater!(p, 0, LEN, -1)).toThrow('the queue has room');
    queue.run();
    for (let i = 0; i < queue.capacity; i++) expect(queue.ok(i)).toBe(true);
    esp.wipe();
  });

  test.each([GCM, CBC])('a row is as many jobs, in whatever arrays the packets are', (named) => {
    const esp = provider.esp(specOf(named));
    const twin = nodeCrypto.esp(specOf(named));
    const [arena, other] = [new Uint8Array(1000), new Uint8Array(300)];
    const row = [
      ...[0, 150, 300].map((at) => ({ bytes: arena, at })),
      ...[170, 40].map((at) => ({ bytes: other, at })),
      { bytes: arena, at: 700 },
    ];
    const len = 8 + esp.ivLen + 32;
    for (const { bytes, at } of row) bytes.fill(at & 255, at, at + 100);
    const piecesOf = (some: typeof row) => {
      return some.map(({ bytes, at }) => hex(bytes.subarray(at, at + 12 + len + esp.icvLen)));
    };
    const copies = row.map(({ bytes, at }) => ({ bytes: bytes.slice(), at }));
    for (const { bytes, at } of copies.slice(1)) twin.seal(bytes, at + 12, at + 12 + len, 5);
    const whole = new Uint8Array(200);
    expect(esp.sealLater!(whole, 0, len, 5)).toBe(0);
    expect(esp.sealRowLater!(row, 1, row.length - 1, 12, len, 5)).toBe(1);
    expect(queue.count).toBe(row.length);
    queue.run();
    expect(queue.countOk(0, row.length)).toBe(row.length);
    expect(piecesOf(row)).toEqual(piecesOf(copies));
    // Opened again, with one of them bent.
    esp.sealRowLater!(row, 0, 1, 12, len, 5);
    queue.run();
    row[3]!.bytes[row[3]!.at + 40]! ^= 1;
    expect(esp.openRowLater!(row, 0, row.length, 12, len + esp.icvLen, 5)).toBe(0);
    queue.run();
    expect([0, 1, 2, 3, 4, 5].map((i) => queue.ok(i))).toEqual([
      true,
      true,
      true,
      false,
      true,
      true,
    ]);
    expect([queue.countOk(0, 6), queue.countOk(0, 2), queue.countOk(3, 3)]).toEqual([3, 2, 0]);
    expect(queue.countOk(4, 2)).toBe(2);
    esp.wipe();
  });

  test('a row with a small array in it, and one that does not fit', () => {
    const esp = provider.esp(specOf(GCM));
    const right = new Uint8Array(64);
    nodeCrypto.esp(specOf(GCM)).seal(right, 0, LEN, -1);
    const row = [200, 64, 200, 50].map((len) => ({ bytes: new Uint8Array(len), at: 0 }));
    expect(() => esp.sealRowLater!(row, 0, 4, 0, LEN, -1)).toThrow('a job lies in its array');
    expect(queue.count).toBe(0);
    const others = row.slice(0, 3);
    for (const { bytes } of others) bytes.fill(0);
    expect(esp.sealRowLater!(others, 0, 3, 0, LEN, -1)).toBe(0);
    queue.run();
    expect(queue.countOk(0, 3)).toBe(3);
    for (const { bytes } of others) expect(hex(bytes.subarray(0, 64))).toBe(hex(right));
    esp.sealRowLater!(new Array(queue.capacity).fill(others[0]), 0, queue.capacity, 0, LEN, -1);
    expect(() => esp.sealRowLater!(others, 0, 1, 0, LEN, -1)).toThrow('the queue has room');
    queue.run();
    esp.wipe();
  });

  test('arrays of any number, and more at once than are remembered', () => {
    const esp = provider.esp(specOf(GCM));
    const twin = nodeCrypto.esp(specOf(GCM));
    const right = new Uint8Array(100);
    twin.seal(right, 0, LEN, -1);
    const arrays = Array.from({ length: 2000 }, () => new Uint8Array(100));
    for (const [i, p] of arrays.entries()) {
      if (i % 5 !== 0) esp.seal(p, 0, LEN, -1);
      else esp.sealLater!(p, 0, LEN, -1);
    }
    queue.run();
    expect(arrays.every((p) => hex(p) === hex(right))).toBe(true);
    expect(queue.regions.count).toBeLessThan(20);
    esp.wipe();
  });

  test('a small array, which may move, is copied and never pointed to', () => {
    const esp = provider.esp(specOf(GCM));
    const before = queue.regions.count;
    const p = new Uint8Array(64);
    const later = new Uint8Array(64);
    esp.seal(p, 0, LEN, -1);
    esp.sealLater!(later, 0, LEN, -1);
    queue.run();
    expect(hex(later)).toBe(hex(p));
    for (let i = 0; i < queue.regions.count; i++) {
      expect([p, later]).not.toContain(queue.regions.array(i));
    }
    expect(queue.regions.count).toBeLessThanOrEqual(before + 1);
    esp.wipe();
  });

  test('wiped while jobs wait: they are done, then the keys are gone', () => {
    const esp = provider.esp(specOf(CBC));
    const held = queue.contexts.count;
    const p = new Uint8Array(200);
    const job = esp.sealLater!(p, 0, 8 + 16 + 32, -1);
    const right = p.slice();
    nodeCrypto.esp(specOf(CBC)).seal(right, 0, 8 + 16 + 32, -1);
    esp.wipe();
    expect(queue.contexts.count).toBe(held);
    queue.run();
    expect(queue.ok(job)).toBe(true);
    expect(hex(p)).toBe(hex(right));
    expect(queue.contexts.count).toBe(held - 1);
    expect(() => esp.sealLater!(p, 0, 56, -1)).toThrow('wiped');
    esp.wipe();
  });

  test('a context that was given back is used again, and has nothing of what was in it', () => {
    const esp = provider.esp(specOf(GCM));
    const index = [...Array(2000).keys()].findLast((i) => queue.contexts.at(i) !== undefined)!;
    const { bytes } = queue.contexts.at(index)!;
    expect(bytes.some((octet) => octet !== 0)).toBe(true);
    esp.wipe();
    expect(bytes.every((octet) => octet === 0)).toBe(true);
    const next = provider.esp(specOf(CBC));
    const p = new Uint8Array(200);
    const right = p.slice();
    next.seal(p, 0, 56, 3);
    nodeCrypto.esp(specOf(CBC)).seal(right, 0, 56, 3);
    expect(hex(p)).toBe(hex(right));
    next.wipe();
  });

  test.each(['hmac-sha256', 'aes-cmac', 'aes-gmac-128'])(
    'AH by %s over more than 65,535 octets, and over none',
    (mac) => {
      const spec = specOf({
        mac,
        macKey: mac === 'hmac-sha256' ? CBC.macKey : '05'.repeat(mac === 'aes-cmac' ? 16 : 20),
      });
      const [ah, twin] = [provider.ah(spec), nodeCrypto.ah(spec)];
      const p = new Uint8Array(65_575).fill(9);
      const jobs: { readonly job: number; readonly icv: Uint8Array; readonly right: Uint8Array }[] =
        [];
      // So many that lanes are used for those that fit.
      for (let i = 0; i < 48; i++) {
        const end = [p.length, 65_530, 65_531, 0][i % 4]!;
        const icv = new Uint8Array(80);
        const right = icv.slice();
        const high = i % 8 < 4 ? -1 : 1;
        twin.sign(p, 0, end, high, right, 1);
        jobs.push({ job: ah.signLater!(p, 0, end, high, icv, 1), icv, right });
      }
      queue.run();
      for (const [i, { job, icv, right }] of jobs.entries()) {
        expect(queue.ok(job), `${i}`).toBe(true);
        expect(hex(icv), `${i}`).toBe(hex(right));
      }
      ah.wipe();
    },
  );

  test('a longer piece than any packet is a mistake of ours', () => {
    const esp = provider.esp(specOf(GCM));
    expect(() => esp.seal(new Uint8Array(200_000), 0, 150_000, -1)).toThrow('assertion failed');
    esp.wipe();
  });
});
