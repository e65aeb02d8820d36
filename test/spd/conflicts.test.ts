import { describe, expect, test } from 'vitest';
import type { PolicySpec } from '../../src/spd/policy.ts';
import { Spd } from '../../src/spd/spd.ts';
import { policy, request } from '../engine/rig.ts';

const clock = { monotonicMs: () => 0, wallMs: () => 0 };

/** What is said when these are added, one after the other. */
function warnings(...specs: readonly PolicySpec[]): string[] {
  const said: string[] = [];
  const spd = new Spd({ clock, warn: (sentence) => said.push(sentence) });
  for (const spec of specs) spd.add(spec);
  return said;
}

function out(src: string, dst: string, more: Parameters<typeof policy>[3] = {}): PolicySpec {
  return policy('out', src, dst, { type: 'none', ...more });
}

const WIDE = out('10.0.0.0/8', '0.0.0.0/0');
const NARROW = out('10.1.0.0/16', '10.2.0.0/16', { protocol: 6, dport: 80 });

describe('a policy that can never apply', () => {
  test('behind one that covers it', () => {
    expect(warnings(WIDE, NARROW)).toEqual([
      'policy 16385 (out 10.1.0.0/16[any] 10.2.0.0/16[80] protocol 6) can never apply: ' +
        'policy 16384 (out 10.0.0.0/8[any] 0.0.0.0/0[any] any) comes first and covers all of it',
    ]);
  });

  test('made so by one with a better priority', () => {
    const said = warnings({ ...NARROW, priority: 5 }, { ...WIDE, priority: 4 });
    expect(said).toEqual([expect.stringMatching(/^policy 16384 .* can never apply any more/)]);
  });

  test('not in the usual order, nor by priority', () => {
    expect(warnings(NARROW, WIDE)).toEqual([]);
    expect(warnings({ ...WIDE, priority: 9 }, { ...NARROW, priority: 3 })).toEqual([]);
  });

  test('not in another direction or family', () => {
    expect(warnings({ ...WIDE, direction: 'in' }, NARROW)).toEqual([]);
    expect(warnings(out('::/0', '::/0'), NARROW)).toEqual([]);
  });

  test('not one that names the loopback network, which others leave alone', () => {
    const everything = out('0.0.0.0/0', '0.0.0.0/0');
    expect(warnings(everything, out('127.0.0.1/32', '127.0.0.1/32'))).toEqual([]);
  });

  test('found among thousands', () => {
    const many = Array.from({ length: 3000 }, (_, i) =>
      out(`10.${i >> 8}.${i & 255}.0/24`, '192.0.2.0/24', { dport: 1 + (i % 7), protocol: 17 }),
    );
    const behind = out('10.4.4.7/32', '192.0.2.9/32', { dport: 1 + (1028 % 7), protocol: 17 });
    expect(warnings(...many)).toEqual([]);
    expect(warnings(...many, behind)).toEqual([
      expect.stringMatching(/can never apply: .*10\.4\.4/),
    ]);
    const other = out('10.4.4.7/32', '192.0.2.9/32', { dport: 1 + (1029 % 7), protocol: 17 });
    expect(warnings(...many, other)).toEqual([]);
  });
});

describe('an overlap that only the order of arrival decides', () => {
  const there = out('10.0.0.0/8', '10.1.0.0/16');
  const back = out('10.2.0.0/16', '10.0.0.0/8', { type: 'discard' });

  test('is reported', () => {
    expect(warnings(there, back)).toEqual([
      expect.stringMatching(
        /^policy 16385 .* and policy 16384 .* overlap and have the same priority/,
      ),
    ]);
  });

  test('not when priorities differ, or both do the same', () => {
    expect(warnings(there, { ...back, priority: 1 })).toEqual([]);
    expect(warnings(there, { ...back, type: 'none' })).toEqual([]);
    const ipsec = { type: 'ipsec', requests: [request({})] } as const;
    expect(warnings({ ...there, ...ipsec }, { ...back, ...ipsec })).toEqual([]);
  });

  test('not when nothing is in both', () => {
    expect(warnings(there, out('10.2.0.0/16', '10.3.0.0/16', { type: 'discard' }))).toEqual([]);
    const web = { ...there, selector: { ...there.selector, protocol: 6, dport: 80 } };
    const mail = { ...back, selector: { ...back.selector, protocol: 6, dport: 25 } };
    expect(warnings(web, mail)).toEqual([]);
  });
});

test('a replacement of all is looked at as well, but for what stays', () => {
  const said: string[] = [];
  const spd = new Spd({ clock, warn: (sentence) => said.push(sentence) });
  const kept = spd.add(WIDE);
  spd.planReplaceAll([
    { spec: kept, id: kept.id, keep: kept },
    { spec: NARROW, id: 0 },
  ])();
  expect(said).toHaveLength(1);
});
