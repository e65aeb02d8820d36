import { describe, expect, test } from 'vitest';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { changes } from './counters.ts';
import { mtuNamed, Network, type Wire } from './network.ts';
import type { Node } from './node.ts';
import { datagramOf } from './octets.ts';

/**
 * The rows of Linux's tools/testing/selftests/net/pmtu.sh that are about IPsec, told for tunnels
 * and transport mode instead of vti devices: no exception while a packet fits, then the right one,
 * which follows the narrow link. test/hosts/pmtu.test.ts shows the same with real routers and TCP.
 *
 *     left --- gwl --- r1 --- r2 --- gwr --- right
 *         1500    1500   1300    1500   1500
 */

type Family = 4 | 6;

const NARROW = 1300;
const HOST = { 4: ['10.1.0.2', '10.2.0.2'], 6: ['fd01::2', 'fd02::2'] } as const;
const GATEWAY = { 4: ['10.9.0.1', '10.7.0.1'], 6: ['fd09::1', 'fd07::1'] } as const;
/** Where the outer of two tunnels ends. */
const MIDDLE = { 4: '10.8.0.2', 6: 'fd08::2' } as const;
const KEY = `0x${'17e4b0d98a5c362f'.repeat(2)}c0ffee01`;

interface Case {
  readonly mode: 'tunnel' | 'transport' | 'nested';
  readonly inner: Family;
  readonly outer: Family;
  readonly udp?: boolean;
  /** The largest packet that the sender is told of. */
  readonly largest: number;
}

interface World {
  readonly network: Network;
  readonly gwl: Node;
  /** Who sends and who gets it, and from where to where. */
  readonly from: Node;
  readonly to: Node;
  readonly ends: readonly [string, string];
  readonly narrow: Wire;
}

function world(one: Case): World {
  const network = new Network();
  const node = (...addresses: string[]) => network.node(addresses);
  const left = node(HOST[4][0], HOST[6][0]);
  const gwl = node(GATEWAY[4][0], GATEWAY[6][0], '10.1.0.1', 'fd01::1');
  const r1 = node('10.9.0.2', 'fd09::2');
  const r2 = node(MIDDLE[4], MIDDLE[6]);
  const gwr = node(GATEWAY[4][1], GATEWAY[6][1], '10.2.0.1', 'fd02::1');
  const right = node(HOST[4][1], HOST[6][1]);
  network.wire(left, gwl);
  network.wire(gwl, r1);
  const narrow = network.wire(r1, r2, NARROW);
  network.wire(r2, gwr);
  network.wire(gwr, right);
  for (const gateway of [gwl, r2, gwr]) gateway.host.settings.dfbit = 'copy';
  gwl.configure(config(one, 'out', 'in', true));
  gwr.configure(config(one, 'in', 'out', false));
  if (one.mode === 'nested') r2.configure(outerTunnel(one, 'in'));
  const [from, to] = one.mode === 'transport' ? [gwl, gwr] : [left, right];
  // So that nobody says that nobody listens.
  to.inet.openUdp(2000, () => {});
  return { network, gwl, narrow, ends: endsOf(one), from, to };
}

function endsOf({ mode, inner }: Case): readonly [string, string] {
  return mode === 'transport' ? GATEWAY[inner] : HOST[inner];
}

function config(one: Case, there: string, back: string, isLeft: boolean): string {
  const { mode, outer, udp = false } = one;
  const [left, right] = GATEWAY[outer];
  const [from, to] = endsOf(one);
  const port = udp ? '[4500]' : '';
  const args = `-m ${mode === 'transport' ? mode : 'tunnel'} -u 1 -E aes-gcm-16 ${KEY}`;
  const protocol = udp ? 'esp-udp' : 'esp';
  const rule = (a: string, b: string) =>
    mode === 'transport' ? 'esp/transport//unique:1' : `esp/tunnel/${a}-${b}/unique:1`;
  const nested = mode === 'nested' && isLeft;
  const more = nested ? `esp/tunnel/${left}-${MIDDLE[outer]}/unique:2` : '';
  return `
    add ${left}${port} ${right}${port} ${protocol} 0x1001 ${args};
    add ${right}${port} ${left}${port} ${protocol} 0x1002 ${args};
    spdadd ${from} ${to} any -P ${there} ipsec ${rule(left, right)} ${more};
    spdadd ${to} ${from} any -P ${back} ipsec ${rule(right, left)};
    ${nested ? outerTunnel(one, 'sas') : ''}`;
}

/** The tunnel around the tunnel, from the left gateway to the second router. */
function outerTunnel({ outer }: Case, what: 'sas' | 'in'): string {
  const [left, right] = [GATEWAY[outer][0], MIDDLE[outer]];
  const sas = `add ${left} ${right} esp 0x2001 -m tunnel -u 2 -E aes-gcm-16 ${KEY};`;
  if (what === 'sas') return sas;
  return `${sas}
    spdadd ${left} ${GATEWAY[outer][1]} any -P in ipsec esp/tunnel/${left}-${right}/unique:2;`;
}

/** Sends a datagram that must stay whole: how much arrived, and what the sender was told. */
function send(at: World, len: number): { arrived: number[]; told: (number | undefined)[] } {
  at.to.received.length = 0;
  at.from.received.length = 0;
  at.from.send(datagramOf(at.ends[0], at.ends[1], len, ipv4.FLAG_DF));
  const { received: arrived } = at.to;
  return { arrived: arrived.map((p) => p.length), told: at.from.received.map(mtuNamed) };
}

