import { describe, expect, test } from 'vitest';
import { formatPrefix } from '../../src/base/address.ts';
import { PolicyDiversion } from '../../src/daemon/diversion.ts';
import { Spd } from '../../src/spd/spd.ts';
import { policy } from '../engine/rig.ts';

function setUp() {
  const diversion = new PolicyDiversion();
  const spd = new Spd({
    clock: { monotonicMs: () => 0, wallMs: () => 0 },
    added: (one) => diversion.added(one),
    removed: (one) => diversion.removed(one),
  });
  const { table } = diversion;
  const out = () => [...table.out.values()].map((one) => formatPrefix(one.destination)).sort();
  const within = () =>
    [...table.in].map((one) => `${formatPrefix(one.source)} ${formatPrefix(one.destination)}`);
  return { diversion, spd, table, out, within };
}

const HERE = '192.0.2.1';

describe('what is diverted', () => {
  test('are destinations of out policies and pairs of in policies, however many name them', () => {
    const { spd, table, out, within } = setUp();
    const one = spd.add(policy('out', HERE, '10.0.0.0/8', { protocol: 6, dport: 80 }));
    const two = spd.add(policy('out', HERE, '10.0.0.0/8', { protocol: 17, type: 'discard' }));
    spd.add(policy('in', '10.0.0.0/8', HERE));
    spd.add(policy('fwd', '10.0.0.0/8', '10.9.0.0/16'));
    spd.add(policy('out', HERE, '10.7.0.0/16', { type: 'none' }));
    expect(out()).toEqual(['10.0.0.0/8']);
    expect(within()).toEqual([`10.0.0.0/8 ${HERE}/32`]);
    table.takeChanges();
    spd.remove(one);
    expect(table.hasChanged).toBe(false);
    spd.remove(two);
    expect(out()).toEqual([]);
    expect(table.takeChanges().out.size).toBe(1);
    spd.flush();
    expect(within()).toEqual([]);
  });

  test('follows a policy that is replaced, also by one that protects nothing', () => {
    const { spd, table, out } = setUp();
    spd.add(policy('out', HERE, '10.0.0.1'));
    table.takeChanges();
    spd.update(policy('out', HERE, '10.0.0.1', { priority: 7 }));
    expect(out()).toEqual(['10.0.0.1/32']);
    spd.update(policy('out', HERE, '10.0.0.1', { priority: 7, type: 'none' }));
    expect(out()).toEqual([]);
    spd.update(policy('out', HERE, '10.0.0.1', { priority: 7 }));
    expect(out()).toEqual(['10.0.0.1/32']);
  });

  test('is held while other policies take the place of all', () => {
    const { diversion, spd, out, within } = setUp();
    const old = spd.add(policy('out', HERE, '10.0.0.1'));
    const other = setUp();
    const next = [
      other.spd.add(policy('out', HERE, '10.0.0.2')),
      other.spd.add(policy('in', '10.0.0.2', HERE)),
      other.spd.add(policy('out', HERE, '127.0.0.1')),
    ];
    const release = diversion.hold(next);
    expect(out()).toEqual(['10.0.0.1/32', '10.0.0.2/32']);
    spd.planReplaceAll(next.map((spec) => ({ spec, id: 0 })))();
    expect(out()).toEqual(['10.0.0.2/32']);
    release();
    expect(out()).toEqual(['10.0.0.2/32']);
    expect(within()).toEqual([`10.0.0.2/32 ${HERE}/32`]);
    expect(spd.get(old.id)).not.toBe(old);
    spd.flush();
    expect([...out(), ...within()]).toEqual([]);
  });
});

test('policies for the loopback network divert nothing, and are told once', () => {
  const { diversion, spd, out } = setUp();
  spd.add(policy('out', '127.0.0.1', '127.0.0.1'));
  const gone = spd.add(policy('in', '127.0.0.2', '127.0.0.1'));
  spd.remove(gone);
  expect(out()).toEqual([]);
  expect(diversion.takeWarnings()).toEqual([expect.stringMatching(/127\.0\.0\.1\/32.*loopback/)]);
  expect(diversion.takeWarnings()).toEqual([]);
});
