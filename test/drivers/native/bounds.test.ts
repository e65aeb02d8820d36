import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as layout from '../../../src/drivers/native/layout.ts';
import type { NativeProvider } from '../../../src/drivers/native/provider.ts';
import type { NativeQueue } from '../../../src/drivers/native/queue.ts';
import { specOf } from '../../crypto/make.ts';
import { compiled, fast, natives } from './natives.ts';

const NATIVES = natives();
const COMPILED = compiled(NATIVES);

/**
 * The border between offsets and addresses, from both sides: what points outside of its array is
 * refused, and nothing beside the array changes.
 */

const { JOB } = layout;
const GCM = { cipher: 'aes-gcm-16', cipherKey: '07'.repeat(20) };
const CBC = {
  cipher: 'aes-cbc',
  cipherKey: '07'.repeat(16),
  mac: 'hmac-sha256',
  macKey: '08'.repeat(32),
};
const CHACHA = { cipher: 'chacha20-poly1305', cipherKey: '07'.repeat(36) };
const CCM = { cipher: 'aes-ccm-16', cipherKey: '07'.repeat(19) };
const GMAC = { mac: 'aes-gmac-128', macKey: '07'.repeat(20) };
const CMAC = { mac: 'aes-cmac', macKey: '07'.repeat(16) };
const ESP = [GCM, CBC, CHACHA, CCM];
const AH = [GMAC, CMAC];

/** An array in the middle of another one, which shows what is written beside it. */
class Guarded {
  readonly whole = new Uint8Array(new ArrayBuffer(600)).fill(0xee);
  readonly bytes: Uint8Array;

  constructor(len: number) {
    this.bytes = this.whole.subarray(200, 200 + len).fill(1);
  }

  get isIntact(): boolean {
    const { byteOffset, length } = this.bytes;
    return [
      ...this.whole.subarray(0, byteOffset),
      ...this.whole.subarray(byteOffset + length),
    ].every((octet) => octet === 0xee);
  }
}

describe.each(NATIVES)('offsets given to $name', ({ provider }) => {
  const offset = fc.oneof(
    fc.integer({ min: -40, max: 340 }),
    fc.constantFrom(
      Number.NaN,
      Number.POSITIVE_INFINITY,
      2 ** 31,
      2 ** 32,
      2 ** 32 + 8,
      -0.5,
      1e300,
    ),
    fc.double({ min: -10, max: 320, noNaN: true }),
  );
  const len = fc.constantFrom(30, 64, 65, 200, 300);
  const later = fc.boolean();
  const when = fc.constantFrom('at once', 'later', 'in a row');

  test('ESP', () => {
    const { queue } = provider;
    const all = ESP.map((named) => ({ named, esp: provider.esp(specOf(named)) }));
    let refused = 0;
    fc.assert(
      fc.property(
        fc.constantFrom(...all),
        len,
        offset,
        offset,
        when,
        (one, size, at, given, how) => {
          const { esp } = one;
          const guarded = new Guarded(size);
          const p = guarded.bytes;
          const wait = how !== 'at once';
          const row = [{ bytes: p, at: 0 }];
          // A row has lengths, from which its ends are computed.
          const end = how === 'in a row' ? at + (given - at) : given;
          const isRefused = throws(() => {
            if (how === 'at once') esp.open(p, at, end, -1);
            else if (how === 'later') esp.openLater!(p, at, end, -1);
            else esp.openRowLater!(row, 0, 1, at, given - at, -1);
          });
          const isSealRefused = throws(() => {
            if (how === 'at once') esp.seal(p, at, end, -1);
            else if (how === 'later') esp.sealLater!(p, at, end, -1);
            else esp.sealRowLater!(row, 0, 1, at, given - at, -1);
          });
          expect(queue.count).toBe(wait ? Number(!isRefused) + Number(!isSealRefused) : 0);
          queue.run();
          expect(guarded.isIntact).toBe(true);
          const isInside = at >= 0 && end <= size && given - at >= 8 + esp.ivLen + esp.icvLen;
          if (!isInside) expect(isRefused).toBe(true);
          if (!(at >= 0 && end + esp.icvLen <= size)) expect(isSealRefused).toBe(true);
          refused += Number(isRefused);
        },
      ),
      { numRuns: 300 },
    );
    expect(refused).toBeGreaterThan(50);
    for (const { esp } of all) esp.wipe();
  });

  test('AH', () => {
    const { queue } = provider;
    const all = AH.map((named) => provider.ah(specOf(named)));
    fc.assert(
      fc.property(
        fc.constantFrom(...all),
        fc.tuple(len, len),
        fc.tuple(offset, offset, offset),
        later,
        (ah, [size, icvSize], [at, end, icvAt], wait) => {
          const covered = new Guarded(size);
          const field = new Guarded(icvSize);
          const args = [covered.bytes, at, end, 5, field.bytes, icvAt] as const;
          const isRefused = throws(() => {
            if (wait) ah.signLater!(...args);
            else ah.sign(...args);
          });
          expect(queue.count).toBe(wait && !isRefused ? 1 : 0);
          queue.run();
          expect(covered.isIntact && field.isIntact).toBe(true);
          const isInside =
            at >= 0 && at <= end && end <= size && icvAt >= 0 && icvAt + ah.icvLen <= icvSize;
          expect(isRefused).toBe(!isInside);
        },
      ),
      { numRuns: 300 },
    );
    for (const ah of all) ah.wipe();
  });
});

