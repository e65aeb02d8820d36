import { describe, expect, test } from 'vitest';
import type { Address } from '../../src/base/address.ts';
import { address, formatAddress } from '../../src/base/address.ts';
import type { Request } from '../../src/spd/policy.ts';
import { setU16 } from '../../src/wire/bytes.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { concat, counting, hex, ipv4Packet, ipv6Packet, udp } from '../wire/octets.ts';
import { endsOf, type LayerGiven, Pair } from './pair.ts';
import { policy, Rig, request, sa } from './rig.ts';

const ALL = '0.0.0.0/0';
const A = '10.0.0.1';
const B = '10.0.0.2';
const PLAIN = ipv4Packet({ protocol: 17 }, udp(counting(30)));
const esp: LayerGiven = {};
const ah: LayerGiven = { protocol: 'ah' };
const tunnel = (more: Parameters<typeof request>[0] = {}) =>
  request({ mode: 'tunnel', src: A, dst: B, ...more });

/** What B makes of what A sends through `layers`, under these requests. */
function judged(
  layers: readonly LayerGiven[],
  requests: readonly Request[],
  policyCheck: 'strict' | 'loose' = 'strict',
): string {
  const pair = new Pair(layers);
  pair.b.host.settings.policyCheck = policyCheck;
  pair.b.spd.flush();
  pair.b.spd.add(policy('in', ALL, ALL, { requests }));
  const wire = layers.length === 0 ? [PLAIN] : pair.a.output(PLAIN);
  return pair.b.input(...wire).length === 1 ? 'passes' : Object.keys(pair.b.drops()).join();
}

const MISMATCH = 'in policy-mismatch';
const CLEAR = 'in policy-clear';

describe('coming in: the SAs that were used must be those that the policy asks for (RFC 4301 §5.2)', () => {
  test.each([
    ['as asked', [esp], [request({})], 'passes'],
    ['another protocol', [ah], [request({})], MISMATCH],
    ['another mode', [{ tunnel: 4 as const }], [request({})], MISMATCH],
    ['another mode, the other way', [esp], [tunnel()], MISMATCH],
    ['in the clear', [], [request({})], CLEAR],
    ['in the clear, tunnel', [], [tunnel()], CLEAR],
    [
      'AH tunnel, required: works',
      [{ tunnel: 4 as const, protocol: 'ah' as const }],
      [tunnel({ protocol: 'ah' })],
      'passes',
    ],
    ['right ends', [{ tunnel: 4 as const }], [tunnel()], 'passes'],
    ['other ends', [{ tunnel: 4 as const }], [tunnel({ src: '10.0.0.9' })], MISMATCH],
    ['ends not given', [{ tunnel: 4 as const }], [request({ mode: 'tunnel' })], 'passes'],
    ['reqid', [{ reqid: 7 }], [request({ reqid: 7 })], 'passes'],
    ['other reqid', [{ reqid: 7 }], [request({ reqid: 8 })], MISMATCH],
    ['reqid 0 is any', [{ reqid: 7 }], [request({ reqid: 0 })], 'passes'],
    ['unique is require', [esp], [request({ level: 'unique', reqid: 1 })], 'passes'],
    ['unique, in the clear', [], [request({ level: 'unique', reqid: 1 })], CLEAR],
    ['use, in the clear', [], [request({ level: 'use' })], 'passes'],
    ['use, protected', [esp], [request({ level: 'use' })], 'passes'],
    ['both layers', [esp, ah], [request({}), request({ protocol: 'ah' })], 'passes'],
    [
      'both layers in the wrong order',
      [ah, esp],
      [request({}), request({ protocol: 'ah' })],
      MISMATCH,
    ],
    ['one of two', [esp], [request({}), request({ protocol: 'ah' })], MISMATCH],
    [
      'one of two, the other is use',
      [esp],
      [request({}), request({ protocol: 'ah', level: 'use' })],
      'passes',
    ],
    ['more transport than asked for', [esp, ah], [request({ protocol: 'ah' })], 'passes'],
    [
      'a tunnel that nobody asked for',
      [{ tunnel: 4 as const }, ah],
      [request({ protocol: 'ah' })],
      MISMATCH,
    ],
    ['no requests at all', [esp], [], 'in policy-empty'],
  ] as const)('%s', (_, layers, requests, verdict) => {
    expect(judged(layers, requests)).toBe(verdict);
  });

  test.each([
    ['some ESP is enough', [{ reqid: 7 }], [tunnel({ reqid: 8 })], 'passes'],
    ['but not AH', [ah], [request({})], MISMATCH],
    ['nor nothing', [], [request({})], CLEAR],
    ['use', [], [request({ level: 'use' })], 'passes'],
  ] as const)('loosely: %s', (_, layers, requests, verdict) => {
    expect(judged(layers, requests, 'loose')).toBe(verdict);
  });

  test('a policy that says none lets in what is clear or in transport mode, not what a tunnel brings', () => {
    for (const [layers, passes] of [
      [[esp], 1],
      [[{ tunnel: 4 as const }], 0],
    ] as const) {
      const pair = new Pair(layers);
      pair.b.spd.flush();
      pair.b.spd.add(policy('in', ALL, ALL, { type: 'none' }));
      expect(pair.b.input(...pair.a.output(PLAIN)).length).toBe(passes);
      expect(pair.b.input(PLAIN).length).toBe(1);
    }
  });

  test('a source that is not that of the SA: ESP does not cover it in transport mode', () => {
    const changed = (wire: Uint8Array) => {
      wire[15] = 99;
      ipv4.updateChecksum(wire, 0);
      return wire;
    };
    const pair = new Pair([esp]);
    expect(pair.b.input(changed(pair.a.output(PLAIN)[0]!))).toEqual([]);
    expect(pair.b.drops()).toEqual({ 'in policy-mismatch': 1 });
    pair.b.host.settings.policyCheck = 'loose';
    expect(pair.b.input(changed(pair.a.output(PLAIN)[0]!)).length).toBe(1);
    // One that is for all sources, and one behind a NAT.
    const anybody = new Pair([esp]);
    const inbound = [...anybody.b.sad.all()].find(({ spec }) => spec.spi === 0x1001)!;
    anybody.b.sad.update(inbound, { ...inbound.spec, src: address('0.0.0.0') });
    expect(anybody.b.input(changed(anybody.a.output(PLAIN)[0]!)).length).toBe(1);
    const nat = new Pair([{ encapsulation: { srcPort: 4500, dstPort: 4500 } }]);
    expect(nat.b.input(changed(nat.a.output(PLAIN)[0]!)).length).toBe(1);
  });

  test('a tunnel brings only what its policy covers', () => {
    const pair = new Pair([{ tunnel: 4 }]);
    pair.b.spd.flush();
    pair.b.spd.add(policy('in', '10.0.0.1/32', ALL, { requests: [tunnel()] }));
    const foreign = ipv4Packet({ protocol: 17, src: 99 }, udp(counting(4)));
    expect(pair.send(foreign).delivered).toEqual([]);
    expect(pair.b.drops()).toEqual({ 'in policy-unprotected-selector': 1 });
    expect(pair.send(PLAIN).delivered).toEqual([PLAIN]);
  });
});

