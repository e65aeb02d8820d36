import { describe, expect, test } from 'vitest';
import { allocatedBy, sitesOf } from '../../bench/allocations.ts';
import { EnginePair } from '../../bench/engine-pair.ts';
import { profile, STAGES, sharesOf } from '../../bench/stages.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import { testEnv } from '../engine/rig.ts';

function pair(given: Partial<ConstructorParameters<typeof EnginePair>[0]> = {}): EnginePair {
  return new EnginePair({
    provider: nodeCrypto,
    env: testEnv(),
    mode: 'tunnel',
    inUdp: true,
    octets: 200,
    tunnels: 1,
    flows: 'one',
    ...given,
  });
}

describe('the pair of hosts that is measured', () => {
  test.each([
    ['a tunnel in UDP', {}],
    ['a tunnel without', { inUdp: false }],
    ['transport mode', { mode: 'transport' }],
    ['many flows', { flows: 'many' }],
    ['a row', { flows: 'row' }],
    ['many tunnels', { tunnels: 100, flows: 'all' }],
  ] as const)('brings packets across, encrypted: %s', (_name, given) => {
    const hosts = pair(given);
    for (let i = 0; i < 3; i++) hosts.verify();
    const [sent, received] = [hosts.a.stats.families[4], hosts.b.stats.families[4]];
    expect([sent.outProtected, received.inDelivered]).toEqual([192, 192]);
    if ('tunnels' in given) {
      expect([...hosts.a.sad.all()].filter((sa) => sa.sentSeq > 0)).toHaveLength(100);
    }
    hosts.close();
  });

  test('does not believe a provider that does nothing', () => {
    const shape = { ivLen: 8, icvLen: 16, alignLen: 4, iv: 'unique', authenticates: true } as const;
    const esp = () => ({ ...shape, seal: () => {}, open: () => true, wipe: () => {} });
    const hosts = pair({ provider: { ...nodeCrypto, esp } });
    expect(() => hosts.verify()).toThrow('in the clear');
  });
});

describe('stages', () => {
  test('are all found, on the way out and in', () => {
    const hosts = pair({ octets: 64 });
    const found = profile(() => {
      for (let i = 0; i < 800; i++) hosts.pass();
    });
    for (const side of ['seal', 'open'] as const) {
      const shares = sharesOf(found, side);
      for (const stage of STAGES) expect.soft(shares[stage], `${side} ${stage}`).toBeGreaterThan(0);
      expect(Object.values(shares).reduce((sum, share) => sum + share)).toBeCloseTo(1, 6);
      expect(shares.rest).toBeLessThan(0.5);
    }
    hosts.close();
  });
});

describe('allocations', () => {
  const COUNT = 1_000_000;
  const kept: unknown[] = new Array(16).fill(0);

  function makeObjects(count = COUNT): void {
    for (let i = 0; i < count; i++) kept[i & 15] = { a: i, b: i, c: i, d: i };
  }

  test('are counted to the octet, also those that were collected meanwhile', () => {
    makeObjects();
    const each = allocatedBy(() => makeObjects()) / COUNT;
    // A header of three words, and four fields.
    expect(each).toBeGreaterThan(7 * 8 - 2);
    expect(each).toBeLessThan(7 * 8 + 4);
  });

  test('are none where nothing is made', () => {
    let sum = 0;
    const add = () => {
      for (let i = 0; i < COUNT; i++) sum = (sum + i) | 0;
    };
    add();
    expect(allocatedBy(add) / COUNT).toBeLessThan(1);
    expect(sum).not.toBe(-1);
  });

  test('are laid at the door of who asks', () => {
    const count = COUNT / 10;
    const [most] = sitesOf(() => makeObjects(count));
    expect(most!.name).toContain('makeObjects');
    expect(most!.octets / count).toBeGreaterThan(28);
  });
});