describe.each(COMPILED)('descriptors given to native/fast, $name', ({ provider }) => {
  test('each is done or refused, and the twin in JavaScript says which', () => {
    const { queue } = provider;
    const transforms = [
      ...ESP.map((one) => provider.esp(specOf(one))),
      ...AH.map((one) => provider.ah(specOf(one))),
    ];
    const live = [...Array(40).keys()].filter((i) => queue.contexts.at(i) !== undefined);
    const arrays = [new Guarded(100), new Guarded(300)];
    const near = (base: number) => fc.integer({ min: -20, max: 20 }).map((by) => (base + by) >>> 0);
    const word = fc.oneof(
      fc.nat(320),
      near(100),
      near(300),
      fc.integer().map((n) => n >>> 0),
    );
    const mostly = (usual: fc.Arbitrary<number>) =>
      fc.oneof({ weight: 9, arbitrary: usual }, { weight: 1, arbitrary: word });
    const number = mostly(fc.integer({ min: 2, max: 3 }));
    const job = fc.record({
      op: mostly(fc.integer({ min: 1, max: 4 })),
      context: mostly(fc.constantFrom(...live)),
      region: number,
      at: mostly(fc.nat(60)),
      end: mostly(fc.oneof(near(100), near(290))),
      seqHigh: word,
      extended: fc.nat(1),
      icvRegion: number,
      icvAt: mostly(fc.oneof(fc.nat(60), near(80), near(280))),
    });
    const seen = { done: 0, refused: 0 };
    fc.assert(
      fc.property(fc.array(job, { minLength: 1, maxLength: 40 }), (jobs) => {
        // Not where others were: the numbers of these two are then 2 and 3.
        while (queue.regions.count < 20) queue.regions.numberOf(new Uint8Array(100));
        queue.regions.trim();
        for (const { bytes } of arrays) queue.regions.numberOf(bytes);
        queue.self.words[layout.QUEUE.regionCount / 4] = queue.regions.count;
        for (const [i, fields] of jobs.entries()) write(queue, i, fields);
        expect(fast!.run(queue.self.address, 0, jobs.length)).toBe(0);
        for (const [i, fields] of jobs.entries()) {
          const status = wordAt(queue, i, JOB.status);
          const isRefused = fields.op !== layout.OP_NONE && !fits(provider, fields);
          if (fields.op !== layout.OP_NONE) {
            expect(status === layout.STATUS_REFUSED, JSON.stringify(fields)).toBe(isRefused);
            seen[isRefused ? 'refused' : 'done']++;
          }
        }
        expect(arrays.every((one) => one.isIntact)).toBe(true);
      }),
      { numRuns: 300 },
    );
    expect(seen.done).toBeGreaterThan(100);
    expect(seen.refused).toBeGreaterThan(1000);
    for (const transform of transforms) transform.wipe();
  });

  test('jobs that the queue does not have', () => {
    const { queue } = provider;
    const all = queue.jobs.bytes.length / JOB.len;
    const before = queue.jobs.bytes.slice();
    for (const [from, count] of [
      [0, all + 1],
      [all, 1],
      [1, 0xffffffff],
      [0xffffffff, 1],
      [0xffffffff, 0xffffffff],
    ] as const) {
      expect(fast!.run(queue.self.address, from, count), `${from} ${count}`).toBe(1);
    }
    expect(queue.jobs.bytes).toEqual(before);
  });
});

type Fields = Readonly<Record<(typeof FIELDS)[number], number>>;
const FIELDS = [
  ...(['op', 'context', 'region', 'at', 'end', 'seqHigh', 'extended'] as const),
  ...(['icvRegion', 'icvAt'] as const),
];

function write(queue: NativeQueue, job: number, fields: Fields): void {
  for (const name of FIELDS) queue.jobs.words[(job * JOB.len + JOB[name]) / 4] = fields[name];
}

function wordAt(queue: NativeQueue, job: number, field: number): number {
  return queue.jobs.words[(job * JOB.len + field) / 4]!;
}

/** What jobs_task.c is to find out, in numbers that do not overflow. */
function fits({ queue }: NativeProvider, fields: Fields): boolean {
  const { op, region, at, end, icvRegion, icvAt } = fields;
  const context = queue.contexts.at(fields.context);
  if (op < 1 || op > 4 || !context || at > end) return false;
  const sizeOf = (i: number) =>
    queue.self.words[layout.QUEUE.regionCount / 4]! > i ? lenOf(queue, i) : -1;
  if (end - at > queue.scratch.bytes.length - 64) return false;
  const { ivLen, icvLen, cipher, blockLen, mac } = context;
  if (op === layout.OP_SIGN || op === layout.OP_VERIFY) {
    const isKeyed = cipher === layout.CIPHER_GMAC || mac !== layout.MAC_NONE;
    return isKeyed && end <= sizeOf(region) && icvAt + ivLen + icvLen <= sizeOf(icvRegion);
  }
  const limit = op === layout.OP_SEAL ? end + icvLen : end;
  const textLen = limit - icvLen - at - 8 - ivLen;
  if (textLen < 0 || limit > sizeOf(region)) return false;
  return cipher !== layout.CIPHER_CBC || (textLen > 0 && textLen % blockLen === 0);
}

function lenOf(queue: NativeQueue, region: number): number {
  const i = (region * layout.REGION.len + layout.REGION.size) / 4;
  return queue.regions.address(region) === 0 ? -1 : queue.regions.table.words[i]!;
}

function throws(work: () => void): boolean {
  try {
    work();
    return false;
  } catch (error) {
    expect(String(error)).toContain('assertion failed');
    return true;
  }
}
