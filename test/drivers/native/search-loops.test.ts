import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { SearchLoops } from '../../../src/base/table-search.ts';
import { packageFile } from '../../../src/drivers/linux/package-file.ts';
import { searchLoopsFrom } from '../../../src/drivers/native/search-loops.ts';
import type { Policy } from '../../../src/spd/policy.ts';
import { Spd } from '../../../src/spd/spd.ts';
import { Cursor, decode } from '../../../src/wire/cursor.ts';
import { policy } from '../../engine/rig.ts';
import { HostileTables, hostileInput } from '../../fuzz/targets/search.ts';
import { change, slowLookup, type Verdict, World } from '../../spd/policy-world.ts';
import { searches, Watched } from './searches.ts';

const clock = { monotonicMs: () => 0, wallMs: () => 0 };
const SEARCHES = searches();

/** Packets looked up together by the loops, and one by one in JavaScript and by a linear scan. */
function compare(spd: Spd, world: World, family: 4 | 6, count: number): number {
  const packets = Array.from({ length: count }, () => ({ bytes: world.packet(family) }));
  const cursors = packets.map(({ bytes }) => {
    const cursor = new Cursor();
    expect(decode(bytes, 0, bytes.length, cursor)).toBeUndefined();
    return cursor;
  });
  const answers: Verdict[] = [];
  spd.lookupBatch('out', packets, cursors, count, answers);
  const policies = spd.list('out');
  for (const [i, { bytes }] of packets.entries()) {
    expect(answers[i]).toBe(slowLookup(policies, bytes, cursors[i]!));
    expect(spd.lookup('out', bytes, cursors[i]!)).toBe(answers[i]);
  }
  return answers.filter((answer) => typeof answer === 'object').length;
}

function fill(spd: Spd, world: World, family: 4 | 6, size: number): void {
  while (spd.size < size) {
    const spec = world.spec(family);
    if (!spd.find('out', spec.selector)) spd.add(spec);
  }
}

describe.each(SEARCHES)('compiled searches (%s)', (_, loops) => {
  describe.each([4, 6] as const)('of IPv%d', (family) => {
    test('find what a linear scan finds, after any change', () => {
      const watched = new Watched(loops);
      fc.assert(
        fc.property(fc.integer(), fc.constantFrom(2, 4, 16, 256), (seed, spread) => {
          const world = new World(seed, spread);
          const spd = new Spd({ clock, flows: 0, search: watched });
          for (let i = 0; i < 40; i++) {
            for (let j = 0; j < 8; j++) change(spd, world, family);
            compare(spd, world, family, 10);
          }
        }),
        { numRuns: 5 },
      );
      expect(watched.ends.refused).toBe(0);
      expect(watched.ends.done).toBeGreaterThan(150);
      expect(watched.listLen).toBeGreaterThan(4);
    });

    test('in a large table, and while it is taken away again', () => {
      const watched = new Watched(loops);
      const world = new World(family, 8);
      const spd = new Spd({ clock, flows: 64, search: watched });
      fill(spd, world, family, 2000);
      // More than fit into one search.
      expect(compare(spd, world, family, 400)).toBeGreaterThan(50);
      for (const one of spd.list('out')) {
        spd.remove(one);
        if (one.id % 50 === 0) compare(spd, world, family, 20);
      }
      compare(spd, world, family, 5);
      expect(watched.ends.refused).toBe(0);
    });

    test('where rules that were hidden come to light', () => {
      const watched = new Watched(loops);
      const any = family === 4 ? '0.0.0.0/0' : '::/0';
      const net = family === 4 ? '10.0.0.0/8' : '2001::/16';
      const world = new World(1, 4);
      const spd = new Spd({ clock, flows: 0, search: watched });
      const covers = [1, 2, 3].map((dport) => spd.add(policy('out', any, net, { dport })));
      const cover: Policy = spd.add(policy('out', any, net, { priority: 1 }));
      fill(spd, world, family, 300);
      for (const one of [...covers, cover, ...spd.list('out').slice(0, 100)]) {
        if (spd.get(one.id) === one) spd.remove(one);
        compare(spd, world, family, 20);
      }
      expect(watched.ends.stale).toBeGreaterThan(0);
      expect(watched.ends.refused).toBe(0);
    });
  });

  test('several trees with equal priorities: the serial decides', () => {
    const watched = new Watched(loops);
    const spd = new Spd({ clock, flows: 0, search: watched });
    const world = new World(2, 200);
    for (let i = 0; i < 1500; i++) {
      const [a, b] = [world.below(40), world.below(40)];
      const ends = [`10.${a}.${b}.0/24`, '0.0.0.0/0'];
      const [src, dst] = i % 2 === 0 ? ends : ends.reverse();
      const spec = policy('out', src!, dst!, { priority: world.below(2) });
      if (!spd.find('out', spec.selector)) spd.add(spec);
    }
    const packets = Array.from({ length: 150 }, () => {
      const bytes = world.packet(4);
      bytes.set(
        [10, world.below(40), world.below(40), 1, 10, world.below(40), world.below(40)],
        12,
      );
      return { bytes };
    });
    const cursors = packets.map(({ bytes }) => {
      const cursor = new Cursor();
      decode(bytes, 0, bytes.length, cursor);
      return cursor;
    });
    const answers: Verdict[] = [];
    spd.lookupBatch('out', packets, cursors, packets.length, answers);
    const policies = spd.list('out');
    for (const [i, { bytes }] of packets.entries()) {
      expect(answers[i]).toBe(slowLookup(policies, bytes, cursors[i]!));
    }
    expect(answers.filter((answer) => answer !== 'none').length).toBeGreaterThan(50);
    expect(watched.trees).toBeGreaterThan(1);
    expect(watched.ends).toMatchObject({ stale: 0, refused: 0 });
  });

  test('tables that are wrong in every way: nothing else is read', () => {
    const tables = new HostileTables(loops);
    const dice = new World(7, 4);
    for (let i = 0; i < 3000; i++) tables.run(hostileInput(dice));
    // Otherwise it would have shown little.
    for (const count of Object.values(tables.ends)) expect(count).toBeGreaterThan(50);
  });
});

describe('without them', () => {
  test('a library that is none says why', () => {
    expect(searchLoopsFrom(packageFile('package.json')!)).toMatchObject({
      why: expect.stringContaining('testudo_fast.so: '),
    });
  });

  test('what they refuse is searched in JavaScript', () => {
    let refusals = 0;
    const refusing: SearchLoops = {
      name: 'refusing',
      worth: { rules: 0, keys: 1 },
      open: () => ({
        staleRoot: 0,
        staleKey: 0,
        run: () => {
          refusals++;
          return 'refused';
        },
      }),
    };
    const world = new World(5, 8);
    const spd = new Spd({ clock, flows: 0, search: refusing });
    fill(spd, world, 4, 200);
    expect(compare(spd, world, 4, 100)).toBeGreaterThan(10);
    expect(refusals).toBe(1);
  });

  test('small tables and few packets are left to JavaScript', () => {
    let opened = 0;
    const loops: SearchLoops = {
      name: 'unused',
      worth: { rules: 100, keys: 10 },
      open: () => {
        opened++;
        return { staleRoot: 0, staleKey: 0, run: () => 'refused' };
      },
    };
    const world = new World(5, 8);
    const spd = new Spd({ clock, flows: 0, search: loops });
    fill(spd, world, 4, 99);
    compare(spd, world, 4, 50);
    fill(spd, world, 4, 101);
    compare(spd, world, 4, 9);
    expect(opened).toBe(0);
    compare(spd, world, 4, 50);
    expect(opened).toBe(1);
  });
});
