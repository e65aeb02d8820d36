import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { REPLAY_WINDOW_MAX, REPLAY_WINDOW_MIN, ReplayWindow } from '../../src/sad/replay.ts';

const LOW = 2 ** 32;

/** The dumbest window: a set of all numbers seen. */
class Model {
  readonly seen = new Set<number>();
  top: number;
  readonly size: number;

  constructor(size: number, top: number) {
    this.size = size;
    this.top = top;
  }

  isNew(seq: number): boolean {
    return seq > 0 && seq > this.top - this.size && !this.seen.has(seq);
  }

  /**
   * The whole number: the one with these low bits that is nearest to the window (RFC 4303 appendix
   * A2.1).
   */
  infer(low: number): number {
    const bottom = this.top - this.size + 1;
    let seq = low;
    while (seq < bottom) seq += LOW;
    return seq;
  }

  commit(seq: number): void {
    this.seen.add(seq);
    this.top = Math.max(this.top, seq);
  }
}

const anySize = fc.oneof(
  fc.constantFrom(REPLAY_WINDOW_MIN, 33, 63, 64, 65, 1024, 4096, REPLAY_WINDOW_MAX),
  fc.integer({ min: REPLAY_WINDOW_MIN, max: 5000 }),
);
/** Where the next number is, from the top: mostly near, now and then far. */
const anyStep = (size: number) =>
  fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: -size - 3, max: 40 }) },
    { weight: 2, arbitrary: fc.integer({ min: -3, max: 3 }).map((n) => n - size) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 3 * size }) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 2 ** 26 }) },
  );

describe.each([false, true])('agrees with a set, esn %s', (esn) => {
  test('from the start, and at the border of 2^32', () => {
    fc.assert(
      fc.property(
        anySize.chain((size) =>
          fc.tuple(fc.constant(size), fc.array(anyStep(size), { maxLength: 80 })),
        ),
        esn
          ? fc.constantFrom(0, LOW - 50, LOW - 5000, LOW + 5, 3 * LOW - 1)
          : fc.constantFrom(0, 1000),
        ([size, steps], start) => {
          const window = new ReplayWindow(size, esn);
          const model = new Model(size, start);
          if (start > 0) {
            window.startAt(start);
            for (let seq = Math.max(1, start - size); seq <= start; seq++) model.seen.add(seq);
          }
          for (const step of steps) {
            const wanted = Math.max(0, model.top + step);
            const low = wanted % LOW;
            const seq = esn ? model.infer(low) : low;
            const expected = model.isNew(seq) ? seq : -1;
            expect(window.check(low)).toBe(expected);
            expect(window.top).toBe(model.top);
            if (expected < 0) continue;
            expect(window.commit(seq)).toBe(true);
            expect(window.commit(seq)).toBe(false);
            model.commit(seq);
            expect(window.top).toBe(model.top);
          }
        },
      ),
      { numRuns: 250 },
    );
  });
});

test('a row is marked as it would be one by one', () => {
  const step = fc.oneof(
    { weight: 12, arbitrary: fc.constant(1) },
    { weight: 1, arbitrary: fc.integer({ min: -40, max: 40 }) },
  );
  const rows = fc.array(fc.array(step, { minLength: 1, maxLength: 70 }), { maxLength: 6 });
  const start = fc.constantFrom(0, 1000, LOW - 20);
  fc.assert(
    fc.property(fc.constantFrom(0, 32, 64, 1024), start, rows, (size, from, all) => {
      const [window, twin] = [new ReplayWindow(size, true), new ReplayWindow(size, true)];
      if (from > 0) for (const one of [window, twin]) one.startAt(from);
      let seq = from;
      for (const steps of all) {
        const seqs = Float64Array.from(steps, (by) => {
          seq = Math.max(0, seq + by);
          return seq;
        });
        for (let i = 0; i < seqs.length; ) {
          const done = window.commitRow(seqs, i, seqs.length);
          for (const end = i + done; i < end; i++) expect(twin.commit(seqs[i]!)).toBe(true);
          if (i < seqs.length) expect(twin.commit(seqs[i++]!)).toBe(false);
          expect(window.top).toBe(twin.top);
        }
        for (let low = 0; low < 200; low++) {
          const other = (twin.top - low) >>> 0;
          expect(window.check(other)).toBe(twin.check(other));
        }
      }
    }),
    { numRuns: 60 },
  );
});

test('0 is never a sequence number (RFC 4303 §2.2)', () => {
  expect(new ReplayWindow(64, false).check(0)).toBe(-1);
  // With ESN it is the one after 2^32 - 1.
  const window = new ReplayWindow(64, true);
  window.startAt(LOW - 1);
  expect(window.check(0)).toBe(LOW);
});

test('exactly as many as the size are remembered', () => {
  for (const size of [32, 33, 64, 100, 65_536]) {
    const window = new ReplayWindow(size, false);
    window.commit(100_000);
    expect(window.check(100_000 - size + 1)).toBe(100_000 - size + 1);
    expect(window.check(100_000 - size)).toBe(-1);
  }
});

test('a size of 0 takes everything and follows the top', () => {
  const window = new ReplayWindow(0, false);
  for (const seq of [5, 5, 1, 9, 9])
    expect([window.check(seq), window.commit(seq)]).toEqual([seq, true]);
  expect(window.top).toBe(9);
  const extended = new ReplayWindow(0, true);
  extended.startAt(2 * LOW - 10);
  extended.commit(extended.check(5));
  expect(extended.top).toBe(2 * LOW + 5);
});

test('after a jump over the whole window nothing old is left in it', () => {
  const window = new ReplayWindow(64, false);
  for (let seq = 1; seq <= 64; seq++) window.commit(seq);
  window.commit(1_000_000);
  for (let seq = 1_000_000 - 63; seq < 1_000_000; seq++) expect(window.check(seq)).toBe(seq);
});

test('goes on where a saved one stood: everything up to there counts as seen', () => {
  const window = new ReplayWindow(128, false);
  window.startAt(5000);
  for (const seq of [5000, 4999, 4900, 1]) expect(window.check(seq)).toBe(-1);
  expect(window.check(5001)).toBe(5001);
  window.commit(5002);
  expect([window.check(5001), window.check(5000)]).toEqual([5001, -1]);
});

test('sizes out of range are our own mistake', () => {
  for (const size of [1, 31, 65_537])
    expect(() => new ReplayWindow(size, false)).toThrow(/window size/);
});
