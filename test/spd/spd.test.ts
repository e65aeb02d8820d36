import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addressFrom, prefixHas } from '../../src/base/address.ts';
import { PORT_ANY, type Policy, type PolicySpec, PROTOCOL_ANY } from '../../src/spd/policy.ts';
import { Spd } from '../../src/spd/spd.ts';
import { setU16 } from '../../src/wire/bytes.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { policy, testEnv } from '../engine/rig.ts';
import {
  concat,
  counting,
  fragmentHeader,
  hex,
  ipv4Packet,
  ipv6Packet,
  udp,
} from '../wire/octets.ts';

const ALL = '0.0.0.0/0';

function table(policyMax = 1000) {
  const env = testEnv();
  const gone: Policy[] = [];
  const spd = new Spd({ clock: env.clock, policyMax, expired: (one) => gone.push(one) });
  return { env, spd, gone };
}

function lookup(spd: Spd, p: Uint8Array, direction: 'in' | 'out' | 'fwd' = 'out') {
  const cursor = new Cursor();
  expect(decode(p, 0, p.length, cursor)).toBeUndefined();
  return spd.lookup(direction, p, cursor);
}

/** 10.x.y.1 and so on, so that policies of the same direction differ. */
function net(i: number, more: Parameters<typeof policy>[3] = {}): PolicySpec {
  return policy('out', `10.0.${i}.0/24`, ALL, more);
}

function order(spd: Spd): string[] {
  return spd
    .list('out')
    .map(({ selector, priority }) => `${selector.src.address.bytes[2]}:${priority}`);
}

describe('the order', () => {
  test('by priority, then by arrival', () => {
    const { spd } = table();
    for (const [i, priority] of [
      [1, 5],
      [2, 0],
      [3, 5],
      [4, 0xffff_ffff],
      [5, 0],
      [6, 3],
    ] as const) {
      spd.add(net(i, { priority }));
    }
    expect(order(spd)).toEqual(['2:0', '5:0', '6:3', '1:5', '3:5', '4:4294967295']);
  });

  test('an update keeps id and place; another priority has its own place', () => {
    const { spd } = table();
    const all = [1, 2, 3].map((i) => spd.add(net(i)));
    const updated = spd.update(net(2, { type: 'discard' }));
    expect([updated.id, updated.type]).toEqual([all[1]!.id, 'discard']);
    expect(order(spd)).toEqual(['1:0', '2:0', '3:0']);
    expect(spd.get(all[1]!.id)).toBe(updated);
    expect(lookup(spd, from(2))).toBe(updated);
    const moved = spd.update(net(1, { priority: 7 }));
    expect([moved.id, order(spd)]).toEqual([all[0]!.id, ['2:0', '3:0', '1:7']]);
    expect(spd.update(net(9)).id).not.toBe(all[2]!.id);
    expect(spd.size).toBe(4);
  });
});

/** UDP from a network of `net`. */
function from(i: number): Uint8Array {
  const p = ipv4Packet({ protocol: 17 }, udp(counting(4)));
  p.set([10, 0, i, 1], ipv4.SRC_AT);
  return p;
}

