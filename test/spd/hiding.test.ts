import { expect, test } from 'vitest';
import { hides, upToCover, visibleOf } from '../../src/spd/hiding.ts';
import { PROTOCOL_ANY } from '../../src/spd/policy.ts';
import { RuleTable } from '../../src/spd/rule-table.ts';
import { policy } from '../engine/rig.ts';

const ANY = '0.0.0.0/0';
const EVERYWHERE = new Int32Array(4);

const rules = new RuleTable(4);
let serial = 0;
function rule(src: string, dst: string, more: Parameters<typeof policy>[3] = {}): number {
  const spec = policy('out', src, dst, { protocol: PROTOCOL_ANY, ...more });
  const times = { createdMs: 0, createdWallMs: 0, lastUsedMs: 0, lastUsedWallMs: 0, moment: 0 };
  return rules.add({ ...spec, ...times, id: serial }, serial++);
}

test('a wider rule hides a narrower one, not the other way round', () => {
  const [wide, narrow] = [rule('10.0.0.0/8', ANY), rule('10.1.0.0/16', '192.0.2.0/24')];
  expect(hides(rules, wide, narrow, EVERYWHERE)).toBe(true);
  expect(hides(rules, narrow, wide, EVERYWHERE)).toBe(false);
  expect(hides(rules, wide, rule('11.0.0.0/16', ANY), EVERYWHERE)).toBe(false);
});

test('where all packets have the bits that it names, a rule hides what leaves them open', () => {
  const [one, other] = [rule('10.0.0.0/8', ANY), rule(ANY, '192.0.2.0/24')];
  expect(hides(rules, one, other, Int32Array.of(0xff << 24, 0, 0, 0))).toBe(true);
  expect(hides(rules, one, other, Int32Array.of(0xfe << 24, 0, 0, 0))).toBe(false);
});

test('a rule with ports never hides one without, for there are packets without ports', () => {
  const ported = rule(ANY, ANY, { protocol: 6, dport: 0 });
  const portless = rule(ANY, '192.0.2.0/24', { protocol: 6 });
  const fixed = Int32Array.of(0, 0, -1, -1);
  expect(hides(rules, ported, portless, fixed)).toBe(false);
  expect(hides(rules, portless, ported, Int32Array.of(0, -1, -1, -1))).toBe(true);
  expect(hides(rules, ported, rule(ANY, '192.0.2.0/24', { protocol: 6, dport: 0 }), fixed)).toBe(
    true,
  );
  expect(upToCover(rules, [portless, ported], fixed)).toEqual([portless, ported]);
});

test('what names the loopback network is hidden only by what names it too', () => {
  const named = rule('127.0.0.1/32', '127.0.0.1/32');
  expect(hides(rules, rule(ANY, ANY), named, EVERYWHERE)).toBe(false);
  expect(hides(rules, rule('127.0.0.0/8', ANY), named, EVERYWHERE)).toBe(true);
});

test('what is visible, and what stands before a rule for everything', () => {
  const order = [rule('10.1.0.0/16', ANY), rule('10.0.0.0/8', ANY), rule('10.1.1.0/24', ANY)];
  const [first, second, third] = order as [number, number, number];
  expect(visibleOf(rules, order, EVERYWHERE, 2)).toEqual([first, second]);
  expect(visibleOf(rules, order, EVERYWHERE, 1)).toBeUndefined();
  const inTen = Int32Array.of(0xff << 24, 0, 0, 0);
  expect(upToCover(rules, [third, first, second], inTen)).toEqual([first, second]);
  expect(upToCover(rules, order, EVERYWHERE)).toEqual(order);
});