const CASES: readonly (readonly [string, Case])[] = [
  ['pmtu_vti4_exception', { mode: 'tunnel', inner: 4, outer: 4, largest: 1246 }],
  ['pmtu_vti6_exception', { mode: 'tunnel', inner: 6, outer: 6, largest: 1280 }],
  ['pmtu_vti4_udp_exception', { mode: 'tunnel', inner: 4, outer: 4, udp: true, largest: 1238 }],
  ['pmtu_vti6_udp_exception', { mode: 'tunnel', inner: 6, outer: 6, udp: true, largest: 1280 }],
  ['IPv4 in a tunnel of IPv6', { mode: 'tunnel', inner: 4, outer: 6, largest: 1226 }],
  ['IPv6 in a tunnel of IPv4', { mode: 'tunnel', inner: 6, outer: 4, largest: 1280 }],
  ['transport mode, IPv4', { mode: 'transport', inner: 4, outer: 4, largest: 1266 }],
  ['transport mode, IPv6', { mode: 'transport', inner: 6, outer: 6, largest: 1280 }],
  [
    'ESP in UDP, transport mode',
    { mode: 'transport', inner: 4, outer: 4, udp: true, largest: 1258 },
  ],
  ['a tunnel in a tunnel, IPv4', { mode: 'nested', inner: 4, outer: 4, largest: 1190 }],
  ['a tunnel in a tunnel, IPv4 in IPv6', { mode: 'nested', inner: 4, outer: 6, largest: 1150 }],
];

describe.each(CASES)('%s', (_, one) => {
  const { largest, inner, mode } = one;
  const LARGE = 1380;

  test('no exception while packets fit, then the right one', () => {
    const at = world(one);
    const fits = Math.min(largest, mode === 'transport' || inner === 4 ? largest : 1200) - 80;
    expect(send(at, fits)).toEqual({ arrived: [fits], told: [] });
    expect([at.gwl.host.paths, at.gwl.host.stats.dropped('in')]).toEqual([[], []]);

    // The first is lost, and the gateway learns from it; of the second its sender is told.
    const found = changes(at.gwl, () => {
      expect(send(at, LARGE)).toEqual({ arrived: [], told: [] });
    });
    expect(found['esp.output']).toBe(mode === 'nested' ? 2 : 1);
    expect(at.gwl.host.paths.map(({ mtu }) => mtu)).toEqual([NARROW]);
    expect(send(at, LARGE)).toEqual({ arrived: [], told: [largest] });

    expect(send(at, largest)).toEqual({ arrived: [largest], told: [] });
    expect(send(at, largest + 1)).toEqual({ arrived: [], told: [largest] });
    expect(at.gwl.host.stats.dropped('in')).toEqual([['icmp-path-mtu', 1]]);
    expect(at.gwl.host.stats.dropped('out')).toEqual([['too-big', 2]]);
  });

  test('the exception follows the link, down at once and up when it is forgotten', () => {
    const at = world(one);
    send(at, LARGE);
    at.narrow.mtu = 1290;
    // IPv6 packets of 1280 octets are cut, so that nothing is too big any more.
    const told = inner === 6 ? 1280 : largest - 10 - ((largest - 10 + 2) % 4);
    at.network.advance(1);
    send(at, inner === 6 ? LARGE : largest);
    if (inner === 6) at.gwl.host.poll(at.network.env.clock.monotonicMs());
    else expect(at.gwl.host.paths.map(({ mtu }) => mtu)).toEqual([1290]);
    expect(send(at, LARGE).told).toEqual([told]);
    at.narrow.mtu = 1500;
    expect(send(at, LARGE)).toEqual({ arrived: [], told: [told] });
    at.network.advance(601);
    expect(at.gwl.host.paths).toEqual([]);
    expect(send(at, LARGE)).toEqual({ arrived: [LARGE], told: [] });
  });
});

describe('what the wire of the gateway itself does not carry', () => {
  const direct = (family: Family): World => {
    const at = world({ mode: 'tunnel', inner: family, outer: family, largest: 0 });
    at.narrow.mtu = 1500;
    return at;
  };

  test('pmtu_vti4_default_mtu', () => {
    const at = direct(4);
    const overhead = 20 + 8 + 8 + 16;
    // Up to the boundary of 4 octets, two of them ESP's trailer.
    const largest = 1500 - overhead - 2 - ((1500 - overhead) % 4);
    expect(send(at, 1500)).toEqual({ arrived: [], told: [largest] });
    expect(send(at, largest)).toEqual({ arrived: [largest], told: [] });
    expect(send(at, largest + 1)).toEqual({ arrived: [], told: [largest] });
  });

  test('pmtu_vti6_default_mtu', () => {
    // A header of IPv6 has no DF: the gateway, which is its source, cuts it. A kernel behind it
    // does not let it come to that, as its device has the smaller MTU (test/hosts/daemon.test.ts).
    const at = direct(6);
    expect(send(at, 1500)).toEqual({ arrived: [1500], told: [] });
    expect(at.gwl.host.stats.fragmentsMade).toBe(2);
  });
});
