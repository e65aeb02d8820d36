import { describe, expect, test } from 'vitest';
import { concat } from '../wire/octets.ts';
import { Network, type Wire } from './network.ts';
import type { Node } from './node.ts';
import { packetOf, TCP, tcpData, tcpSegment } from './octets.ts';

/**
 * NetBSD's tests/net/ipsec/t_ipsec_forwarding.sh, t_ipsec_gif.sh and t_ipsec_l2tp.sh. TCP is said
 * here as segments; that of real programs goes through port policies of gateways in
 * test/hosts/gateways.test.ts.
 */

const CIPHER = '-E rijndael-cbc "0123456789012345"';
const MAC = '-A hmac-sha1 "01234567890123456789"';
const PROTOCOLS = [
  ['esp', 'rijndaelcbc', CIPHER],
  ['ah', 'hmacsha1', MAC],
] as const;

/** As prepare_file() there: 512 lines. */
const FILE = new TextEncoder().encode('0123456789\n'.repeat(512));
const PORT = 1234;

describe('t_ipsec_forwarding', () => {
  const V4 = {
    local: ['192.168.11.1', '10.22.22.2'],
    forward: ['10.33.33.1', '10.22.22.1'],
    remote: ['192.168.44.1', '10.33.33.2'],
    networks: ['192.168.11.0/24', '192.168.44.0/24'],
    icmp: 'icmp',
  } as const;
  const V6 = {
    local: ['fc00:1111::1', 'fc00:2222::2'],
    forward: ['fc00:3333::1', 'fc00:2222::1'],
    remote: ['fc00:4444::1', 'fc00:3333::2'],
    networks: ['fc00:1111::/64', 'fc00:4444::/64'],
    icmp: 'icmp6',
  } as const;

  test.each([
    ['ipsec_sp_port_ipv4_rijndaelcbc', V4],
    ['ipsec_sp_port_ipv6_rijndaelcbc', V6],
  ] as const)('%s', (_, { local, forward, remote, networks, icmp }) => {
    const network = new Network();
    const [a, f, b] = [local, forward, remote].map((one) => network.node(one)) as [
      ...[Node, Node, Node],
    ];
    const [near, far] = [network.wire(a, f), network.wire(f, b)];
    const [from, to, end] = [local[0], remote[0], forward[0]];
    const echo = [`${icmp} ${from} > ${to}`, `${icmp} ${to} > ${from}`];
    const plain = transferFlows(`tcp ${from} > ${to}`, `tcp ${to} > ${from}`);

    expect(a.ping(to)).toBe(true);
    expect([near.take(), far.take()]).toEqual([echo, echo]);
    expect(transfer(a, b, from, to)).toEqual(FILE);
    expect([near.take(), far.take()]).toEqual([plain, plain]);

    const [here, there] = networks;
    for (const [node, out, into] of [
      [a, 'out', 'in'],
      [f, 'in', 'out'],
    ] as const) {
      node.configure(`
        spdadd ${here}[any] ${there}[${PORT}] tcp -P ${out} ipsec esp/tunnel/${from}-${end}/require;
        spdadd ${there}[${PORT}] ${here}[any] tcp -P ${into} ipsec esp/tunnel/${end}-${from}/require;
        add ${from} ${end} esp 10000 ${CIPHER};
        add ${end} ${from} esp 10001 ${CIPHER};`);
    }
    expect(a.ping(to)).toBe(true);
    expect([near.take(), far.take()]).toEqual([echo, echo]);
    expect(transfer(a, b, from, to)).toEqual(FILE);
    expect(near.take()).toEqual(transferFlows(`esp ${from} > ${end}`, `esp ${end} > ${from}`));
    expect(far.take()).toEqual(plain);
    expect([a, f].flatMap(({ host }) => host.stats.dropped('in'))).toEqual([]);

    // The same port of somebody who does not use the tunnel is refused.
    f.send(tcpSegment({ ...SEGMENT, from: to, to: from, sport: PORT, dport: 4000 }));
    expect(near.take()).toEqual([`esp ${end} > ${from}`]);
    a.arrived(tcpSegment({ ...SEGMENT, from: to, to: from, sport: PORT, dport: 4000 }));
    expect(a.host.stats.dropped('in')).toEqual([['policy-clear', 1]]);
  });
});

const SEGMENT = { flags: TCP.SYN, seq: 1, ack: 0 } as const;
const CHUNK_LEN = 1024;
const CHUNKS = Math.ceil(FILE.length / CHUNK_LEN);