describe('levels', () => {
  const SETTINGS = {
    esp: { transport: 'espTransDeflev', tunnel: 'espNetDeflev' },
    ah: { transport: 'ahTransDeflev', tunnel: 'ahNetDeflev' },
  } as const;
  for (const protocol of ['esp', 'ah'] as const) {
    for (const mode of ['transport', 'tunnel'] as const) {
      test(`default: the host's setting for ${protocol} in ${mode} mode, in both directions`, () => {
        const rig = new Rig();
        const one =
          mode === 'tunnel'
            ? tunnel({ protocol, level: 'default' })
            : request({ protocol, level: 'default' });
        for (const direction of ['in', 'out'] as const) {
          rig.spd.add(policy(direction, ALL, ALL, { requests: [one] }));
        }
        expect([rig.input(PLAIN).length, rig.output(PLAIN).length]).toEqual([1, 1]);
        rig.host.settings.inet[SETTINGS[protocol][mode]] = 'require';
        expect([rig.input(PLAIN).length, rig.output(PLAIN).length]).toEqual([0, 0]);
        rig.host.settings.inet[SETTINGS[protocol][mode]] = 'use';
        rig.host.settings.inet6[SETTINGS[protocol][mode]] = 'require';
        expect([rig.input(PLAIN).length, rig.output(PLAIN).length]).toEqual([1, 1]);
      });
    }
  }

  test('use: without an SA the layer is left out, and asked for', () => {
    const asked: string[] = [];
    const rig = new Rig({
      events: {
        acquire: (_, { protocol }, src, dst) => {
          asked.push(told(protocol, src, dst));
          return 'nobody';
        },
      },
    });
    rig.sad.add(sa({ spi: 0x1001, src: A, dst: B }), 'mature');
    const requests = [request({ level: 'use' }), request({ protocol: 'ah', level: 'use' })];
    rig.spd.add(policy('out', ALL, ALL, { requests }));
    expect(rig.output(PLAIN).map((p) => ipv4.protocol(p, 0))).toEqual([50]);
    expect(asked).toEqual(['ah 10.0.0.1 > 10.0.0.2']);
  });

  test('require: no SA, no packet; the addresses of the SA are announced', () => {
    const asked: string[] = [];
    const acquire = (_: unknown, { protocol }: Request, src: Address, dst: Address) => {
      asked.push(told(protocol, src, dst));
      return 'nobody' as const;
    };
    const rig = new Rig({ events: { acquire } });
    rig.spd.add(
      policy('out', '10.0.0.0/8', ALL, {
        requests: [tunnel({ src: '2001:db8::1', dst: '2001:db8::2' })],
      }),
    );
    expect(rig.output(PLAIN)).toEqual([]);
    expect(asked).toEqual(['esp 2001:db8::1 > 2001:db8::2']);
    expect(rig.host.stats.acquires).toBe(1);
    expect(rig.drops()).toEqual({ 'out no-sa': 1 });
  });

  function told(protocol: string, src: Address, dst: Address): string {
    return `${protocol} ${formatAddress(src)} > ${formatAddress(dst)}`;
  }
});

