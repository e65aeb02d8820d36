import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { occurrences } from './capture.ts';
import { DaemonHost } from './daemon-host.ts';
import { announceSkip, Lab, whyNoHosts } from './namespaces.ts';
import { MARKER, PATTERN, tcp, udp } from './programs.ts';

const skipped = announceSkip('gateways.test.ts', whyNoHosts());

const MIB = 1 << 20;
/** The networks behind the gateways, and the gateways on the wire between them. */
const LEFT = { 4: '10.1.0.0/24', 6: 'fd01::/64' } as const;
const RIGHT = { 4: '10.2.0.0/24', 6: 'fd02::/64' } as const;
const GATEWAY = { 4: ['10.9.0.1', '10.9.0.2'], 6: ['fd09::1', 'fd09::2'] } as const;
const LEFT_HOST = { 4: '10.1.0.2', 6: 'fd01::2' } as const;
const RIGHT_HOST = { 4: '10.2.0.2', 6: 'fd02::2' } as const;

type Family = 4 | 6;

/** The families of the tunnels that carry IPv4 and IPv6. */
interface Outer {
  readonly 4: Family;
  readonly 6: Family;
}

function sas(): string {
  const key = (n: number) => `0x${`${n}7e4b0d98a5c362f`.repeat(2)}c0ffee0${n}`;
  return ([4, 6] as const)
    .flatMap((family) => {
      const [left, right] = GATEWAY[family];
      return [
        `add ${left} ${right} esp 0x${family}001 -m tunnel -r 64 -E aes-gcm-16 ${key(family)};`,
        `add ${right} ${left} esp 0x${family}002 -m tunnel -r 64 -E aes-gcm-16 ${key(family + 1)};`,
      ];
    })
    .join('\n');
}

/** Policies of the left or the right gateway for traffic of one kind, such as `tcp` to a port. */
function policies(side: 'left' | 'right', outer: Outer, { kind = 'any', port = '' } = {}): string {
  const [toRight, toLeft] = side === 'left' ? ['out', 'in'] : ['in', 'out'];
  return ([4, 6] as const)
    .flatMap((inner) => {
      const [left, right] = GATEWAY[outer[inner]];
      const [from, to] = [LEFT[inner], `${RIGHT[inner]}${port}`];
      return [
        `spdadd ${from} ${to} ${kind} -P ${toRight} ipsec esp/tunnel/${left}-${right}/require;`,
        `spdadd ${to} ${from} ${kind} -P ${toLeft} ipsec esp/tunnel/${right}-${left}/require;`,
      ];
    })
    .join('\n');
}