/** A connection from a to b's port, over which the file goes; what has come to b. */
function transfer(a: Node, b: Node, from: string, to: string): Uint8Array {
  b.received.length = 0;
  a.received.length = 0;
  const ask = { from, to, sport: 4000, dport: PORT };
  const answer = { from: to, to: from, sport: PORT, dport: 4000 };
  a.send(tcpSegment({ ...ask, flags: TCP.SYN, seq: 99, ack: 0 }));
  b.send(tcpSegment({ ...answer, flags: TCP.SYN | TCP.ACK, seq: 499, ack: 100 }));
  for (let i = 0; i < CHUNKS; i++) {
    const data = FILE.slice(i * CHUNK_LEN, (i + 1) * CHUNK_LEN);
    const [seq, end] = [100 + i * CHUNK_LEN, 100 + i * CHUNK_LEN + data.length];
    a.send(tcpSegment({ ...ask, flags: TCP.PSH | TCP.ACK, seq, ack: 500, data }));
    b.send(tcpSegment({ ...answer, flags: TCP.ACK, seq: 500, ack: end }));
  }
  expect(a.received.length).toBe(1 + CHUNKS);
  return concat(...b.received.map(tcpData));
}

function transferFlows(there: string, back: string): string[] {
  return Array.from({ length: 1 + CHUNKS }, () => [there, back]).flat();
}

interface Gateways {
  readonly hosts: readonly [Node, Node];
  readonly gateways: readonly [Node, Node];
  readonly network: Network;
  readonly outside: Wire;
}

type Two = readonly [string, string];

interface Addresses {
  readonly hosts: Two;
  readonly inside: Two;
  readonly tun: Two;
  readonly networks: Two;
}

const ADDRESSES: Readonly<Record<'ipv4' | 'ipv6', Addresses>> = {
  ipv4: {
    hosts: ['10.0.1.2', '10.0.2.2'],
    inside: ['10.0.1.1', '10.0.2.1'],
    tun: ['20.0.0.1', '20.0.0.2'],
    networks: ['10.0.1.0/24', '10.0.2.0/24'],
  },
  ipv6: {
    hosts: ['fd00:1::2', 'fd00:2::2'],
    inside: ['fd00:1::1', 'fd00:2::1'],
    tun: ['fc00::1', 'fc00::2'],
    networks: ['fd00:1::/64', 'fd00:2::/64'],
  },
};

function gateways(family: 'ipv4' | 'ipv6'): Gateways {
  const { hosts: ends, inside, tun } = ADDRESSES[family];
  const network = new Network();
  const hosts = [network.node([ends[0]]), network.node([ends[1]])] as const;
  const two = [network.node([tun[0], inside[0]]), network.node([tun[1], inside[1]])] as const;
  network.wire(hosts[0], two[0]);
  network.wire(two[1], hosts[1]);
  return { network, hosts, gateways: two, outside: network.wire(two[0], two[1]) };
}

const CASES = (['ipv4', 'ipv6'] as const).flatMap((family) =>
  PROTOCOLS.map(([proto, alg, args]) => ({ family, proto, alg, args })),
);

/** A policy for each direction, of both gateways, and the SAs. */
function protect(
  { gateways: [one, two] }: Gateways,
  [left, right]: Two,
  rule: (from: string, to: string) => Two,
  proto: string,
  args: string,
): void {
  for (const [gateway, out, into] of [
    [one, 'out', 'in'],
    [two, 'in', 'out'],
  ] as const) {
    const [[there, thereBy], [back, backBy]] = [rule(left, right), rule(right, left)];
    gateway.configure(`
      add ${left} ${right} ${proto} 10000 ${args};
      add ${right} ${left} ${proto} 10001 ${args};
      spdadd ${there} -P ${out} ipsec ${thereBy};
      spdadd ${back} -P ${into} ipsec ${backBy};`);
  }
}

