import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Policy } from '../../src/spd/policy.ts';
import { Spd } from '../../src/spd/spd.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import { policy } from '../engine/rig.ts';
import { is } from '../is.ts';
import { change, slowLookup, type Verdict, World } from './policy-world.ts';

/** The index against the dumbest possible version: every policy in its order, one by one. */

const clock = { monotonicMs: () => 0, wallMs: () => 0 };

function compare(spd: Spd, world: World, family: 4 | 6, packets: number): Record<string, number> {
  const cursor = new Cursor();
  const policies = spd.list('out');
  const seen = { policy: 0, none: 0, 'ports-unknown': 0 };
  const bytes = Array.from({ length: packets }, () => world.packet(family));
  expectTogether(spd, bytes, policies);
  for (const p of bytes) {
    is(decode(p, 0, p.length, cursor), undefined);
    const expected = slowLookup(policies, p, cursor);
    // Twice, since the second answer may come from the cache.
    for (const _ of [1, 2]) is(spd.lookup('out', p, cursor), expected);
    seen[typeof expected === 'string' ? expected : 'policy']++;
  }
  return seen;
}

/** In one batch, in which some packets come twice and some are of the other family. */
function expectTogether(spd: Spd, bytes: readonly Uint8Array[], policies: readonly Policy[]): void {
  const packets = [...bytes, ...bytes.slice(0, 3), ...OTHERS].map((p) => ({ bytes: p }));
  const cursors = packets.map(({ bytes: p }) => {
    const cursor = new Cursor();
    is(decode(p, 0, p.length, cursor), undefined);
    return cursor;
  });
  const family = cursors[0]!.family;
  const answers: Verdict[] = [];
  spd.lookupBatch('out', packets, cursors, packets.length, answers);
  for (const [i, cursor] of cursors.entries()) {
    const known = cursor.family === family ? policies : [];
    is(answers[i], slowLookup(known, packets[i]!.bytes, cursor));
  }
}

const OTHERS = ([4, 6] as const).map((family) => new World(9, 4).packet(family));

describe.each([4, 6] as const)('IPv%d', (family) => {
  test.each([0, 64])('answers as a linear scan after any change (%d flows cached)', (flows) => {
    fc.assert(
      fc.property(fc.integer(), fc.constantFrom(2, 4, 16, 256), (seed, spread) => {
        const world = new World(seed, spread);
        const spd = new Spd({ clock, flows });
        for (let i = 0; i < 60; i++) {
          for (let j = 0; j < 8; j++) change(spd, world, family);
          compare(spd, world, family, 10);
        }
      }),
      { numRuns: 5 },
    );
  });

  test('in a large table, added one by one, in one step, and taken away again', () => {
    const world = new World(family, 8);
    const spd = new Spd({ clock });
    while (spd.size < 3000) {
      const spec = world.spec(family);
      if (!spd.find('out', spec.selector)) spd.add(spec);
    }
    const seen = compare(spd, world, family, 300);
    // Otherwise the comparison would say little.
    expect(Math.min(seen.policy!, seen['ports-unknown']!)).toBeGreaterThan(30);
    const all = spd.list('out');
    spd.planReplaceAll(all.map((keep) => ({ spec: keep, id: keep.id, keep })))();
    compare(spd, world, family, 200);
    for (const one of all) {
      spd.remove(one);
      if (one.id % 100 === 0) compare(spd, world, family, 5);
    }
    expect(spd.list('out')).toEqual([]);
    compare(spd, world, family, 5);
  });

  test('prefixes of every length around one address, in the worst order', () => {
    const world = new World(1, 2);
    const bits = family === 4 ? 32 : 128;
    const spd = new Spd({ clock });
    const any = family === 4 ? '0.0.0.0' : '::';
    for (let i = bits; i >= 0; i -= family === 4 ? 1 : 4) {
      for (let j = bits; j >= 0; j -= family === 4 ? 1 : 4) {
        spd.add(policy('out', `${any}/${i}`, `${any}/${j}`, { protocol: 6, dport: i + j }));
      }
    }
    compare(spd, world, family, 200);
  });
});

test('a policy is in force, and gone, in the very next lookup', () => {
  const world = new World(3, 4);
  const spd = new Spd({ clock });
  const p = world.packet(4);
  const cursor = new Cursor();
  decode(p, 0, p.length, cursor);
  const everything = policy('out', '0.0.0.0/0', '0.0.0.0/0', { type: 'none', priority: 1 });
  expect(spd.lookup('out', p, cursor)).toBe('none');
  const first = spd.add(everything);
  expect(spd.lookup('out', p, cursor)).toBe(first);
  const second = spd.update(everything);
  expect(spd.lookup('out', p, cursor)).toBe(second);
  const third = spd.update({ ...everything, priority: 0 });
  expect(spd.lookup('out', p, cursor)).toBe(third);
  spd.remove(third);
  expect(spd.lookup('out', p, cursor)).toBe('none');
  expect(spd.cacheCounters[4]).toEqual({ lookups: 5, misses: 4 });
  expect(spd.cacheCounters[6]).toEqual({ lookups: 0, misses: 0 });
});