describe('the table', () => {
  test('one policy for a direction and selector; the same may be there for the other direction', () => {
    const { spd } = table();
    const one = spd.add(net(1));
    expect(() => spd.add(net(1, { priority: 4 }))).toThrow(
      /policy 16384 has the selector 10.0.1.0\/24/,
    );
    spd.add({ ...net(1), direction: 'in' });
    expect(spd.find('out', one.selector)).toBe(one);
    expect(spd.find('fwd', one.selector)).toBeUndefined();
  });

  test('ids: given ones are kept, others are above them and never those in use', () => {
    const { spd } = table();
    expect(spd.add(net(1), 7).id).toBe(7);
    expect(spd.add(net(2), 16_385).id).toBe(16_385);
    expect([spd.add(net(3)).id, spd.add(net(4)).id]).toEqual([16_384, 16_386]);
    expect(() => spd.add(net(5), 7)).toThrow(/id 7 is in use/);
  });

  test('has an end', () => {
    const { spd } = table(2);
    spd.add(net(1));
    spd.add(net(2));
    expect(() => spd.add(net(3))).toThrow(/2/);
    expect(spd.flush()).toBe(2);
    expect([spd.size, spd.list('out')]).toEqual([0, []]);
    spd.add(net(3));
  });

  test('a policy is removed once', () => {
    const { spd } = table();
    const one = spd.add(net(1));
    spd.add(net(2));
    spd.remove(one);
    expect(() => spd.remove(one)).toThrow(/in the table/);
    expect(order(spd)).toEqual(['2:0']);
  });

  test('lifetimes: since it was added, and since it was last used', () => {
    const { env, spd, gone } = table();
    const now = env.clock.monotonicMs();
    const brief = spd.add(net(1, { lifetimeSeconds: 10 }));
    const idle = spd.add(net(2, { idleSeconds: 6 }));
    expect(spd.poll(now)).toBe(now + 6_000);
    env.advance(5_000);
    spd.used(idle, env.clock.monotonicMs(), env.clock.wallMs());
    spd.used(brief, env.clock.monotonicMs(), env.clock.wallMs());
    expect(spd.poll(now + 6_000)).toBe(now + 10_000);
    expect(spd.poll(now + 10_000)).toBe(now + 11_000);
    expect(gone).toEqual([brief]);
    expect(spd.poll(now + 11_000)).toBe(Number.POSITIVE_INFINITY);
    expect(gone).toEqual([brief, idle]);
  });
});

describe('lookup', () => {
  test('loopback traffic is covered only by policies that name it', () => {
    const { spd } = table();
    spd.add(policy('out', ALL, ALL, { type: 'discard' }));
    spd.add(policy('out', '::/0', '::/0', { type: 'discard' }));
    const p = from(1);
    p.set([127, 0, 0, 1], ipv4.DST_AT);
    expect(lookup(spd, p)).toBe('none');
    const p6 = ipv6Packet(17, udp(counting(4)));
    p6.fill(0, 24, 40);
    p6[39] = 1;
    expect(lookup(spd, p6)).toBe('none');
    const named = spd.add(policy('out', ALL, '127.0.0.0/8', { type: 'none' }));
    const named6 = spd.add(policy('out', '::/0', '::1/128', { type: 'none' }));
    expect([lookup(spd, p), lookup(spd, p6)]).toEqual([named, named6]);
  });

  test('directions are apart', () => {
    const { spd } = table();
    const one = spd.add(policy('fwd', ALL, ALL));
    expect([lookup(spd, from(1), 'fwd'), lookup(spd, from(1), 'in')]).toEqual([one, 'none']);
  });

  test('ICMP: type and code stand for ports', () => {
    const { spd } = table();
    const echo = spd.add(policy('out', ALL, ALL, { protocol: 1, sport: 8, dport: 0 }));
    const any = spd.add(policy('out', ALL, ALL, { protocol: 1 }));
    const icmp = (type: number) =>
      ipv4Packet({ protocol: 1 }, Uint8Array.of(type, 0, 0, 0, 0, 0, 0, 0));
    expect([lookup(spd, icmp(8)), lookup(spd, icmp(0))]).toEqual([echo, any]);
  });

  test('a packet cut off before its ports does not match a policy with ports', () => {
    const { spd } = table();
    spd.add(policy('out', ALL, ALL, { protocol: 17, dport: 2000 }));
    const rest = spd.add(policy('out', ALL, ALL));
    expect(lookup(spd, ipv4Packet({ protocol: 17 }, counting(3)))).toBe(rest);
  });

  test('all fragments of a datagram get the same answer, also the first, which has ports', () => {
    const { spd } = table();
    const first = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_MF }, udp(counting(8)));
    const later = ipv4Packet({ protocol: 17, offset: 16 }, counting(8));
    const tcp = spd.add(policy('out', ALL, ALL, { protocol: 6 }));
    const rest = spd.add(policy('out', '10.0.0.0/8', ALL));
    expect([lookup(spd, first), lookup(spd, later)]).toEqual([rest, rest]);
    spd.update({ ...tcp, selector: { ...tcp.selector } });
    spd.add(policy('out', ALL, ALL, { protocol: 17, dport: 2000, priority: 0 }));
    expect([lookup(spd, first), lookup(spd, later)]).toEqual([rest, rest]);
    spd.remove(rest);
    expect([lookup(spd, first), lookup(spd, later)]).toEqual(['ports-unknown', 'ports-unknown']);
    const otherPort = ipv4Packet(
      { protocol: 17, flags: ipv4.FLAG_MF },
      concat(hex('00010001 00100000'), counting(8)),
    );
    expect(lookup(spd, otherPort)).toBe('ports-unknown');
  });

  test('IPv6 fragments that name an extension header: the protocol is not known yet', () => {
    const { spd } = table();
    const data = concat(hex('1100 010400000000'), udp(counting(8)));
    const first = ipv6Packet(44, fragmentHeader(60, 0, 1, 1), data);
    const later = ipv6Packet(44, fragmentHeader(60, 24, 0, 1), counting(8));
    const all = spd.add(policy('out', '::/0', '::/0', { priority: 9 }));
    expect([lookup(spd, first), lookup(spd, later)]).toEqual([all, all]);
    spd.add(policy('out', '::/0', '::/0', { protocol: 17 }));
    expect([lookup(spd, first), lookup(spd, later)]).toEqual(['ports-unknown', 'ports-unknown']);
  });
});

