import { describe, expect, test } from 'vitest';
import { DORMANT_MAX, DormantRules, hiderOf, layToSleep } from '../../src/spd/dormant-rules.ts';
import { PROTOCOL_ANY } from '../../src/spd/policy.ts';
import { RuleTable } from '../../src/spd/rule-table.ts';
import { RuleTree } from '../../src/spd/rule-tree.ts';
import { Spd } from '../../src/spd/spd.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { policy } from '../engine/rig.ts';
import { counting, ipv4Packet, udp } from '../wire/octets.ts';

const ANY = '0.0.0.0/0';

class Table {
  readonly rules = new RuleTable(4);
  #serial = 0;

  add(src: string, dst: string, more: Parameters<typeof policy>[3] = {}): number {
    const spec = policy('out', src, dst, { protocol: PROTOCOL_ANY, ...more });
    const times = { createdMs: 0, createdWallMs: 0, lastUsedMs: 0, lastUsedWallMs: 0, moment: 0 };
    return this.rules.add({ ...spec, ...times, id: this.#serial }, this.#serial++);
  }
}

const host = (i: number) => `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}/32`;

describe('rules that can never apply', () => {
  test('sleep under one that comes first and covers them, and under no other', () => {
    const some = new Table();
    const cover = some.add(ANY, '10.0.0.0/8', { priority: 5 });
    const early = some.add(ANY, '10.1.0.0/16', { priority: 4 });
    const late = some.add('192.0.2.0/24', '10.2.0.0/16', { priority: 6 });
    const beside = some.add(ANY, '11.0.0.0/8', { priority: 6 });
    const tree = new RuleTree(some.rules);
    tree.work(Number.POSITIVE_INFINITY);
    const dormant = new DormantRules();
    const ask = (slot: number) => hiderOf(some.rules, tree, slot, dormant);
    expect([cover, early, late, beside].map(ask)).toEqual([-1, -1, cover, -1]);
  });

  test('are laid to sleep when they are many, each under a rule that has room', () => {
    const table = new Table();
    const covers = [1, 2].map((i) => table.add(ANY, `10.0.0.0/${7 + i}`, { priority: i }));
    const slots = Array.from({ length: 2 * DORMANT_MAX + 50 }, (_, i) =>
      table.add(ANY, host(i), { priority: 9 }),
    );
    const dormant = new DormantRules();
    const awake = layToSleep(table.rules, [...covers, ...slots], dormant);
    expect([awake.length, dormant.size]).toEqual([2 + 50, 2 * DORMANT_MAX]);
    expect(covers.map((slot) => dormant.hasRoom(slot))).toEqual([false, false]);
    dormant.delete(slots[0]!);
    const [left, full] = covers.toSorted((a) => (dormant.hasRoom(a) ? -1 : 1));
    expect([left, full].map((slot) => dormant.hasRoom(slot!))).toEqual([true, false]);
    expect(dormant.wake(left!)).toHaveLength(DORMANT_MAX - 1);
    expect([dormant.size, dormant.hasOthers(left!)]).toEqual([DORMANT_MAX, false]);
  });

  test('stay awake when they are few', () => {
    const table = new Table();
    const slots = Array.from({ length: 500 }, (_, i) => table.add(host(i), ANY));
    slots.push(table.add(host(7), '10.0.0.0/8', { priority: 9 }));
    const dormant = new DormantRules();
    expect(layToSleep(table.rules, slots, dormant)).toEqual(slots);
    expect(dormant.size).toBe(0);
  });
});

describe('a table most of whose policies can never apply', () => {
  const clock = { monotonicMs: () => 0, wallMs: () => 0 };
  const cursor = new Cursor();

  function ask(spd: Spd, i: number) {
    const p = ipv4Packet({ protocol: 17 }, udp(counting(4)));
    p.set([10, i >> 16, (i >> 8) & 255, i & 255], ipv4.DST_AT);
    decode(p, 0, p.length, cursor);
    return spd.lookup('out', p, cursor);
  }

  test('knows them in the very next lookup when what hid them goes', () => {
    const spd = new Spd({ clock, flows: 0 });
    const top = spd.add(policy('out', ANY, '10.0.0.0/8', { priority: 1 }));
    const next = spd.add(policy('out', ANY, '10.0.0.0/9', { priority: 2 }));
    const hidden = Array.from({ length: 3000 }, (_, i) => {
      return spd.add(policy('out', ANY, host(i), { priority: 9 }));
    });
    const small = spd.indexOctets;
    expect(ask(spd, 77)).toBe(top);
    spd.remove(hidden[78]!);
    spd.remove(top);
    expect([77, 78, 2999].map((i) => ask(spd, i))).toEqual([next, next, next]);
    spd.remove(next);
    expect([77, 78, 2999].map((i) => ask(spd, i))).toEqual([hidden[77], 'none', hidden[2999]]);
    expect(spd.indexOctets).toBeGreaterThan(small);
    for (const one of hidden) if (one !== hidden[78]) spd.remove(one);
    expect([spd.size, ask(spd, 77)]).toEqual([0, 'none']);
  });

  test('is right while a better tree is made, and lays others to sleep', () => {
    const spd = new Spd({ clock, flows: 0 });
    const hidden = Array.from({ length: 3000 }, (_, i) => {
      return spd.add(policy('out', ANY, host(i), { priority: 9 }));
    });
    const covers = [8, 9, 10, 11].map((length) => {
      return spd.add(policy('out', ANY, `10.0.0.0/${length}`, { priority: length - 7 }));
    });
    // So many that a better tree is begun, and made bit by bit.
    for (let i = 0; i < 4000; i++) expect(ask(spd, i % 3000)).toBe(covers[0]);
    for (const [i, cover] of covers.entries()) {
      spd.remove(cover);
      spd.remove(hidden[10 * i]!);
      const left = covers[i + 1];
      for (let j = 0; j < 3000; j += 7) {
        const rule = j % 10 === 0 && j <= 10 * i ? 'none' : hidden[j]!;
        expect(ask(spd, j)).toBe(left ?? rule);
      }
    }
  });
});
