import { describe, expect, test } from 'vitest';
import { AH, algorithmArgs, ESP, plainName, type Row, refusalOf } from './netbsd-algorithms.ts';
import { Network, type Wire } from './network.ts';
import type { Node } from './node.ts';

/**
 * NetBSD's tests/net/ipsec/t_ipsec_tunnel.sh and t_ipsec_tunnel_odd.sh: host, gateway, gateway,
 * host; every algorithm; IPv4 and IPv6 in tunnels of either. The gateways demand protection of what
 * comes in as well as of what goes out, also by AH, which KAME's manual page lists under BUGS.
 */

type Family = 4 | 6;

const HOSTS = { 4: ['10.0.1.2', '10.0.2.2'], 6: ['fd00:1::2', 'fd00:2::2'] } as const;
const INSIDE = { 4: ['10.0.1.1', '10.0.2.1'], 6: ['fd00:1::1', 'fd00:2::1'] } as const;
const OUTSIDE = { 4: ['20.0.0.1', '20.0.0.2'], 6: ['fc00::1', 'fc00::2'] } as const;
const NETWORKS = { 4: ['10.0.1.0/24', '10.0.2.0/24'], 6: ['fd00:1::/64', 'fd00:2::/64'] } as const;

const ROWS = [...ESP, ...AH].filter((row) => refusalOf(row) === undefined);

interface Site {
  readonly network: Network;
  readonly hosts: readonly [Node, Node];
  readonly gateways: readonly [Node, Node];
  readonly outside: Wire;
}

function site(): Site {
  const network = new Network();
  const node = (...addresses: string[]) => network.node(addresses, { allowLegacy: true });
  const host = (i: 0 | 1) => node(HOSTS[4][i], HOSTS[6][i]);
  const gateway = (i: 0 | 1) => node(OUTSIDE[4][i], OUTSIDE[6][i], INSIDE[4][i], INSIDE[6][i]);
  const [hosts, gateways] = [[host(0), host(1)] as const, [gateway(0), gateway(1)] as const];
  network.wire(hosts[0], gateways[0]);
  network.wire(hosts[1], gateways[1]);
  return { network, hosts, gateways, outside: network.wire(gateways[0], gateways[1]) };
}

function configure({ gateways }: Site, row: Row, inner: Family, outer: Family): void {
  const { protocol } = row;
  const args = algorithmArgs(row, row.valid[0]!);
  const [left, right] = OUTSIDE[outer];
  const [from, to] = NETWORKS[inner];
  for (const [i, gateway] of gateways.entries()) {
    const [out, into] = i === 0 ? ['out', 'in'] : ['in', 'out'];
    gateway.configure(`
      add ${left} ${right} ${protocol} 10000 ${args};
      add ${right} ${left} ${protocol} 10001 ${args};
      spdadd ${from} ${to} any -P ${out} ipsec ${protocol}/tunnel/${left}-${right}/require;
      spdadd ${to} ${from} any -P ${into} ipsec ${protocol}/tunnel/${right}-${left}/require;`);
  }
}

function check(row: Row, inner: Family, outer: Family): void {
  const all = site();
  const { hosts, gateways, outside } = all;
  const [from, to] = HOSTS[inner];
  const plain = inner === 4 ? 'icmp' : 'icmp6';
  expect(hosts[0].ping(to)).toBe(true);
  expect(outside.take()).toEqual([`${plain} ${from} > ${to}`, `${plain} ${to} > ${from}`]);

  configure(all, row, inner, outer);
  const [left, right] = OUTSIDE[outer];
  for (const size of [56, 1000]) {
    expect(hosts[0].ping(to, [], size)).toBe(true);
    expect(hosts[1].ping(from, [], size)).toBe(true);
    const one = `${row.protocol} ${left} > ${right}`;
    const other = `${row.protocol} ${right} > ${left}`;
    expect(outside.take()).toEqual([one, other, other, one]);
  }
  for (const gateway of gateways) {
    const { stats } = gateway.host;
    expect([stats.dropped('in'), stats.dropped('out')]).toEqual([[], []]);
    gateway.configure('flush; spdflush;');
    expect([gateway.dumpSas(), gateway.dumpPolicies()]).toEqual([[], []]);
  }
}

describe('t_ipsec_tunnel', () => {
  test.each(
    ([4, 6] as const).flatMap((family) =>
      ROWS.map((row) => {
        const name = `ipsec_tunnel_ipv${family}_${row.protocol}_${plainName(row)}`;
        return [name, row, family] as const;
      }),
    ),
  )('%s', (_, row, family) => check(row, family, family));

  test.each([
    ['esp', ESP],
    ['ah', AH],
  ] as const)('with inbound require %s, what comes in the clear is not forwarded', (_, rows) => {
    const all = site();
    const row = rows.find(({ name }) => name === 'rijndael-cbc' || name === 'hmac-sha256')!;
    configure(all, row, 4, 4);
    const { hosts, gateways } = all;
    // The other gateway has forgotten what to protect.
    gateways[1].configure('spdflush;');
    expect(hosts[1].ping(HOSTS[4][0])).toBe(false);
    expect(gateways[0].host.stats.dropped('in')).toEqual([['policy-clear', 1]]);
    expect(hosts[0].received).toEqual([]);
  });
});

describe('t_ipsec_tunnel_odd', () => {
  test.each(
    (
      [
        ['v4v6', 4, 6],
        ['v6v4', 6, 4],
      ] as const
    ).flatMap(([odd, inner, outer]) =>
      ROWS.map((row) => {
        const name = `ipsec_tunnel_${odd}_${row.protocol}_${plainName(row)}`;
        return [name, row, inner, outer] as const;
      }),
    ),
  )('%s', (_, row, inner, outer) => check(row, inner, outer));
});