describe('t_ipsec_gif', () => {
  test.each(CASES.map((one) => [`ipsec_gif_${one.family}_${one.proto}_${one.alg}`, one] as const))(
    '%s',
    (_, { family, proto, args }) => {
      const { hosts: ends, tun, networks } = ADDRESSES[family];
      const all = gateways(family);
      const { hosts, network, outside } = all;
      for (const i of [0, 1] as const) {
        network.gif(all.gateways[i], networks[1 - i]!, tun[i], tun[1 - i]!);
      }
      const flows = (what: string) => [
        `${what} ${tun[0]} > ${tun[1]}`,
        `${what} ${tun[1]} > ${tun[0]}`,
      ];
      const ipip = family === 'ipv4' ? 'ipip' : 'ipv6';
      expect(hosts[0].ping(ends[1])).toBe(true);
      expect(outside.take()).toEqual(flows(ipip));

      // The policies take the packets before the device does.
      const rule = (from: string, to: string) => {
        const [src, dst] = from === tun[0] ? networks : ([networks[1], networks[0]] as const);
        return [`${src} ${dst} any`, `${proto}/tunnel/${from}-${to}/require`] as const;
      };
      protect(all, tun, rule, proto, args);
      expect(hosts[0].ping(ends[1])).toBe(true);
      const packets = outside.takeOctets();
      expect(packets.map((octets) => octets.length)).toEqual([
        packets[0]!.length,
        packets[0]!.length,
      ]);
      // IP within it: AH shows the header, and no second one of the device.
      const inner = family === 'ipv4' ? 20 : 40;
      if (proto === 'ah')
        expect(packets.map((p) => p[inner])).toEqual(family === 'ipv4' ? [4, 4] : [41, 41]);
      expect(hosts[1].ping(ends[0])).toBe(true);
      expect(outside.take()).toEqual([
        `${proto} ${tun[1]} > ${tun[0]}`,
        `${proto} ${tun[0]} > ${tun[1]}`,
      ]);
    },
  );

  test.each(CASES.map((one) => [`${one.family} ${one.proto}`, one] as const))(
    'a policy for the packets of the device: %s',
    (_, one) => {
      const { hosts: ends, tun, networks } = ADDRESSES[one.family];
      const all = gateways(one.family);
      for (const i of [0, 1] as const) {
        all.network.gif(all.gateways[i], networks[1 - i]!, tun[i], tun[1 - i]!);
      }
      const upper = one.family === 'ipv4' ? '4' : '41';
      const rule = (from: string, to: string) =>
        [`${from} ${to} ${upper}`, `${one.proto}/transport//require`] as const;
      // An SA for both modes would take IP within it for a tunnel's, as KAME's does.
      protect(all, tun, rule, one.proto, `-m transport ${one.args}`);
      expect(all.hosts[0].ping(ends[1])).toBe(true);
      expect(all.outside.take()).toEqual([
        `${one.proto} ${tun[0]} > ${tun[1]}`,
        `${one.proto} ${tun[1]} > ${tun[0]}`,
      ]);
    },
  );
});

describe('t_ipsec_l2tp', () => {
  const L2TP = 115;
  test.each(
    CASES.flatMap((one) =>
      (['transport', 'tunnel'] as const).map((mode) => {
        const name = `ipsec_l2tp_${one.family}_${mode}_${one.proto}_${one.alg}`;
        return [name, { ...one, mode }] as const;
      }),
    ),
  )('%s', (_, { family, mode, proto, args }) => {
    const { tun } = ADDRESSES[family];
    const all = gateways(family);
    const [a, b] = all.gateways;
    const frame = Uint8Array.from({ length: 100 }, (_, i) => i);
    const got: Uint8Array[] = [];
    b.inet.openRaw(L2TP, (data) => got.push(data.slice()));
    const send = () => a.send(packetOf(tun[0], tun[1], L2TP, frame));
    send();
    expect(all.outside.take()).toEqual([`${L2TP} ${tun[0]} > ${tun[1]}`]);

    const rule = (from: string, to: string) => {
      const ends = mode === 'tunnel' ? `${from}-${to}` : '';
      return [`${from} ${to} ${L2TP}`, `${proto}/${mode}/${ends}/require`] as const;
    };
    protect(all, tun, rule, proto, args);
    send();
    const [octets, ...more] = all.outside.takeOctets();
    expect(more).toEqual([]);
    // AH shows what it covers: L2TP itself, or IP.
    const next = mode === 'transport' ? L2TP : family === 'ipv4' ? 4 : 41;
    const at = family === 'ipv4' ? 20 : 40;
    if (proto === 'ah') expect(octets![at]).toBe(next);
    expect(got).toEqual([frame, frame]);
    // In the clear it is refused from now on, and other protocols are as they were.
    b.arrived(packetOf(tun[0], tun[1], L2TP, frame));
    expect([got.length, b.host.stats.dropped('in')]).toEqual([2, [['policy-clear', 1]]]);
    expect(a.ping(tun[1])).toBe(true);
    expect(all.outside.take().every((flow) => flow.startsWith('icmp'))).toBe(true);
  });
});
