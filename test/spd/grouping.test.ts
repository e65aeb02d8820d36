import { expect, test } from 'vitest';
import { hasShape, mostSleep, orderOf, planGroups } from '../../src/spd/grouping.ts';
import { PROTOCOL_ANY } from '../../src/spd/policy.ts';
import { RuleTable } from '../../src/spd/rule-table.ts';
import { policy } from '../engine/rig.ts';

const ANY = '0.0.0.0/0';

function table(count: number, spec: (i: number) => Parameters<typeof policy>) {
  const rules = new RuleTable(4);
  const times = { createdMs: 0, createdWallMs: 0, lastUsedMs: 0, lastUsedWallMs: 0, moment: 0 };
  for (let i = 0; i < count; i++) rules.add({ ...policy(...spec(i)), ...times, id: i }, i);
  return rules;
}

/** How many rules each group gets. */
function sizes(rules: RuleTable): number[] {
  const groups = planGroups(rules, rules.slots());
  const counts = groups.map(() => 0);
  for (const slot of rules.slots()) {
    counts[groups.findIndex((shape) => hasShape(rules, slot, shape))]!++;
  }
  return counts;
}

const host = (i: number) => `10.${i >> 8}.${i & 255}.${(i * 37) & 255}/32`;

test('rules that all name the same fields are one group', () => {
  const rules = table(5000, (i) => ['out', host(i), '192.0.2.0/24', { protocol: PROTOCOL_ANY }]);
  expect(sizes(rules)).toEqual([5000]);
});

test('those about the source, the destination and ports are apart', () => {
  const rules = table(6000, (i) => {
    if (i % 3 === 0) return ['out', host(i), ANY, { protocol: PROTOCOL_ANY }];
    if (i % 3 === 1) return ['out', ANY, host(i), { protocol: PROTOCOL_ANY }];
    return ['out', ANY, ANY, { protocol: 6, dport: i }];
  });
  expect(sizes(rules).filter((count) => count > 0)).toEqual([2000, 2000, 2000]);
});

test('no rules are one group, and few are', () => {
  expect(sizes(table(0, () => ['out', ANY, ANY]))).toEqual([0]);
  expect(sizes(table(3, (i) => ['out', i === 0 ? ANY : host(i), ANY]))).toEqual([3]);
});

test('roots are asked from the last on, but clearly earlier groups before them', () => {
  const rules = table(300, (i) => ['out', host(i), ANY, { priority: i < 200 ? i % 50 : 1000 + i }]);
  const thirds = (...starts: number[]) =>
    starts.map((start) => rules.slots().slice(start, start + 100));
  // The late ones are in no group, and come first.
  expect(orderOf(rules, thirds(0, 100))).toEqual([2, 1, 0]);
  expect(orderOf(rules, thirds(0, 200))).toEqual([2, 0, 1]);
  expect(orderOf(rules, thirds(200, 0, 100))[1]).not.toBe(0);
  expect(orderOf(rules, [[]])).toEqual([1, 0]);
});

test('most sleep when not even a third is awake', () => {
  const rules = table(30, (i) => ['out', host(i), ANY]);
  expect(mostSleep(rules, rules.slots().slice(0, 10))).toBe(false);
  expect(mostSleep(rules, rules.slots().slice(0, 9))).toBe(true);
});