describe('which SA', () => {
  function sentWith(rig: Rig): number | undefined {
    const p = rig.output(PLAIN)[0];
    return p && (p[22]! << 8) | p[23]!;
  }

  function rigWith(...spis: number[]): Rig {
    const rig = new Rig();
    for (const spi of spis) rig.sad.add(sa({ spi, src: A, dst: B, reqid: spi & 15 }), 'mature');
    rig.spd.add(policy('out', ALL, ALL, { requests: [request({})] }));
    return rig;
  }

  test('the newest, or the oldest if the host is set so; a change works at once', () => {
    const rig = rigWith(0x1001, 0x1002, 0x1003);
    expect(sentWith(rig)).toBe(0x1003);
    rig.host.settings.preferOldSa = true;
    expect(sentWith(rig)).toBe(0x1001);
    rig.host.settings.preferOldSa = false;
    expect(sentWith(rig)).toBe(0x1003);
    rig.sad.remove([...rig.sad.all()][2]!);
    expect(sentWith(rig)).toBe(0x1002);
  });

  test('of the reqid that the policy asks for', () => {
    const rig = rigWith(0x1001, 0x1002, 0x1003);
    rig.spd.flush();
    rig.spd.add(policy('out', ALL, ALL, { requests: [request({ level: 'unique', reqid: 2 })] }));
    expect(sentWith(rig)).toBe(0x1002);
  });

  test('of the mode that the policy asks for; a mode of any serves both', () => {
    const rig = new Rig();
    rig.sad.add(sa({ spi: 0x1001, src: A, dst: B, mode: 'transport' }), 'mature');
    rig.spd.add(policy('out', ALL, ALL, { requests: [tunnel()] }));
    expect(sentWith(rig)).toBeUndefined();
    rig.sad.add(sa({ spi: 0x1002, src: A, dst: B, mode: 'any' }), 'mature');
    expect(sentWith(rig)).toBe(0x1002);
  });

  test('between the addresses of the packet, for each packet its own', () => {
    const rig = rigWith(0x1001);
    rig.sad.add(sa({ spi: 0x2001, src: '10.0.0.7', dst: B }), 'mature');
    const other = ipv4Packet({ protocol: 17, src: 7 }, udp(counting(30)));
    const spis = rig.output(PLAIN, other, PLAIN).map((p) => [endsOf(p), p[22]]);
    expect(spis).toEqual([
      [`${A} > ${B}`, 0x10],
      [`10.0.0.7 > ${B}`, 0x20],
      [`${A} > ${B}`, 0x10],
    ]);
  });

  test('a larval one is none', () => {
    const rig = new Rig();
    rig.sad.add(sa({ spi: 0x1001, src: A, dst: B }), 'larval');
    rig.spd.add(policy('out', ALL, ALL, { requests: [request({})] }));
    expect(sentWith(rig)).toBeUndefined();
  });
});

/** UDP from port to port, between the hosts or from somebody behind them. */
function datagram(sport: number, dport: number, src = 1): Uint8Array {
  const data = udp(concat(hex('00000000'), counting(20)));
  setU16(data, 0, sport);
  setU16(data, 2, dport);
  return ipv4Packet({ protocol: 17, src }, data);
}

