import { describe, expect, test } from 'vitest';
import { prefix } from '../../src/base/address.ts';
import { PORT_ANY, type PolicySpec } from '../../src/spd/policy.ts';
import { Spd } from '../../src/spd/spd.ts';

const clock = { monotonicMs: () => 0, wallMs: () => 0 };

function spec(sport: number, given: Partial<PolicySpec> = {}): PolicySpec {
  const net = prefix('10.0.0.0/8');
  return {
    direction: 'out',
    selector: { src: net, dst: net, protocol: 6, sport, dport: PORT_ANY },
    type: 'none',
    priority: 0,
    requests: [],
    lifetimeSeconds: 0,
    idleSeconds: 0,
    origin: 'file',
    ...given,
  };
}

function ports(spd: Spd): number[] {
  return spd.list('out').map((one) => one.selector.sport);
}

describe('Spd.planReplaceAll', () => {
  test('changes nothing until it is carried out; then the order is as given, by priority', () => {
    const spd = new Spd({ clock });
    const [first, second] = [spd.add(spec(1)), spd.add(spec(2)), spd.add(spec(3))];
    const apply = spd.planReplaceAll([
      { spec: spec(4, { priority: 9 }), id: 0 },
      { spec: spec(5), id: 77 },
      { spec: second!, id: second!.id, keep: second! },
      { spec: spec(1, { direction: 'in' }), id: 0 },
      { spec: spec(1, { priority: 1 }), id: first!.id },
    ]);
    expect(ports(spd)).toEqual([1, 2, 3]);
    const policies = apply();
    expect(policies.map((one) => one.selector.sport)).toEqual([4, 5, 2, 1, 1]);
    expect(ports(spd)).toEqual([5, 2, 1, 4]);
    expect(spd.list('out')[1]).toBe(second);
    expect(spd.get(77)?.selector.sport).toBe(5);
    expect(spd.get(first!.id)).toMatchObject({ priority: 1 });
    expect(spd.size).toBe(5);
    expect(new Set(policies.map((one) => one.id)).size).toBe(5);
  });

  test('lifetimes of what it brings count', () => {
    const gone: number[] = [];
    const spd = new Spd({ clock, expired: (policy) => gone.push(policy.selector.sport) });
    spd.planReplaceAll([{ spec: spec(1, { lifetimeSeconds: 5 }), id: 0 }])();
    expect(spd.poll(4_999)).toBe(5_000);
    spd.poll(5_000);
    expect(gone).toEqual([1]);
  });

  test('refuses twins and too many', () => {
    const spd = new Spd({ clock, policyMax: 2 });
    const both =
      (a: PolicySpec, b: PolicySpec, id = 0) =>
      () =>
        spd.planReplaceAll([
          { spec: a, id },
          { spec: b, id },
        ]);
    expect(both(spec(1), spec(1))).toThrow(/two policies/);
    expect(both(spec(1), spec(2), 8)).toThrow(/id 8 is in use/);
    expect(both(spec(1), spec(1, { direction: 'in' }))).not.toThrow();
    const three = [1, 2, 3].map((sport) => ({ spec: spec(sport), id: 0 }));
    expect(() => spd.planReplaceAll(three)).toThrow(/room for 2/);
    expect(spd.size).toBe(0);
  });
});