describe.skipIf(skipped)('two networks behind two gateways', () => {
  let lab: Lab;
  let left: string;
  let gwLeft: string;
  let gwRight: string;
  let right: string;
  beforeAll(() => {
    lab = new Lab();
    [left, gwLeft, gwRight, right] = ['left', 'gwl', 'gwr', 'right'].map((name) =>
      lab.space(name),
    ) as [string, string, string, string];
    const wire = (a: string, b: string, device: [string, string], net: string, hosts: number[]) => {
      const at = (host: number) => [`10.${net}.0.${host}/24`, `fd0${net}::${host}/64`];
      lab.wire(
        { space: a, device: device[0], addresses: at(hosts[0]!) },
        { space: b, device: device[1], addresses: at(hosts[1]!) },
      );
    };
    wire(left, gwLeft, ['h0', 'h0'], '1', [2, 1]);
    wire(gwLeft, gwRight, ['w0', 'w0'], '9', [1, 2]);
    wire(gwRight, right, ['h0', 'h0'], '2', [1, 2]);
    for (const gateway of [gwLeft, gwRight]) {
      lab.sh(gateway, 'sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1');
    }
    lab.sh(left, 'ip route add default via 10.1.0.1; ip -6 route add default via fd01::1');
    lab.sh(right, 'ip route add default via 10.2.0.1; ip -6 route add default via fd02::1');
    lab.sh(gwLeft, 'ip route add 10.2.0.0/24 via 10.9.0.2; ip route add fd02::/64 via fd09::2');
    lab.sh(gwRight, 'ip route add 10.1.0.0/24 via 10.9.0.1; ip route add fd01::/64 via fd09::1');
  });
  afterAll(() => lab.close());

  function gateways(config: (side: 'left' | 'right') => string): Promise<[DaemonHost, DaemonHost]> {
    return Promise.all([
      DaemonHost.start(lab, gwLeft, config('left')),
      DaemonHost.start(lab, gwRight, config('right')),
    ]);
  }

  /** Routers do not fragment IPv6: the first large packets each way are lost to learn from. */
  function learnPathMtu(to: string): void {
    lab.ping(left, to, { count: 5, size: 3000, waitS: 0.2 });
  }

  /** The TTL or hop limit with which an answer arrives, which was 64 when it was sent. */
  function ttl(to: string): number {
    const { stdout } = lab.try(left, `ping -n -c 1 -W 1 ${to}`);
    return Number(/ttl=(\d+)/.exec(stdout)?.[1]);
  }

  test.each([
    ['IPv4 in IPv4 and IPv6 in IPv6', { 4: 4, 6: 6 }],
    ['IPv4 in IPv6 and IPv6 in IPv4', { 4: 6, 6: 4 }],
  ] as const)('%s', async (_name, outer) => {
    const hosts = await gateways((side) => `${sas()}\n${policies(side, outer)}`);
    try {
      for (const inner of [4, 6] as const) {
        const to = RIGHT_HOST[inner];
        learnPathMtu(to);
        const capture = await lab.capture(gwLeft, 'w0');
        for (const size of [56, 3000]) {
          expect([to, size, lab.ping(left, to, { size, pattern: PATTERN })]).toEqual([to, size, 2]);
        }
        const datagrams = await udp(lab, left, right, to, 30, [64, 1472, 8000]);
        expect(datagrams).toEqual({ sent: 30, lost: 0, received: 30, wrong: 0 });
        const moved = await tcp(lab, left, right, to, 5 * MIB);
        expect(moved).toMatchObject({ octets: 5 * MIB, received: moved.sent });
        const wire = await capture.stop();
        expect(wire.clear).toEqual([]);
        expect(occurrences(wire, MARKER)).toBe(0);
        const ends = new Set(wire.packets.map(({ kind, src, dst }) => `${kind} ${src} ${dst}`));
        const [a, b] = GATEWAY[outer[inner]];
        expect([...ends].sort()).toEqual([`esp ${a} ${b}`, `esp ${b} ${a}`]);
        // One less at each gateway; the tunnel between them is one hop.
        expect(ttl(to)).toBe(62);
        expect(new Set(wire.packets.map(({ hopLimit }) => hopLimit))).toEqual(new Set([64]));
      }
      for (const host of hosts) {
        const { drops, refused } = await host.status();
        expect({ drops, refused }).toEqual({
          drops: [],
          refused: { wire: 0, local: 0, inspect: 0 },
        });
      }
    } finally {
      await Promise.all(hosts.map((host) => host.stop()));
    }
  });

  test('a policy for one port protects that port, also of IPv4 fragments, and nothing else', async () => {
    const hosts = await gateways((side) =>
      [
        sas(),
        policies(side, { 4: 4, 6: 6 }, { kind: 'udp', port: '[5002]' }),
        policies(side, { 4: 4, 6: 6 }, { kind: 'tcp', port: '[5001]' }),
      ].join('\n'),
    );
    try {
      for (const inner of [4, 6] as const) {
        const to = RIGHT_HOST[inner];
        const capture = await lab.capture(gwLeft, 'w0');
        // We tunnel what was put together for its ports as one, too large for the next IPv6 wire.
        const large = inner === 4 ? 8000 : 1200;
        const datagrams = await udp(lab, left, right, to, 20, [64, large]);
        expect(datagrams).toEqual({ sent: 20, lost: 0, received: 20, wrong: 0 });
        const moved = await tcp(lab, left, right, to, MIB);
        expect(moved).toMatchObject({ octets: MIB, received: moved.sent });
        expect(lab.ping(left, to, { size: large })).toBe(2);
        const wire = await capture.stop();
        const kinds = new Set(wire.clear.map((what) => what.split(' ').at(-1)));
        expect([...kinds]).toEqual([inner === 4 ? '1' : '58']);
        expect(occurrences(wire, MARKER)).toBe(0);
        expect(wire.packets.length).toBeGreaterThan(500);
      }
    } finally {
      await Promise.all(hosts.map((host) => host.stop()));
    }
  });

  test('what comes in the clear from the wire is not forwarded', async () => {
    const config = `${sas()}\n${policies('left', { 4: 4, 6: 6 })}`;
    const gateway = await DaemonHost.start(lab, gwLeft, config);
    try {
      const behind = await lab.capture(gwLeft, 'h0');
      for (const family of [4, 6] as const) {
        expect(lab.ping(right, LEFT_HOST[family], { waitS: 0.3 })).toBe(0);
      }
      await expect.poll(() => gateway.dropped('in', 'policy-clear')).toBe(4);
      expect((await behind.stop()).clear).toEqual([]);
    } finally {
      await gateway.stop();
    }
  });
});