const anyPrefix = fc
  .tuple(
    fc.constantFrom('10.0.0.1', '10.0.3.7', '10.128.0.1', '192.0.2.1'),
    fc.constantFrom(0, 1, 7, 8, 9, 16, 23, 30, 31, 32),
  )
  .map(([text, length]) => `${text}/${length}`);
const anyPolicy = fc
  .record({
    src: anyPrefix,
    dst: anyPrefix,
    protocol: fc.constantFrom(PROTOCOL_ANY, 6, 17),
    sport: fc.constantFrom(PORT_ANY, PORT_ANY, 1, 2),
    dport: fc.constantFrom(PORT_ANY, PORT_ANY, 1, 2),
    priority: fc.nat(2),
  })
  .map(({ src, dst, ...more }) => policy('out', src, dst, more));
const anyPacket = fc
  .tuple(
    fc.constantFrom(6, 17, 47),
    fc.constantFrom(1, 2),
    fc.constantFrom(1, 2),
    fc.array(fc.constantFrom([10, 0, 0, 1], [10, 0, 3, 6], [10, 127, 255, 255], [192, 0, 2, 0]), {
      minLength: 2,
      maxLength: 2,
    }),
  )
  .map(([protocol, sport, dport, ends]) => {
    const data = new Uint8Array(20);
    setU16(data, 0, sport);
    setU16(data, 2, dport);
    const p = ipv4Packet({ protocol }, data);
    p.set(ends.flat(), ipv4.SRC_AT);
    return p;
  });

test('finds what the dumbest search finds', () => {
  fc.assert(
    fc.property(
      fc.array(anyPolicy, { maxLength: 12 }),
      fc.array(anyPacket, { minLength: 1, maxLength: 8 }),
      (specs, packets) => {
        const { spd } = table();
        const arrived = specs
          .map((spec) => spd.update(spec))
          .filter((one) => spd.get(one.id) === one);
        const cursor = new Cursor();
        for (const p of packets) {
          decode(p, 0, p.length, cursor);
          const matching = arrived.filter(({ selector: { src, dst, protocol, sport, dport } }) => {
            const portless = cursor.protocol === 47;
            return (
              prefixHas(src, addressFrom(4, p, cursor.srcAt)) &&
              prefixHas(dst, addressFrom(4, p, cursor.dstAt)) &&
              (protocol === PROTOCOL_ANY || protocol === cursor.protocol) &&
              (sport === PORT_ANY || sport === (portless ? 0 : cursor.sport)) &&
              (dport === PORT_ANY || dport === (portless ? 0 : cursor.dport))
            );
          });
          const found = spd.lookup('out', p, cursor);
          const list = spd.list('out');
          const expected = matching.sort(
            (a, b) => a.priority - b.priority || list.indexOf(a) - list.indexOf(b),
          )[0];
          expect(found).toBe(expected ?? 'none');
        }
      },
    ),
    { numRuns: 300 },
  );
});
