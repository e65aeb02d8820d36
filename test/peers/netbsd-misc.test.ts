import { beforeEach, describe, expect, test } from 'vitest';
import { Bus, type Node } from './node.ts';

/**
 * NetBSD's tests/net/ipsec/t_ipsec_misc.sh, told again for hosts of ours: two nodes on a bus, what
 * setkey is told, and what is seen on the wire afterwards. Time is simulated, so the rows that
 * NetBSD skips because they are not reliable there (PR 55632) run here.
 */

const CIPHER = '-E aes-cbc "0123456789012345"';
const MAC = '-A hmac-sha1 "01234567890123456789"';

interface Kind {
  readonly name: string;
  readonly proto: 'esp' | 'ah';
  readonly alg: string;
  readonly local: string;
  readonly peer: string;
  readonly other: string;
  readonly any: string;
}

const KINDS: readonly Kind[] = (['esp', 'ah'] as const).flatMap((proto) => {
  const alg = proto === 'esp' ? CIPHER : MAC;
  const v4 = { local: '10.0.0.1', peer: '10.0.0.2', other: '10.0.0.3', any: '0.0.0.0/0' };
  const v6 = { local: 'fd00::1', peer: 'fd00::2', other: 'fd00::3', any: '::/0' };
  return [
    { name: `ipsec_misc ipv4 ${proto}`, proto, alg, ...v4 },
    { name: `ipsec_misc ipv6 ${proto}`, proto, alg, ...v6 },
  ];
});

