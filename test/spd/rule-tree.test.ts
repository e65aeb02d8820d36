import { describe, expect, test } from 'vitest';
import { seededRandom } from '../../src/drivers/seeded-random.ts';
import { type Policy, PROTOCOL_ANY } from '../../src/spd/policy.ts';
import { RuleTable } from '../../src/spd/rule-table.ts';
import { RuleTree } from '../../src/spd/rule-tree.ts';
import { u32 } from '../../src/wire/bytes.ts';
import { policy } from '../engine/rig.ts';

const ANY = '0.0.0.0/0';

/** A table and trees of it, which must always say what its rules one by one say. */
class Bench {
  readonly rules = new RuleTable(4);
  tree = new RuleTree(this.rules);
  readonly #random = seededRandom(5);
  readonly #octets = new Uint8Array(4);
  #serial = 0;

  add(src: string, dst: string, more: Parameters<typeof policy>[3] = {}): number {
    const spec = policy('out', src, dst, { protocol: PROTOCOL_ANY, ...more });
    const times = { createdMs: 0, createdWallMs: 0, lastUsedMs: 0, lastUsedWallMs: 0, moment: 0 };
    const one: Policy = { ...spec, ...times, id: this.#serial };
    return this.rules.add(one, this.#serial++);
  }

  below(limit: number): number {
    this.#random.fill(this.#octets);
    return u32(this.#octets, 0) % limit;
  }

  /** A tree made in one go. */
  build(): void {
    this.tree = new RuleTree(this.rules);
    expect(this.tree.work(Number.POSITIVE_INFINITY)).toBe(true);
  }

  slow(key: Int32Array, flags: number): number {
    const { words, keyWords } = this.rules;
    const fitting = this.rules.slots().filter((slot) => {
      const at = slot * 2 * keyWords;
      // 2: it has no ports, and rules that name some do not mean it.
      if (flags === 2 && words[at + 5] !== 0) return false;
      return key.every((word, i) => ((word ^ words[at + 2 * i]!) & words[at + 2 * i + 1]!) === 0);
    });
    fitting.sort((a, b) => this.rules.compare(a, b));
    return fitting[0] ?? -1;
  }

  /** For packets near the rules; how often there was a rule. */
  check(count: number): number {
    const { words, keyWords } = this.rules;
    const slots = this.rules.slots();
    let hits = 0;
    for (let i = 0; i < count; i++) {
      const about = i % 4 === 0 ? undefined : slots[this.below(slots.length)];
      const key = Int32Array.from({ length: keyWords }, (_, word) => {
        const value = word === keyWords - 1 ? 6 << 24 : this.below(2 ** 32) | 0;
        if (about === undefined) return value;
        const at = about * 2 * keyWords + 2 * word;
        return (value & ~words[at + 1]!) | words[at]!;
      });
      const flags = i % 5 === 0 ? 2 : 0;
      if (flags === 2) key[keyWords - 2] = 0;
      const expected = this.slow(key, flags);
      expect(this.tree.first(key, 0, flags)).toBe(expected);
      if (expected >= 0) hits++;
    }
    return hits;
  }
}

describe('rules that another hides', () => {
  test('are found when it goes, in the very next lookup', () => {
    const bench = new Bench();
    const cover = bench.add(ANY, '10.0.0.0/8', { priority: 1 });
    for (let i = 0; i < 300; i++)
      bench.add(ANY, `10.${i & 255}.0.0/${15 + (i >> 8)}`, { priority: 9 });
    bench.build();
    // One list for all, and everything else behind the cover.
    expect(bench.tree.pool.hiddenCount).toBe(300);
    bench.check(40);
    bench.tree.remove(cover);
    bench.rules.remove(cover);
    expect(bench.check(100)).toBeGreaterThan(50);
    expect(bench.tree.pool.hiddenCount).toBe(0);
  });

  test('are taken out while they are hidden', () => {
    const bench = new Bench();
    const cover = bench.add(ANY, ANY, { priority: 1 });
    const others = [...Array(20).keys()].map((i) => bench.add(ANY, `10.${i}.0.0/16`));
    bench.build();
    for (const slot of [...others, cover]) {
      bench.tree.remove(slot);
      bench.rules.remove(slot);
      bench.check(5);
    }
    expect(bench.tree.pool.entries).toBe(0);
  });
});

describe('from some hosts to all, and from all to some', () => {
  function crossing(count: number): Bench {
    const bench = new Bench();
    for (let i = 0; i < count; i++) {
      const host = `${1 + bench.below(120)}.${bench.below(256)}.${bench.below(256)}.1/32`;
      const priority = bench.below(50);
      if (i % 2 === 0) bench.add(host, ANY, { priority });
      else bench.add(ANY, host, { priority });
    }
    return bench;
  }

  test('no rule is in many lists', () => {
    const bench = crossing(2000);
    bench.build();
    expect(bench.tree.pool.entries).toBeLessThan(2 * 2000);
    expect(bench.check(100)).toBeGreaterThan(50);
  });

  test('changes count while a tree is being made', () => {
    const bench = crossing(2000);
    bench.tree = new RuleTree(bench.rules);
    const slots = bench.rules.slots();
    for (let i = 0; !bench.tree.work(64); i++) {
      bench.tree.remove(slots[i]!);
      bench.rules.remove(slots[i]!);
      bench.tree.add(bench.add(`10.0.${i >> 8}.${i & 255}/32`, ANY));
      bench.tree.add(bench.add('10.0.0.0/8', `10.1.${i & 255}.0/${24 + (i >> 8)}`));
    }
    expect(bench.check(100)).toBeGreaterThan(50);
  });

  test('rules for which the tree is not made do not blow it up, and it says so', () => {
    const bench = crossing(1000);
    bench.build();
    const before = bench.tree.pool.entries;
    expect([bench.tree.isOutgrown, bench.tree.isAged]).toEqual([false, false]);
    for (let i = 1; i <= 400; i++) bench.tree.add(bench.add(ANY, ANY, { protocol: 6, dport: i }));
    expect(bench.tree.pool.entries).toBeLessThan(before + 3 * 400);
    expect([bench.tree.isOutgrown, bench.tree.isAged]).toEqual([true, true]);
    expect(bench.check(50)).toBeGreaterThan(20);
  });
});
