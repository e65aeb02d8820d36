import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { occurrences } from './capture.ts';
import { DaemonHost } from './daemon-host.ts';
import { announceSkip, Lab, whyNoHosts } from './namespaces.ts';
import { MARKER, PATTERN, type Served, serve, stop, tcp, udp } from './programs.ts';

const skipped = announceSkip('natt.test.ts', whyNoHosts());

/**
 * A is behind a NAT: it speaks to 10.1.0.1, and B hears 10.9.0.1 with a port that changes. The NAT
 * is a program, since not every kernel has one.
 */
const NAT = { inside: '10.1.0.1', outside: '10.9.0.1' } as const;
const MIB = 1 << 20;

function config(host: 'a' | 'b', mode: 'tunnel' | 'transport', natPort: number): string {
  const [a, b] =
    host === 'a' ? (['10.1.0.2', NAT.inside] as const) : ([NAT.outside, '10.9.0.2'] as const);
  const aPort = host === 'a' ? 4500 : natPort;
  const key = (n: number) => `0x${`${n}7e4b0d98a5c362f`.repeat(2)}c0ffee0${n}`;
  const [out, back] = host === 'a' ? ['out', 'in'] : ['in', 'out'];
  const [src, dst] = mode === 'tunnel' ? ['10.7.0.1', '10.7.0.2'] : [a, b];
  const ends = (one: string, other: string) => (mode === 'tunnel' ? `${one}-${other}` : '');
  return `flush; spdflush;
    add ${a}[${aPort}] ${b}[4500] esp-udp 0x1001 -m ${mode} -r 64 -E aes-gcm-16 ${key(1)};
    add ${b}[4500] ${a}[${aPort}] esp-udp 0x1002 -m ${mode} -r 64 -E aes-gcm-16 ${key(2)};
    spdadd ${src} ${dst} any -P ${out} ipsec esp/${mode}/${ends(a, b)}/require;
    spdadd ${dst} ${src} any -P ${back} ipsec esp/${mode}/${ends(b, a)}/require;`;
}

describe.skipIf(skipped)('ESP in UDP through a NAT', () => {
  let lab: Lab;
  let a: string;
  let nat: string;
  let b: string;
  beforeEach(() => {
    lab = new Lab();
    a = lab.space('a');
    nat = lab.space('nat');
    b = lab.space('b');
    lab.wire(
      { space: a, device: 'w0', addresses: ['10.1.0.2/24'] },
      { space: nat, device: 'w0', addresses: [`${NAT.inside}/24`] },
    );
    lab.wire(
      { space: nat, device: 'w1', addresses: [`${NAT.outside}/24`] },
      { space: b, device: 'w0', addresses: ['10.9.0.2/24'] },
    );
    lab.sh(a, 'ip addr add 10.7.0.1/32 dev lo');
    lab.sh(b, 'ip addr add 10.7.0.2/32 dev lo');
  });
  afterEach(() => lab.close());

  function relay(fromPort: number): Promise<Served> {
    const to = ['10.9.0.2', '4500'];
    return serve(lab, nat, 'udp-relay', NAT.inside, '4500', String(fromPort), ...to);
  }

  function start(
    mode: 'tunnel' | 'transport',
    args: { a?: string[]; b?: string[] } = {},
  ): Promise<[DaemonHost, DaemonHost]> {
    const all = ['--no-raw', '--encap-port', '4500'];
    return Promise.all([
      DaemonHost.start(lab, a, config('a', mode, 6001), [...all, ...(args.a ?? [])]),
      DaemonHost.start(lab, b, config('b', mode, 6001), [...all, ...(args.b ?? [])]),
    ]);
  }

  test.each([
    ['tunnel', '10.7.0.2'],
    // B's program sees the address of the NAT: the checksums of TCP and UDP have to follow.
    ['transport', NAT.inside],
  ] as const)('carries all kinds of traffic in %s mode', async (mode, to) => {
    const [hostA, hostB] = await start(mode);
    await relay(6001);
    const capture = await lab.capture(b, 'w0');
    for (const size of [56, 3000]) {
      expect([size, lab.ping(a, to, { size, pattern: PATTERN })]).toEqual([size, 2]);
    }
    const datagrams = await udp(lab, a, b, to, 20, [64, 1200]);
    expect(datagrams).toEqual({ sent: 20, lost: 0, received: 20, wrong: 0 });
    const moved = await tcp(lab, a, b, to, MIB);
    expect(moved).toMatchObject({ octets: MIB, received: moved.sent });
    const wire = await capture.stop();
    expect(wire.clear).toEqual([]);
    expect(occurrences(wire, MARKER)).toBe(0);
    expect(new Set(wire.packets.map(({ sport, dport }) => `${sport} ${dport}`))).toEqual(
      new Set(['6001 4500', '4500 6001']),
    );
    for (const host of [hostA, hostB]) {
      expect((await host.status()).drops).toEqual([]);
      expect(await host.count('NAT mappings changed')).toBe(0);
    }
  });

  test('a new mapping is followed', async () => {
    const [, hostB] = await start('tunnel');
    const first = await relay(6001);
    expect(lab.ping(a, '10.7.0.2')).toBe(2);
    await stop(first);
    await relay(6002);
    const capture = await lab.capture(b, 'w0');
    expect(lab.ping(a, '10.7.0.2')).toBe(2);
    // From now on also what B sends by itself finds A.
    expect(lab.ping(b, '10.7.0.1')).toBe(2);
    const wire = await capture.stop();
    const fromB = wire.packets.filter(({ src }) => src === '10.9.0.2');
    expect(fromB.map(({ dport }) => dport)).toEqual([6002, 6002, 6002, 6002]);
    expect(await hostB.count('NAT mappings changed')).toBe(1);
  });

  test('a new mapping is not followed by a host that was told not to', async () => {
    const [, hostB] = await start('tunnel', { b: ['--no-follow-nat'] });
    const first = await relay(6001);
    expect(lab.ping(a, '10.7.0.2')).toBe(2);
    await stop(first);
    await relay(6002);
    const capture = await lab.capture(b, 'w0');
    expect(lab.ping(a, '10.7.0.2', { waitS: 0.3 })).toBe(0);
    const fromB = (await capture.stop()).packets.filter(({ src }) => src === '10.9.0.2');
    expect(fromB.map(({ dport }) => dport)).toEqual([6001, 6001]);
    // Key exchange is told, and may move the SAs itself.
    expect(await hostB.count('NAT mappings changed')).toBe(1);
  });

  test('a silent host keeps its mapping alive', async () => {
    const [hostA, hostB] = await start('tunnel', { a: ['--keepalive', '1'] });
    await relay(6001);
    const capture = await lab.capture(a, 'w0');
    expect(lab.ping(a, '10.7.0.2')).toBe(2);
    const sent = () => hostA.count('keep-alives sent');
    await expect.poll(sent, { timeout: 15_000, interval: 200 }).toBeGreaterThanOrEqual(2);
    const wire = await capture.stop();
    expect(wire.keepalives.get('10.1.0.2')).toBeGreaterThanOrEqual(2);
    // B has its 20 seconds.
    expect(wire.keepalives.get(NAT.inside)).toBe(undefined);
    expect(await hostB.dropped('in', 'natt-keepalive')).toBeGreaterThanOrEqual(2);
    expect(wire.clear).toEqual([]);
  });
});