describe('what protection depends on is not protected itself', () => {
  function rigFor(requests: readonly Request[], more: object = {}): Rig {
    const rig = new Rig({ settings: { encapsulationPorts: [4500, 5555] } });
    for (const direction of ['in', 'out'] as const) {
      rig.spd.add(policy(direction, ALL, ALL, { requests, ...more }));
    }
    return rig;
  }

  test.each([500, 4500, 5555])('IKE on our port %i, whatever port the peer has', (port) => {
    for (const requests of [[request({})], [tunnel()]]) {
      const rig = rigFor(requests);
      expect(rig.output(datagram(port, 1234)).length).toBe(1);
      expect(rig.input(datagram(1234, port)).length).toBe(1);
      // With the peer's port anybody could get past the policy to any service of ours.
      expect(rig.input(datagram(port, 1234)).length).toBe(0);
      expect(rig.output(datagram(1234, port)).length).toBe(0);
    }
  });

  test('between the ends only: what a tunnel protects for others is not IKE of ours', () => {
    const rig = rigFor([tunnel()]);
    expect(rig.output(datagram(500, 500, 77)).length).toBe(0);
    expect(rig.input(datagram(500, 500, 77)).length).toBe(0);
  });

  test.each([
    { protocol: 17, sport: 500 },
    { protocol: 17, dport: 500 },
  ])('unless the policy names them: %j', (selector) => {
    const rig = rigFor([request({})], selector);
    expect(rig.output(datagram(500, 500)).length).toBe(0);
    expect(rig.input(datagram(500, 500)).length).toBe(0);
  });

  test('a fragmented datagram of IKE is exempt as a whole', () => {
    const whole = datagram(500, 500);
    const first = ipv4Packet({ protocol: 17, id: 5, flags: ipv4.FLAG_MF }, whole.slice(20, 36));
    const later = ipv4Packet({ protocol: 17, id: 5, offset: 16 }, whole.slice(36));
    for (const requests of [[request({})], [tunnel()]]) {
      const rig = rigFor(requests);
      expect(rig.output(first)).toEqual([]);
      expect(rig.output(later).map((p) => p.length)).toEqual([whole.length]);
    }
  });

  test('neighbour discovery, but no other ICMPv6', () => {
    const rig = new Rig();
    for (const direction of ['in', 'out'] as const) {
      rig.spd.add(policy(direction, '::/0', '::/0', { requests: [request({})] }));
    }
    for (let type = 130; type < 140; type++) {
      const p = ipv6Packet(58, Uint8Array.of(type, 0, 0, 0), counting(20));
      const passes = type >= 133 && type <= 137 ? 1 : 0;
      expect([rig.output(p).length, rig.input(p).length]).toEqual([passes, passes]);
    }
  });

  test('a policy that says discard is obeyed', () => {
    const rig = rigFor([], { type: 'discard' });
    expect(rig.output(datagram(500, 500)).length).toBe(0);
  });
});

describe('no policy', () => {
  test('def_policy discard drops; loopback and neighbour discovery pass', () => {
    const rig = new Rig();
    rig.host.settings.inet.defPolicy = 'discard';
    rig.host.settings.inet6.defPolicy = 'discard';
    const loopback = ipv4Packet({ protocol: 17 }, udp(counting(3)));
    loopback.set([127, 0, 0, 1, 127, 0, 0, 1], ipv4.SRC_AT);
    ipv4.updateChecksum(loopback, 0);
    const loopback6 = ipv6Packet(17, udp(counting(3)));
    loopback6.fill(0, 8, 40);
    loopback6[23] = 1;
    loopback6[39] = 1;
    const discovery = ipv6Packet(58, Uint8Array.of(135, 0, 0, 0), counting(20));
    expect(rig.output(PLAIN, loopback, loopback6, discovery)).toEqual([
      loopback,
      loopback6,
      discovery,
    ]);
    expect(rig.input(PLAIN, loopback, loopback6, discovery)).toEqual([
      loopback,
      loopback6,
      discovery,
    ]);
  });

  test('def_policy discard lets in what is authentic, in transport mode', () => {
    const pair = new Pair([{}]);
    pair.b.spd.flush();
    pair.b.host.settings.inet.defPolicy = 'discard';
    expect(pair.send(PLAIN).delivered).toEqual([PLAIN]);
  });

  test('IPsec between others passes inside a tunnel', () => {
    const theirs = ipv4Packet({ protocol: 50 }, counting(60));
    const inUdp = datagram(4500, 4500, 9);
    inUdp.set(hex('deadbeef'), 28);
    const keepalive = ipv4Packet({ protocol: 17, src: 9 }, hex('1194 1194 0009 0000 ff'));
    const pair = new Pair([{ tunnel: 4 }]);
    for (const packet of [theirs, inUdp, keepalive]) {
      expect(pair.send(packet).delivered).toEqual([packet]);
    }
  });
});

test('a policy notes when it was last used', () => {
  const rig = new Rig();
  const one = rig.spd.add(policy('out', ALL, ALL, { type: 'none', idleSeconds: 10 }));
  rig.env.advance(9_000);
  rig.output(PLAIN);
  rig.env.advance(9_000);
  rig.host.poll(rig.env.clock.monotonicMs());
  expect(rig.spd.get(one.id)).toBe(one);
  rig.env.advance(1_000);
  rig.host.poll(rig.env.clock.monotonicMs());
  expect(rig.gone).toEqual([one]);
});
