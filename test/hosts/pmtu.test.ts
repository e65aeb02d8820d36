import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { toHex } from '../../src/wire/bytes.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { icmpError, tooBig } from '../engine/errors.ts';
import { concat, counting, hex, ipv4Packet, ipv6Packet } from '../wire/octets.ts';
import { DaemonHost, TESTUDO } from './daemon-host.ts';
import { announceSkip, Lab, whyNoHosts } from './namespaces.ts';
import { tcp } from './programs.ts';

const skipped = announceSkip('pmtu.test.ts', whyNoHosts('python3'));

/**
 * left - gwl - r1 - r2 - gwr - right, where the link between the routers carries 1300 octets and
 * all others 1500.
 */
const NARROW = 1300;
const OCTETS = 5 << 20;
type Family = 4 | 6;
const NETWORK = {
  4: { left: '10.1.0.0/24', right: '10.2.0.0/24' },
  6: { left: 'fd01::/64', right: 'fd02::/64' },
} as const;
const HOST = {
  4: { left: '10.1.0.2', right: '10.2.0.2' },
  6: { left: 'fd01::2', right: 'fd02::2' },
} as const;
const GATEWAY = {
  4: { left: '10.9.0.1', right: '10.7.0.1' },
  6: { left: 'fd09::1', right: 'fd07::1' },
} as const;
const ENCAP = ['--encap-port', '4500'];
const IP_AND_ICMP = { 4: 28, 6: 48 } as const;

interface Case {
  readonly mode: 'tunnel' | 'transport';
  readonly inner: Family;
  readonly outer: Family;
  readonly udp?: boolean;
}

type Side = 'left' | 'right';

/** SAs and policies of one gateway, for what goes between the networks or the gateways. */
function config(side: Side, { mode, inner, outer, udp = false }: Case): string {
  const key = (n: number) => `0x${`${n}7e4b0d98a5c362f`.repeat(2)}c0ffee0${n}`;
  const port = udp ? '[4500]' : '';
  const sa = (from: string, to: string, n: number) =>
    `add ${from}${port} ${to}${port} ${udp ? 'esp-udp' : 'esp'} 0x100${n} -m ${mode} -r 64 -E aes-gcm-16 ${key(n)};`;
  const { left, right } = GATEWAY[outer];
  const flows = mode === 'tunnel' ? NETWORK[inner] : GATEWAY[inner];
  const policy = (from: Side, to: Side) => {
    const ends = mode === 'tunnel' ? `${GATEWAY[outer][from]}-${GATEWAY[outer][to]}` : '';
    const way = from === side ? 'out' : 'in';
    return `spdadd ${flows[from]} ${flows[to]} any -P ${way} ipsec esp/${mode}/${ends}/require;`;
  };
  return [
    sa(left, right, 1),
    sa(right, left, 2),
    policy('left', 'right'),
    policy('right', 'left'),
  ].join('\n');
}

