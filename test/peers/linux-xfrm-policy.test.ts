import { beforeAll, describe, expect, test } from 'vitest';
import { changes } from './counters.ts';
import { Network, type Wire } from './network.ts';
import type { Node } from './node.ts';

/**
 * Linux's tools/testing/selftests/net/xfrm_policy.sh: ns1 - ns3 - ns4 - ns2, with a tunnel between
 * ns3 and ns4 and many policies that match nothing, of all kinds of overlapping prefixes. A ping
 * goes through the tunnel if the policy says so that is meant for it. Linux's policies for what it
 * forwards are `in` here. The steps build on each other, as there.
 */

const TUNNEL = { 4: ['10.0.3.1', '10.0.3.10'], 6: ['dead:3::1', 'dead:3::10'] } as const;
const NETWORKS = { 4: ['10.0.1.0/24', '10.0.2.0/24'], 6: ['dead:1::/64', 'dead:2::/64'] } as const;
const HOSTS = {
  4: (net: 1 | 2, host: number) => `10.0.${net}.${host}`,
  6: (net: 1 | 2, host: number) => `dead:${net}::${host === 2 ? 2 : host.toString(16)}`,
} as const;
const FAMILIES = [4, 6] as const;
type Family = 4 | 6;

/** Linux's number, where less goes before more, in the language of setkey. */
function prio(priority: number): string {
  return `prio ${2 ** 31 - priority}`;
}

/** do_esp: the tunnel, for one of its ends. */
function tunnel(family: Family, host: 0 | 1): string {
  const [left, right] = TUNNEL[family];
  const [here, there] = NETWORKS[family];
  const [out, into] = host === 0 ? ['out', 'in'] : ['in', 'out'];
  const args =
    '-E aes-cbc 0x0123456789abcdef0123456789012345 ' +
    '-A hmac-sha1 0xdeadbeef1234567890abcdefabcdefabcdefabcd';
  const level = (from: string, to: string) => `ipsec esp/tunnel/${from}-${to}/require`;
  return `
    add ${left} ${right} esp 0x1001 -m tunnel ${args};
    add ${right} ${left} esp 0x1002 -m tunnel ${args};
    spdadd ${here} ${there} any -P ${out} ${prio(100)} ${level(left, right)};
    spdadd ${there} ${here} any -P ${into} ${prio(100)} ${level(right, left)};`;
}

/** do_dummies4 and do_dummies6: before all others, and about nobody. */
function dummies(): string {
  const lines: string[] = [];
  const block = (from: string, to: string, direction: 'out' | 'in') =>
    lines.push(`spdadd ${from} ${to} any -P ${direction} ${prio(0)} discard;`);
  for (let i = 10; i <= 16; i++) {
    block('0.0.0.0/0', `10.${i}.99.0/30`, 'out');
    block(`10.${i}.99.0/30`, '0.0.0.0/0', 'out');
    for (let j = 32; j <= 64; j++) {
      for (const len of [30, 29, 24]) block(`10.${i}.1.0/${len}`, `10.${i}.${j}.0/${len}`, 'out');
      block(`10.${i}.${j}.0/24`, `10.${i}.1.0/24`, 'in');
      block(`dead:${i}::/64`, `dead:${i}:${j}::/64`, 'out');
      block(`dead:${i}:${j}::/64`, `dead:${i}::/32`, 'in');
    }
  }
  return lines.join('\n');
}

/** do_exception: .240 to .255 in the clear, but .253 through the tunnel. */
function exception(family: Family, host: 0 | 1, direction: 'out' | 'in'): string {
  const [one, two] = TUNNEL[family];
  const [left, right] = host === 0 ? [one, two] : [two, one];
  const net = host === 0 ? 2 : 1;
  const all = family === 4 ? '0.0.0.0/0' : '::/0';
  const plain = family === 4 ? `10.0.${net}.240/28` : `dead:${net}::f0/124`;
  const protectedHost = HOSTS[family](net, 253);
  const [from, to] = direction === 'out' ? [left, right] : [right, left];
  const ends = (far: string) => (direction === 'out' ? `${all} ${far}` : `${far} ${all}`);
  return `
    spdadd ${ends(plain)} any -P ${direction} ${prio(10)} none;
    spdadd ${ends(protectedHost)} any -P ${direction} ${prio(1)}
      ipsec esp/tunnel/${from}-${to}/require;`;
}

/** do_overlap: prefixes beside and around those of the tunnel. */
const OVERLAP = `
  spdadd 10.1.0.0/24 10.0.0.0/24 any -P in ${prio(200)} discard;
  spdadd 10.2.0.0/24 10.0.0.0/24 any -P in ${prio(200)} discard;
  spdadd 10.2.0.0/24 10.0.1.0/24 any -P in ${prio(200)} discard;
  spdadd 10.1.0.0/24 10.0.0.0/23 any -P in ${prio(200)} discard;`;

