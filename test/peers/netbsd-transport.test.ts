import { expect, test } from 'vitest';
import { AH, algorithmArgs, ESP, plainName, type Row, refusalOf } from './netbsd-algorithms.ts';
import { Bus } from './node.ts';

/**
 * NetBSD's tests/net/ipsec/t_ipsec_transport.sh: two nodes, every algorithm, both families; SAs
 * with SPIs 10000 and 10001, and a policy for what goes out only. What IPComp has to do there is
 * left out, and so are algorithms that no provider has: netbsd-keys.test.ts says which.
 */

const FAMILIES = [
  ['ipv4', '10.0.0.1', '10.0.0.2'],
  ['ipv6', 'fd00::1', 'fd00::2'],
] as const;

const ROWS = [...ESP, ...AH].filter((row) => refusalOf(row) === undefined);

const CASES = FAMILIES.flatMap(([family, local, peer]) =>
  ROWS.map((row) => {
    const name = `ipsec_transport_${family}_${row.protocol}_${plainName(row)}`;
    return [name, row, local, peer] as const;
  }),
);

test.each(CASES)('%s', (_, row, local, peer) => {
  const { protocol } = row;
  const args = algorithmArgs(row, row.valid[0]!);
  const wire = (what: 'esp' | 'ah' | 'plain', there: number, back: number) => [
    { from: local, to: peer, what, spi: there },
    { from: peer, to: local, what, spi: back },
  ];
  const bus = new Bus({ allowLegacy: true });
  const [a, b] = [bus.add(local), bus.add(peer)];
  expect(a.ping(peer)).toBe(true);
  expect(bus.take()).toEqual(wire('plain', 0, 0));

  for (const [node, from, to] of [
    [a, local, peer],
    [b, peer, local],
  ] as const) {
    node.configure(`
      add ${local} ${peer} ${protocol} 10000 ${args};
      add ${peer} ${local} ${protocol} 10001 ${args};
      spdadd ${from} ${to} any -P out ipsec ${protocol}/transport//require;`);
    const pairs = node.dumpSas().map((text) => text.split('\n')[0]!.trim());
    expect(pairs.sort()).toEqual([`${local} ${peer}`, `${peer} ${local}`]);
  }
  for (const size of [0, 1, 56, 1400]) {
    expect(a.ping(peer, [], size)).toBe(true);
    expect(bus.take()).toEqual(wire(protocol, 10000, 10001));
  }
  expect([a, b].map(({ host }) => host.stats.dropped('in'))).toEqual([[], []]);

  for (const node of [a, b]) {
    node.configure(`delete ${local} ${peer} ${protocol} 10000;`);
    expect(node.dumpSas()).toHaveLength(1);
    node.configure('flush; spdflush;');
    expect([node.dumpSas(), node.dumpPolicies()]).toEqual([[], []]);
  }
  expect(a.ping(peer)).toBe(true);
  expect(bus.take()).toEqual(wire('plain', 0, 0));
});

test('an algorithm that is refused leaves no way in the clear', () => {
  const refused: Row[] = [...ESP, ...AH].filter((row) => refusalOf(row) !== undefined);
  expect(refused.map(({ name }) => name)).toContain('des-deriv');
  for (const row of refused) {
    const bus = new Bus({ allowLegacy: true });
    const a = bus.add('10.0.0.1');
    bus.add('10.0.0.2');
    a.configure(`spdadd 10.0.0.1 10.0.0.2 any -P out ipsec ${row.protocol}/transport//require;`);
    const args = algorithmArgs(row, row.valid[0]!);
    expect(a.setkey(`add 10.0.0.1 10.0.0.2 ${row.protocol} 10000 ${args};`)).toHaveLength(1);
    expect([a.ping('10.0.0.2'), bus.take()]).toEqual([false, []]);
  }
});