describe.skipIf(skipped)('a narrow link between two gateways', () => {
  let lab: Lab;
  let left: string;
  let gwl: string;
  let r1: string;
  let r2: string;
  let gwr: string;
  let right: string;
  beforeAll(() => {
    lab = new Lab();
    const names = ['left', 'gwl', 'r1', 'r2', 'gwr', 'right'];
    const spaces = names.map((name) => lab.space(name));
    [left, gwl, r1, r2, gwr, right] = spaces as [string, string, string, string, string, string];
    const wire = (a: string, b: string, device: string, net: number, hosts: [number, number]) => {
      const at = (host: number) => [`10.${net}.0.${host}/24`, `fd0${net}::${host}/64`];
      lab.wire(
        { space: a, device, addresses: at(hosts[0]) },
        { space: b, device, addresses: at(hosts[1]) },
      );
    };
    wire(left, gwl, 'h0', 1, [2, 1]);
    wire(gwl, r1, 'w0', 9, [1, 2]);
    wire(r1, r2, 'n0', 8, [1, 2]);
    wire(r2, gwr, 'w0', 7, [2, 1]);
    wire(gwr, right, 'h0', 2, [1, 2]);
    for (const router of [gwl, r1, r2, gwr]) {
      lab.sh(router, 'sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1');
    }
    const route = (space: string, net: string, via: string) => {
      const v6 = net === 'default' ? net : `fd0${net}::/64`;
      const v4 = net === 'default' ? net : `10.${net}.0.0/24`;
      const [a, b] = via.split('.');
      lab.sh(
        space,
        `ip route add ${v4} via 10.${a}.0.${b}; ip -6 route add ${v6} via fd0${a}::${b}`,
      );
    };
    route(left, 'default', '1.1');
    route(right, 'default', '2.1');
    route(gwl, 'default', '9.2');
    route(gwr, 'default', '7.2');
    for (const net of ['7', '2']) route(r1, net, '8.2');
    for (const net of ['9', '1']) route(r2, net, '8.1');
    for (const router of [r1, r2]) lab.sh(router, `ip link set n0 mtu ${NARROW}`);
  });
  afterAll(() => lab.close());

  async function withGateways(
    one: Case,
    use: (gateways: readonly [DaemonHost, DaemonHost]) => Promise<void>,
  ): Promise<void> {
    // What the kernels have learned from the case before would help this one.
    for (const space of [left, gwl, gwr, right]) {
      lab.sh(space, 'ip route flush cache; ip -6 route flush cache');
    }
    const gateways = await Promise.all([
      DaemonHost.start(lab, gwl, config('left', one), ENCAP),
      DaemonHost.start(lab, gwr, config('right', one), ENCAP),
    ]);
    try {
      for (const host of gateways) {
        const set = host.tool(TESTUDO, 'sysctl net.inet.ipsec.dfbit=2');
        expect([set.status, set.stderr]).toEqual([0, '']);
      }
      await use(gateways);
    } finally {
      await Promise.all(gateways.map((host) => host.stop()));
    }
  }

  /** Sends packets of `len` octets that must not be fragmented; the MTU that errors name. */
  function probe(from: string, to: string, family: Family, len: number) {
    const size = len - IP_AND_ICMP[family];
    const { stdout } = lab.try(from, `ping -n -M do -c 4 -i 0.3 -W 1 -s ${size} ${to}`);
    const named = [...stdout.matchAll(/mtu ?= ?(\d+)/g)].map(([, mtu]) => Number(mtu));
    return { received: Number(/(\d+) received/.exec(stdout)?.[1]), named: [...new Set(named)] };
  }

  const cases: readonly (readonly [string, Case, number])[] = [
    ['pmtu_vti4_exception: IPv4 in IPv4', { mode: 'tunnel', inner: 4, outer: 4 }, 1246],
    ['pmtu_vti6_exception: IPv6 in IPv6', { mode: 'tunnel', inner: 6, outer: 6 }, 1280],
    ['IPv4 in IPv6', { mode: 'tunnel', inner: 4, outer: 6 }, 1226],
    ['IPv6 in IPv4', { mode: 'tunnel', inner: 6, outer: 4 }, 1280],
    [
      'pmtu_vti4_udp_exception: IPv4 in UDP',
      { mode: 'tunnel', inner: 4, outer: 4, udp: true },
      1238,
    ],
    [
      'pmtu_vti6_udp_exception: IPv6 in UDP',
      { mode: 'tunnel', inner: 6, outer: 6, udp: true },
      1280,
    ],
    ['transport mode, IPv4', { mode: 'transport', inner: 4, outer: 4 }, 1266],
    ['transport mode, IPv6', { mode: 'transport', inner: 6, outer: 6 }, 1280],
  ];

  test.each(cases)('%s', async (_name, one, largest) => {
    const { mode, inner } = one;
    const isTunnel = mode === 'tunnel';
    const [from, to] = isTunnel ? [left, right] : [gwl, gwr];
    const ends = isTunnel ? HOST[inner] : GATEWAY[inner];
    await withGateways(one, async (gateways) => {
      const [here, there] = gateways;
      const transfer = async (a: string, b: string, address: string) => {
        const moved = await tcp(lab, a, b, address, OCTETS);
        expect(moved).toMatchObject({ octets: OCTETS, received: moved.sent });
      };
      // One direction finds out by a segment of TCP that is lost.
      await transfer(to, from, ends.left);
      expect(await there.dropped('in', 'icmp-path-mtu')).toBe(1);
      // In the other, while it fits, nobody says anything.
      const fits = largest - (inner === 6 ? 100 : 0);
      expect(probe(from, ends.right, inner, fits)).toEqual({ received: 4, named: [] });
      expect(await here.dropped('in', 'icmp-path-mtu')).toBe(0);
      // The first is lost, and the gateway learns from it; of the second the sender is told.
      expect(probe(from, ends.right, inner, 1380)).toEqual({ received: 0, named: [largest] });
      expect(await here.dropped('in', 'icmp-path-mtu')).toBe(1);
      expect(await here.dropped('out', 'too-big')).toBe(1);
      await transfer(from, to, ends.right);
      // What is cut is whole again at the end.
      expect(lab.ping(from, ends.right, { size: 3000 })).toBe(2);
    });
  });

  /** A router sends what it likes; the kernel adds the IP header. */
  function forge(family: Family, error: Uint8Array): void {
    const octets = toHex(error, family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN);
    const [domain, protocol] = family === 4 ? ['AF_INET', 1] : ['AF_INET6', 58];
    const to = GATEWAY[family].left;
    const program = [
      'from socket import *',
      `socket(${domain}, SOCK_RAW, ${protocol}).sendto(bytes.fromhex('${octets}'), ('${to}', 0))`,
    ];
    lab.sh(r1, `python3 -c "${program.join('; ')}"`);
  }

  /** The MTU that the kernel of the left gateway has noted for the right one. */
  function believed(family: Family): number | undefined {
    const route = lab.sh(gwl, `ip route get ${GATEWAY[family].right}`);
    const mtu = /mtu (\d+)/.exec(route)?.[1];
    return mtu === undefined ? undefined : Number(mtu);
  }

  function flush(): void {
    lab.sh(gwl, 'ip route flush cache; ip -6 route flush cache');
  }

  /** From the left gateway to the right one: so many octets behind the IP header. */
  function sent(family: Family, protocol: number, payload: Uint8Array): Uint8Array {
    const { left: src, right: dst } = GATEWAY[family];
    const header = family === 4 ? ipv4 : ipv6;
    const p =
      family === 4
        ? ipv4Packet({ protocol, flags: ipv4.FLAG_DF }, payload)
        : ipv6Packet(protocol, payload);
    p.set([...address(src).bytes, ...address(dst).bytes], header.SRC_AT);
    if (family === 4) ipv4.updateChecksum(p, 0);
    return p;
  }

  test.each([4, 6] as const)('IPv%i: forged errors move nothing', async (family) => {
    const echo = sent(
      family,
      family === 4 ? 1 : 58,
      concat(hex(family === 4 ? '00' : '80'), counting(1400)),
    );
    const esp = sent(family, 50, concat(hex('0000abcd 00000001'), counting(1400)));
    flush();
    forge(family, tooBig(echo, 1290));
    // So much for what a kernel without us makes of it.
    expect(believed(family)).toBe(1290);
    await withGateways({ mode: 'transport', inner: family, outer: family }, async ([here]) => {
      expect(lab.ping(gwl, GATEWAY[family].right)).toBe(2);
      flush();
      const before = believed(family);
      forge(family, tooBig(echo, 1290));
      forge(family, tooBig(esp, 1290));
      forge(family, icmpError(esp, family === 4 ? 3 : 1, 0));
      await expect.poll(() => here.dropped('in', 'icmp-no-sa')).toBe(2);
      expect(await here.dropped('in', 'icmp-flow-protected')).toBe(1);
      expect(believed(family)).toBe(before);
      expect(probe(gwl, GATEWAY[family].right, family, 1290 - 36)).toEqual({
        received: 4,
        named: [],
      });
    });
  });

  test.each([4, 6] as const)('IPv%i: nor do they where the kernel has them too', async (family) => {
    const esp = sent(family, 50, concat(hex('0000abcd 00000001'), counting(1400)));
    // Nothing that comes in by this family is diverted.
    const one: Case = { mode: 'tunnel', inner: family === 4 ? 6 : 4, outer: family };
    await withGateways(one, async ([here]) => {
      const before = believed(family);
      forge(family, tooBig(esp, 1290));
      await expect.poll(() => here.dropped('in', 'icmp-no-sa')).toBe(1);
      expect(believed(family)).toBe(before);
    });
  });

  test('without DF on the tunnel the routers cut, and nobody learns anything', async () => {
    const one: Case = { mode: 'tunnel', inner: 4, outer: 4 };
    await withGateways(one, async (gateways) => {
      for (const host of gateways) host.tool(TESTUDO, 'sysctl net.inet.ipsec.dfbit=0');
      expect(probe(left, HOST[4].right, 4, 1400)).toEqual({ received: 4, named: [] });
      const moved = await tcp(lab, left, right, HOST[4].right, OCTETS);
      expect(moved).toMatchObject({ octets: OCTETS, received: moved.sent });
      expect(await gateways[0].dropped('in', 'icmp-path-mtu')).toBe(0);
    });
  });
});
