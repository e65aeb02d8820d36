import { beforeEach, describe, expect, test } from 'vitest';
import { Bus, type Node } from './node.ts';

/**
 * NetBSD's tests/net/ipsec/t_ipsec_sockopt.sh, told again for hosts of ours: policies of a single
 * socket (`ping -E` and `ping -P`), with and without SAs and policies of the host. IPComp is left
 * out, which this host refuses.
 */

interface Kind {
  readonly name: string;
  readonly proto: 'esp' | 'ah';
  readonly alg: string;
  readonly local: string;
  readonly peer: string;
}

const ALGORITHMS = {
  esp: '-E aes-cbc "0123456789012345"',
  ah: '-A hmac-sha1 "01234567890123456789"',
};
const KINDS: readonly Kind[] = (['esp', 'ah'] as const).flatMap((proto) => [
  {
    name: `sockopt ipv4 ${proto}`,
    proto,
    alg: ALGORITHMS[proto],
    local: '10.0.0.1',
    peer: '10.0.0.2',
  },
  {
    name: `sockopt ipv6 ${proto}`,
    proto,
    alg: ALGORITHMS[proto],
    local: 'fd00::1',
    peer: 'fd00::2',
  },
]);

describe.each(KINDS)('$name', ({ proto, alg, local, peer }) => {
  let bus: Bus;
  let a: Node;
  let b: Node;
  const out = `out ipsec ${proto}/transport//require`;
  const into = `in ipsec ${proto}/transport//require`;

  beforeEach(() => {
    bus = new Bus();
    a = bus.add(local);
    b = bus.add(peer);
  });

  function addSas(): void {
    const sas =
      `add ${local} ${peer} ${proto} 10000 ${alg};` + `add ${peer} ${local} ${proto} 10001 ${alg};`;
    for (const node of [a, b]) expect(node.setkey(sas)).toEqual([]);
  }

  /** `esp >` for each packet of ours, `plain <` for each of the peer. */
  function seen(): string[] {
    return bus.take().map(({ from, what }) => `${what} ${from === local ? '>' : '<'}`);
  }

  test('out require, no SA: the send fails', () => {
    expect(a.ping(peer, [out])).toBe(false);
    expect(seen()).toEqual([]);
    expect(a.host.stats.drops.out['no-sa']).toBe(1);
    // Of the other sockets nothing is asked.
    expect(a.ping(peer)).toBe(true);
    expect(seen()).toEqual(['plain >', 'plain <']);
  });

  test('out require, SAs: protected out, and the plain reply is accepted', () => {
    addSas();
    expect(a.ping(peer, [out])).toBe(true);
    expect(seen()).toEqual([`${proto} >`, 'plain <']);
    expect(a.ping(peer)).toBe(true);
    expect(seen()).toEqual(['plain >', 'plain <']);
  });

  test('in require: the plain reply is dropped, of this socket alone', () => {
    addSas();
    expect(a.ping(peer, [into])).toBe(false);
    expect(seen()).toEqual(['plain >', 'plain <']);
    expect(a.host.stats.drops.in['policy-clear']).toBe(1);
    expect(a.ping(peer, [out, into])).toBe(false);
    expect(seen()).toEqual([`${proto} >`, 'plain <']);
    expect(a.ping(peer)).toBe(true);
  });

  test('in use: a plain reply will do', () => {
    expect(a.ping(peer, [`in ipsec ${proto}/transport//use`])).toBe(true);
  });

  test('in and out require, and a policy of the peer for its replies', () => {
    addSas();
    expect(b.setkey(`spdadd ${peer} ${local} any -P ${out};`)).toEqual([]);
    expect(a.ping(peer, [out, into])).toBe(true);
    expect(seen()).toEqual([`${proto} >`, `${proto} <`]);
  });

  test('IP_IPSEC_POLICY, as the steps are told there', () => {
    addSas();
    const policy = `-P ${out};`;
    // A policy of the source alone: the reply is not protected, and refused if that is asked for.
    expect(a.setkey(`spdadd ${local} ${peer} any ${policy}`)).toEqual([]);
    expect(a.ping(peer, [out])).toBe(true);
    expect(seen()).toEqual([`${proto} >`, 'plain <']);
    expect(a.ping(peer, [out, into])).toBe(false);
    seen();
    // Of both: whichever of the two the socket names, both ways are protected.
    expect(b.setkey(`spdadd ${peer} ${local} any ${policy}`)).toEqual([]);
    for (const policies of [[out], [into]]) {
      expect(a.ping(peer, policies)).toBe(true);
      expect(seen()).toEqual([`${proto} >`, `${proto} <`]);
    }
    for (const node of [a, b]) {
      node.configure('flush; spdflush;');
      expect([node.dumpSas(), node.dumpPolicies()]).toEqual([[], []]);
    }
  });

  test('a policy of the host, and sockets that entrust their packets to it', () => {
    addSas();
    expect(a.setkey(`spdadd ${local} ${peer} any -P ${out};`)).toEqual([]);
    for (const policies of [[], ['out entrust', 'in entrust']]) {
      expect(a.ping(peer, policies)).toBe(true);
      expect(seen()).toEqual([`${proto} >`, 'plain <']);
    }
  });

  test('a policy of the host, and a socket that bypasses it', () => {
    expect(a.setkey(`spdadd ${local} ${peer} any -P ${out};`)).toEqual([]);
    expect(a.setkey(`spdadd ${peer} ${local} any -P ${into};`)).toEqual([]);
    expect(a.ping(peer)).toBe(false);
    expect(a.ping(peer, ['out bypass'])).toBe(false);
    seen();
    expect(a.ping(peer, ['out bypass', 'in bypass'])).toBe(true);
    expect(seen()).toEqual(['plain >', 'plain <']);
  });

  test('a policy of the host that discards, and a socket that wants protection instead', () => {
    addSas();
    expect(a.setkey(`spdadd ${local} ${peer} any -P out discard;`)).toEqual([]);
    expect(a.ping(peer)).toBe(false);
    expect(a.ping(peer, [out])).toBe(true);
    expect(seen()).toEqual([`${proto} >`, 'plain <']);
  });

  test('no policies are left when the sockets are gone', () => {
    addSas();
    a.ping(peer, [out, into]);
    expect(a.host.sockets.size).toBe(0);
    expect(a.dumpPolicies()).toEqual([]);
  });
});
