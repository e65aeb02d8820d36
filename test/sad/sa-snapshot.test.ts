import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { KeyError } from '../../src/base/error.ts';
import { NO_LIMIT } from '../../src/sad/lifetime.ts';
import { type Sa, type SaSpec, saSpec } from '../../src/sad/sa.ts';
import type { SaSnapshot } from '../../src/sad/sa-snapshot.ts';
import { type SaView, viewOf } from '../../src/sad/sa-view.ts';
import { Sad } from '../../src/sad/sad.ts';
import { memorySequences } from '../../src/sad/sequence.ts';

const NO_KEYS = { auth: 0, encrypt: 0, authKey: new Uint8Array(0), encryptKey: new Uint8Array(0) };
const ADDRESSES = ['10.0.0.1', '10.0.0.2', '10.0.0.3'].map(address);
const ESP = {
  ivLen: 8,
  icvLen: 16,
  alignLen: 4,
  iv: 'unique',
  authenticates: true,
  seal: () => undefined,
  open: () => false,
  wipe: () => undefined,
} as const;
const AH = { icvLen: 12, ivLen: 0, sign: () => undefined, verify: () => false, wipe: () => {} };

function table() {
  let nowMs = 0;
  const sad = new Sad({
    clock: { monotonicMs: () => nowMs, wallMs: () => 1_000_000 + nowMs },
    random: { fill: () => undefined },
    sequences: memorySequences(),
  });
  const wait = (ms: number) => {
    nowMs += ms;
    sad.poll(nowMs);
  };
  return { sad, wait };
}

/** Everything that a view says, as one text; the SA itself is not part of it. */
function textOf({ sa: _, spec, state, usage, addedWallMs, firstUseWallMs, sentSeq }: SaView) {
  const { protocol, spi, src, dst, soft, hard, reqid } = spec;
  const ends = [src.bytes.join('.'), dst.bytes.join('.')];
  const about = { protocol, spi, ends, soft, hard, reqid, state, usage, addedWallMs };
  return JSON.stringify({ ...about, firstUseWallMs, sentSeq });
}

/** A snapshot, and what it must say: a copy of everything, made at once. */
interface Reader {
  readonly snapshot: SaSnapshot;
  readonly expected: readonly string[];
  readonly got: string[];
}

const small = fc.nat({ max: 2 });
const operation = fc.record({
  what: fc.constantFrom(
    ...([
      'add',
      'add',
      'remove',
      'retire',
      'move',
      'use',
      'use',
      'send',
      'relimit',
      'wait',
    ] as const),
    ...(['open', 'open', 'read', 'read', 'leave', 'flush'] as const),
  ),
  protocol: fc.constantFrom('esp', 'ah'),
  spi: fc.integer({ min: 256, max: 265 }),
  src: small,
  dst: small,
  which: fc.nat(),
  many: fc.integer({ min: 1, max: 5 }),
});
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

function change(
  { sad, wait }: ReturnType<typeof table>,
  { what, protocol, spi, which, many, ...ends }: Operation,
): void {
  const [src, dst] = [ADDRESSES[ends.src]!, ADDRESSES[ends.dst]!];
  const all = [...sad.all()];
  const one = all[which % (all.length || 1)];
  if (what === 'add') {
    const transform = protocol === 'esp' ? { esp: ESP } : { ah: AH };
    const soft = { ...NO_LIMIT, packets: 6, addSeconds: 2 };
    const given = { protocol, spi, src, dst, keys: NO_KEYS, soft, ...transform } as const;
    sad.add(saSpec(given), many === 1 ? 'larval' : 'mature');
  } else if (what === 'wait') wait(1500);
  else if (what === 'flush' && many === 1) sad.flush();
  else if (one === undefined) return;
  else if (what === 'remove') sad.remove(one);
  else if (what === 'retire') sad.retire(one);
  else if (what === 'move') sad.update(one, { ...one.spec, src, dst });
  else if (what === 'relimit') sad.update(one, { ...one.spec, hard: { ...NO_LIMIT, bytes: 1e6 } });
  else if (what === 'use') sad.account(one, many, 100 * many);
  else if (what === 'send') one.takeSeq(many);
}