describe('xfrm_policy.sh', () => {
  const network = new Network();
  const addresses = (net: 1 | 2) =>
    [2, 253, 254].flatMap((host) => FAMILIES.map((family) => HOSTS[family](net, host)));
  const [ns1, ns2] = [network.node(addresses(1)), network.node(addresses(2))];
  const ns3 = network.node(['10.0.3.1', 'dead:3::1', '10.0.1.1', 'dead:1::1']);
  const ns4 = network.node(['10.0.3.10', 'dead:3::10', '10.0.2.1', 'dead:2::1']);
  network.wire(ns1, ns3);
  network.wire(ns4, ns2);
  const wire: Wire = network.wire(ns3, ns4);

  beforeAll(() => {
    for (const family of FAMILIES) {
      ns3.configure(tunnel(family, 0));
      ns4.configure(tunnel(family, 1));
    }
    for (const gateway of [ns3, ns4]) gateway.configure(dummies());
  });

  /** check_xfrm, both ways: as what the pings go, and that the gateways count them so. */
  function check(what: 'esp' | 'plain', host: number, answered = true): void {
    for (const family of FAMILIES) {
      for (const [from, net] of [
        [ns1, 2],
        [ns2, 1],
      ] as const) {
        const to = HOSTS[family](net, host);
        const found = changes(ns3, () => expect([to, from.ping(to)]).toEqual([to, answered]));
        const kinds = new Set(wire.take().map((flow) => flow.split(' ')[0]));
        const plain = family === 4 ? 'icmp' : 'icmp6';
        expect([...kinds]).toEqual([what === 'esp' ? 'esp' : plain]);
        const counted = [found['esp.output'] ?? 0, found['esp.input'] ?? 0];
        expect([to, ...counted]).toEqual(what === 'esp' ? [to, 1, 1] : [to, 0, 0]);
      }
    }
  }

  test('there are hundreds of policies, and those of the tunnel can be got', () => {
    for (const gateway of [ns3, ns4]) {
      expect(gateway.spd.size).toBeGreaterThan(1000);
      const shown = gateway.dumpPolicies().join('\n');
      for (const family of FAMILIES) {
        const [here, there] = NETWORKS[family];
        expect(shown).toContain(`${here}[any] ${there}[any]`);
        // And found by their selectors: there is no second of that kind.
        const out = gateway === ns3 ? 'out' : 'in';
        expect(gateway.setkey(`spdadd ${here} ${there} any -P ${out} none;`)).toEqual(['EEXIST']);
      }
    }
  });

  test('policy before exception matches', () => {
    for (const host of [2, 253, 254]) check('esp', host);
  });

  test('an exception for what goes out alone: it does, and the other end refuses it', () => {
    for (const family of FAMILIES) {
      ns3.configure(exception(family, 0, 'out'));
      ns4.configure(exception(family, 1, 'out'));
    }
    check('plain', 254, false);
    const [dropped] = ns4.host.stats.dropped('in');
    expect(dropped![0]).toBe('policy-clear');
    check('esp', 2);
  });

  test('ping to .254 bypassed ipsec tunnel, direct policy matches, policy matches (exceptions)', () => {
    for (const family of FAMILIES) {
      ns3.configure(exception(family, 0, 'in'));
      ns4.configure(exception(family, 1, 'in'));
      // The other side of each exception: what comes to .254, and what that one answers.
      for (const [gateway, own, far] of [
        [ns3, 1, 1],
        [ns4, 2, 0],
      ] as const) {
        const [host, net] = [HOSTS[family](own, 254), NETWORKS[family][far]];
        gateway.configure(`
          spdadd ${net} ${host} any -P in ${prio(9)} none;
          spdadd ${host} ${net} any -P out ${prio(9)} none;`);
      }
    }
    check('plain', 254);
    check('esp', 253);
    check('esp', 2);
  });

  test('the same with block policies (exceptions and block policies)', () => {
    ns3.configure(OVERLAP);
    check('plain', 254);
    check('esp', 253);
    check('esp', 2);
    // Whoever is in a blocked network is blocked, in the tunnel's network too.
    const before = ns3.host.stats.drops.in['policy-discard'];
    const intruder: Node = network.node(['10.1.0.7', '10.2.0.7']);
    network.wire(intruder, ns3);
    intruder.ping('10.0.1.2');
    expect(ns3.host.stats.drops.in['policy-discard']).toBe(before + 1);
  });

  test('when the exceptions are gone, all goes through the tunnel again', () => {
    for (const gateway of [ns3, ns4]) {
      for (const policy of [...gateway.spd.list('out'), ...gateway.spd.list('in')]) {
        if (policy.priority < 100 && policy.priority > 0) gateway.spd.remove(policy);
      }
    }
    for (const host of [2, 253, 254]) check('esp', host);
  });
});