describe.each(KINDS)('$name', ({ proto, alg, local, peer, other, any }) => {
  let bus: Bus;
  let a: Node;
  let b: Node;

  beforeEach(() => {
    bus = new Bus();
    a = bus.add(local);
    b = bus.add(peer, other);
  });

  /** On both nodes, which must take it. */
  function both(script: string): void {
    for (const node of [a, b]) expect(node.setkey(script)).toEqual([]);
  }

  function addPair(spi: number, extra = '', to = peer): void {
    both(
      `add ${local} ${to} ${proto} ${spi} ${extra} ${alg};` +
        `add ${to} ${local} ${proto} ${spi + 1} ${extra} ${alg};`,
    );
  }

  /** As NetBSD's: each node protects what it sends, and nobody demands it of what comes. */
  function protectBoth(): void {
    const rule = `-P out ipsec ${proto}/transport//require;`;
    expect(a.setkey(`spdadd ${local} ${peer} any ${rule}`)).toEqual([]);
    expect(b.setkey(`spdadd ${peer} ${local} any ${rule}`)).toEqual([]);
  }

  /** A ping there and back, and with which SPIs. */
  function expectPing(spi: number, to = peer): void {
    bus.take();
    expect(a.ping(to)).toBe(true);
    expect(bus.take()).toEqual([
      { from: local, to, what: proto, spi },
      { from: to, to: local, what: proto, spi: spi + 1 },
    ]);
  }

  test('lifetime: SAs that nobody used vanish', () => {
    addPair(10000, '-lh 3 -ls 3');
    expect(a.dumpSas()).toHaveLength(2);
    bus.advance(2.9);
    expect(a.dumpSas()).toHaveLength(2);
    bus.advance(0.1);
    expect([a.dumpSas(), b.dumpSas()]).toEqual([[], []]);
    addPair(10000, '-lh 1 -ls 1');
    bus.advance(1);
    expect(a.dumpSas()).toEqual([]);
  });

  test('lifetime: SAs in use vanish, and then nothing goes out', () => {
    addPair(10000, '-lh 3 -ls 3');
    protectBoth();
    expectPing(10000);
    bus.advance(3);
    expect([a.dumpSas(), b.dumpSas()]).toEqual([[], []]);
    expect(a.ping(peer)).toBe(false);
    expect(bus.take()).toEqual([]);
  });

  test('lifetime: after soft an SA goes on, dying, until hard', () => {
    addPair(10000, '-lh 10 -ls 4');
    protectBoth();
    bus.advance(4);
    expect(a.dumpSas().every((one) => one.includes('state=dying'))).toBe(true);
    expectPing(10000);
    bus.advance(5.9);
    expectPing(10000);
    bus.advance(0.1);
    expect(a.dumpSas()).toEqual([]);
  });

  test('update_sa: an SA that is updated goes on', () => {
    addPair(10000);
    protectBoth();
    both(
      `update ${local} ${peer} ${proto} 10000 ${alg};` +
        `update ${peer} ${local} ${proto} 10001 ${alg};`,
    );
    expectPing(10000);
  });

  test('update_sp: a policy that is updated goes on', () => {
    addPair(10000);
    protectBoth();
    const rule = `-P out ipsec ${proto}/transport//require;`;
    expect(a.setkey(`spdupdate ${local} ${peer} any ${rule}`)).toEqual([]);
    expect(b.setkey(`spdupdate ${peer} ${local} any ${rule}`)).toEqual([]);
    expectPing(10000);
    expect(a.dumpPolicies()).toHaveLength(1);
  });

  test('getspi: an SPI that was reserved gets its keys by update', () => {
    both(`getspi ${local} ${peer} ${proto} 10000; getspi ${peer} ${local} ${proto} 10001;`);
    expect(a.dumpSas().every((one) => one.includes('state=larval'))).toBe(true);
    protectBoth();
    expect(a.ping(peer)).toBe(false);
    both(
      `update ${local} ${peer} ${proto} 10000 ${alg};` +
        `update ${peer} ${local} ${proto} 10001 ${alg};`,
    );
    expectPing(10000);
  });

  describe.each(['delete', 'timeout'] as const)('spi, SAs end by %s', (method) => {
    function addThree(preferOld: boolean): void {
      for (const node of [a, b]) node.host.settings.preferOldSa = preferOld;
      protectBoth();
      const limits = method === 'timeout' ? { 10010: '-lh 6 -ls 6', 10020: '-lh 3 -ls 3' } : {};
      addPair(10000);
      expectPing(10000);
      addPair(10010, limits[10010]);
      expectPing(preferOld ? 10000 : 10010);
      addPair(10020, limits[10020]);
      expectPing(preferOld ? 10000 : 10020);
    }

    function end(spi: 10010 | 10020): void {
      if (method === 'timeout') return bus.advance(3);
      both(`delete ${local} ${peer} ${proto} ${spi};delete ${peer} ${local} ${proto} ${spi + 1};`);
    }

    test('sp_prefer_new: the newest, and when it ends the one before it', () => {
      addThree(false);
      end(10020);
      expectPing(10010);
      end(10010);
      expectPing(10000);
      expect(a.dumpSas()).toHaveLength(2);
    });

    test('sp_prefer_old: the oldest, whatever comes and goes', () => {
      addThree(true);
      end(10020);
      expectPing(10000);
      end(10010);
      expectPing(10000);
      expect(a.dumpSas()).toHaveLength(2);
    });
  });

  test('nosa: policies without SAs let nothing out and nothing in', () => {
    const rule = (direction: string) => `-P ${direction} ipsec ${proto}/transport//require;`;
    for (const [node, from, to] of [
      [a, local, peer],
      [b, peer, local],
    ] as const) {
      const script = `spdadd ${from} ${to} any ${rule('out')}spdadd ${to} ${from} any ${rule('in')}`;
      expect(node.setkey(script)).toEqual([]);
    }
    expect(a.ping(peer)).toBe(false);
    expect(bus.take()).toEqual([]);
    expect(a.host.stats.drops.out['no-sa']).toBe(1);
  });

  test('multiple_sa: one policy for many peers takes the SA of each', () => {
    const script = `spdadd ${local} ${any} any -P out ipsec ${proto}/transport//require;`;
    expect(a.setkey(script)).toEqual([]);
    for (const to of [peer, other]) {
      const back = `spdadd ${to} ${local} any -P out ipsec ${proto}/transport//require;`;
      expect(b.setkey(back)).toEqual([]);
    }
    expect([a.ping(peer), a.ping(other)]).toEqual([false, false]);
    addPair(10000);
    expectPing(10000);
    expect(a.ping(other)).toBe(false);
    addPair(10010, '', other);
    expectPing(10010, other);
    expectPing(10000);
    // No address of a packet was written into the policy.
    expect(a.dumpPolicies()[0]).toContain(`${proto}/transport//require`);
  });
});