function step(sad: Sad, readers: Reader[], { what, protocol, which, many }: Operation): void {
  if (what === 'open') {
    const only = many < 3 ? undefined : protocol;
    const wants = ({ dst }: SaSpec) => dst.bytes[3] !== 2;
    const fits = ({ spec }: Sa) =>
      (only === undefined || spec.protocol === only) && (many % 2 === 0 || wants(spec));
    const expected = [...sad.all()].filter(fits).map((sa) => textOf(viewOf(sa)));
    const snapshot = sad.snapshot(only, many % 2 === 0 ? undefined : wants);
    readers.push({ snapshot, expected, got: [] });
    return;
  }
  const reader = readers[which % (readers.length || 1)];
  if (reader === undefined) return;
  if (what === 'leave') {
    reader.snapshot.return();
    readers.splice(readers.indexOf(reader), 1);
  } else if (what === 'read') {
    for (let i = 0; i < many; i++) read(reader);
  }
}

function read({ snapshot, got }: Reader): boolean {
  const { value } = snapshot.next();
  if (value) got.push(textOf(value));
  return value !== undefined;
}

test('a slow reader sees all SAs as they were at its moment, whatever happens meanwhile', () => {
  fc.assert(
    fc.property(
      fc.array(operation, { minLength: 20, maxLength: 80, size: 'max' }),
      (operations) => {
        const world = table();
        const readers: Reader[] = [];
        for (const one of operations) {
          try {
            change(world, one);
          } catch (error) {
            if (!(error instanceof KeyError)) throw error;
          }
          step(world.sad, readers, one);
          for (const { snapshot } of readers) {
            expect(snapshot.kept).toBeLessThanOrEqual(snapshot.remaining);
          }
        }
        for (const reader of readers) {
          expect(reader.snapshot.length).toBe(reader.expected.length);
          while (read(reader));
          expect(reader.got.toSorted()).toEqual(reader.expected.toSorted());
          expect(reader.snapshot.kept).toBe(0);
        }
        expect(world.sad.readers).toBe(0);
      },
    ),
    { numRuns: 100 },
  );
});

describe('a snapshot', () => {
  function filled(count: number) {
    const world = table();
    const [src, dst] = [ADDRESSES[0]!, ADDRESSES[1]!];
    for (let i = 0; i < count; i++) {
      world.sad.add(
        saSpec({ protocol: 'esp', spi: 256 + i, src, dst, keys: NO_KEYS, esp: ESP }),
        'mature',
      );
    }
    return world;
  }

  test('keeps nothing of what does not change, nor of what was read', () => {
    const { sad } = filled(10);
    const snapshot = sad.snapshot();
    for (let i = 0; i < 5; i++) snapshot.next();
    expect(snapshot.kept).toBe(0);
    for (const sa of sad.all()) sad.account(sa, 1, 10);
    for (const sa of sad.all()) sad.account(sa, 1, 10);
    expect(snapshot.kept).toBe(5);
    snapshot.next();
    expect(snapshot.kept).toBe(4);
    snapshot.return();
    expect([snapshot.kept, sad.readers, snapshot.next().done]).toEqual([0, 0, true]);
  });

  test('in the order of arrival, as long as nothing leaves', () => {
    const { sad } = filled(5);
    const spis = [...sad.snapshot()].map(({ spec }) => spec.spi);
    expect(spis).toEqual([256, 257, 258, 259, 260]);
  });

  test('readers that never read do not hold ever more: then there is ENOBUFS', () => {
    const { sad } = filled(1000);
    const open: SaSnapshot[] = [];
    expect(() => {
      for (let i = 0; i < 16_001; i++) open.push(sad.snapshot());
    }).toThrow(/readers that do not read/);
    expect(open.length).toBe(16_000);
    open[0]!.return();
    expect([...sad.snapshot()].length).toBe(1000);
  });
});

describe('walking through all', () => {
  test.each([
    ['each as it comes', (i: number) => [i]],
    ['those that would be next', (i: number) => [i + 1, i + 2]],
    ['itself and the next', (i: number) => [i, i + 1]],
    ['itself and what came before', (i: number) => [i - 1, i]],
  ] as const)('goes on while they are removed: %s', (_, doomed) => {
    const world = table();
    const [src, dst] = [ADDRESSES[0]!, ADDRESSES[1]!];
    const all = Array.from({ length: 9 }, (_, i) =>
      world.sad.add(
        saSpec({ protocol: 'esp', spi: 256 + i, src, dst, keys: NO_KEYS, esp: ESP }),
        'mature',
      ),
    );
    const left = new Set(all);
    const seen: number[] = [];
    for (const sa of world.sad.all()) {
      expect(left.has(sa)).toBe(true);
      const at = all.indexOf(sa);
      seen.push(at);
      for (const i of doomed(at)) if (all[i] && left.delete(all[i])) world.sad.remove(all[i]);
    }
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(left.size).toBe(world.sad.size);
    // Whoever is left, or was left when its turn came, was seen.
    for (const sa of left) expect(seen).toContain(all.indexOf(sa));
  });
});
