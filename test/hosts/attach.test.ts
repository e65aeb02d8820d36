import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import type { CapturedPacket } from '../../src/wire/linktype.ts';
import { Network, Toy, whyNoNamespaces } from './namespace.ts';

const skipped = whyNoNamespaces();
if (skipped) console.log(`attach.test.ts skipped: ${skipped}`);

const A = { v4: '10.1.0.1', v6: '2001:db8:1::1' };
const B = { v4: '10.1.0.2', v6: '2001:db8:1::2' };

function protecting(mine: typeof A, peer: typeof A) {
  return {
    do: 'divert',
    out: [{ destination: peer.v4 }, { destination: peer.v6, source: mine.v6 }],
    in: [
      { source: peer.v4, destination: mine.v4 },
      { source: peer.v6, destination: mine.v6 },
    ],
  };
}

/**
 * What is on the wire that is neither ESP nor housekeeping of the link (neighbour and listener
 * discovery).
 */
function clear(packets: readonly CapturedPacket[]): string[] {
  return packets.flatMap(({ bytes: p, at }) => {
    if (p[at]! >> 4 === 4) return ipv4.protocol(p, at) === 50 ? [] : [`4/${ipv4.protocol(p, at)}`];
    const next = ipv6.nextHeader(p, at);
    const upper = p[at + ipv6.HEADER_LEN]!;
    if (next === 50 || (next === 44 && upper === 50) || next === 0) return [];
    return next === 58 && upper >= 130 ? [] : [`6/${next}`];
  });
}

describe.skipIf(skipped !== undefined)('two hosts on a wire', () => {
  let net: Network;
  beforeEach(() => {
    net = new Network();
  });
  afterEach(() => net.close());

  /** Everything that an attachment may change in a namespace. */
  function snapshot(ns: string): string {
    const commands = [
      'ip -4 rule',
      'ip -6 rule',
      'ip -4 route show table 7557',
      'ip -6 route show table 7557',
      'ip -o link | cut -d: -f2',
      'tc qdisc',
      'tc filter show dev w0 ingress',
      'cat /proc/sys/net/ipv4/conf/w0/rp_filter',
    ];
    return net.run(ns, `(${commands.join('; ')}) 2>/dev/null`).text;
  }

  async function both(): Promise<[Toy, Toy]> {
    const toys = await Promise.all([Toy.start(net, net.a), Toy.start(net, net.b)]);
    await Promise.all([toys[0].ask(protecting(A, B)), toys[1].ask(protecting(B, A))]);
    return toys;
  }

  test('speak protected, small and large, and everything is undone on an orderly stop', async () => {
    net.run(net.a, 'echo 1 > /proc/sys/net/ipv4/conf/w0/rp_filter');
    const before = snapshot(net.a);
    const [a, b] = await both();
    expect(statSync(join(net.dir, `${net.a}.json`)).mode & 0o777).toBe(0o600);
    const capture = await net.capture(net.a, 'w0');
    for (const to of [B.v4, B.v6]) {
      for (const size of [56, 3000])
        expect([to, size, net.ping(net.a, to, size)]).toEqual([to, size, 2]);
    }
    const packets = await capture.stop();
    expect(clear(packets)).toEqual([]);
    expect(packets.length).toBeGreaterThanOrEqual(32);

    // The same eyes do see clear packets once the diversion is off.
    await Promise.all([a.ask({ do: 'divert' }), b.ask({ do: 'divert' })]);
    const second = await net.capture(net.a, 'w0');
    expect(net.ping(net.a, B.v4) + net.ping(net.a, B.v6)).toBe(4);
    expect(clear(await second.stop())).toEqual([...Array(4).fill('4/1'), ...Array(4).fill('6/58')]);

    await Promise.all([a.close(), b.close()]);
    expect(snapshot(net.a)).toBe(before);
    expect(existsSync(join(net.dir, `${net.a}.json`))).toBe(false);
  });

  test('a killed host fails closed, and a second start takes over', async () => {
    const before = snapshot(net.a);
    const [a, b] = await both();
    expect(net.ping(net.a, B.v4)).toBe(2);
    await a.kill();
    const capture = await net.capture(net.a, 'w0');
    for (const to of [B.v4, B.v6]) {
      expect(net.run(net.a, `ping -n -c 1 -W 1 ${to}`).text).toMatch(
        /No route to host|unreachable/i,
      );
    }
    // Nor does a clear packet from the peer get an answer: its filter has no device to redirect to,
    // and drops.
    await b.ask({ do: 'divert' });
    expect(net.ping(net.b, A.v4) + net.ping(net.b, A.v6)).toBe(0);
    const seen = clear(await capture.stop());
    expect(seen).toEqual([...Array(2).fill('4/1'), ...Array(2).fill('6/58')]);

    await b.ask(protecting(B, A));
    const again = await Toy.start(net, net.a);
    const third = await net.capture(net.a, 'w0');
    expect(net.run(net.a, `ping -n -c 1 -W 1 ${B.v4}`).text).toMatch(
      /No route to host|unreachable/i,
    );
    await again.ask(protecting(A, B));
    expect(net.ping(net.a, B.v4) + net.ping(net.a, B.v6)).toBe(4);
    expect(clear(await third.stop())).toEqual([]);
    await again.close();
    expect(snapshot(net.a)).toBe(before);
  });

  test('no change of the diversion, crash or new start has a moment in the clear', async () => {
    const [a] = await both();
    const capture = await net.capture(net.a, 'w0');
    const floods = [B.v4, B.v6].map((to) => net.spawn(net.a, 'ping', ['-n', '-i', '0.002', to]));
    const more = protecting(A, B);
    for (let i = 0; i < 4; i++) {
      await a.ask({ do: 'divert', all: true });
      await a.ask({ ...more, out: [...more.out, { destination: `10.1.0.0/2${i}` }] });
      await a.ask({ ...more, out: more.out.map((each) => ({ ...each, source: '10.1.0.1' })) });
      await a.ask({ do: 'refresh' });
      await a.ask(more);
    }
    await a.kill();
    const again = await Toy.start(net, net.a);
    await again.ask({ do: 'divert', all: true });
    await again.ask(more);
    expect(net.ping(net.a, B.v4) + net.ping(net.a, B.v6)).toBe(4);
    for (const flood of floods) flood.kill('SIGKILL');
    const packets = await capture.stop();
    expect(clear(packets)).toEqual([]);
    expect(packets.length).toBeGreaterThan(100);
    await again.close();
  });

  test('after a crash, a clean-up undoes everything, once asked', async () => {
    const before = snapshot(net.a);
    const [a, b] = await both();
    await a.kill();
    await b.ask({ do: 'divert' });
    expect(net.ping(net.a, B.v4) + net.ping(net.b, A.v4)).toBe(0);
    expect(await Toy.cleanUp(net, net.a)).toBe(0);
    expect(snapshot(net.a)).toBe(before);
    expect(net.ping(net.a, B.v4) + net.ping(net.a, B.v6)).toBe(4);
    expect(await Toy.cleanUp(net, net.a)).toBe(0);
  });

  test('a diversion changes in place, and a filter of somebody else survives', async () => {
    net.run(net.a, 'tc qdisc add dev w0 clsact');
    net.run(
      net.a,
      'tc filter add dev w0 ingress protocol ip pref 900 u32 match ip dst 10.66.0.0/16 flowid 1:1',
    );
    net.run(net.a, 'ip addr add 10.1.0.9/24 dev w0; ip addr add 2001:db8:1::9/64 dev w0 nodad');
    const before = snapshot(net.a);
    const a = await Toy.start(net, net.a);
    await a.ask(protecting(A, B));
    const other = { do: 'divert', out: [] as object[] };
    other.out = [
      { destination: B.v4, source: '10.1.0.9' },
      { destination: B.v6, source: '2001:db8:1::9' },
      { destination: '224.0.0.0/4' },
      { destination: '10.50.0.0/16', source: '10.77.0.1' },
    ];
    await a.ask(other);
    const routes = (family: number) =>
      net.run(net.a, `ip -${family} route show table 7557`).text.split(/ ?\n/).sort();
    expect(routes(4)).toEqual([
      '',
      '10.1.0.2 dev testudo0 src 10.1.0.9 metric 100',
      '10.50.0.0/16 dev testudo0 metric 100',
      '224.0.0.0/4 dev testudo0 metric 100',
      'throw 255.255.255.255 metric 3000000000',
      'unreachable 10.1.0.2 metric 4000000000',
      'unreachable 10.50.0.0/16 metric 4000000000',
      'unreachable 224.0.0.0/4 metric 4000000000',
    ]);
    expect(routes(6).filter((route) => route.includes('testudo0'))).toEqual([
      '2001:db8:1::2 dev testudo0 src 2001:db8:1::9 metric 100 pref medium',
    ]);
    expect(net.run(net.a, 'tc filter show dev w0 ingress').text).not.toContain('bpf');
    await a.close();
    expect(snapshot(net.a)).toBe(before);
    expect(before).toContain('u32');
  });

  test('clear packets that should be protected come to the inspection device, unanswered', async () => {
    const a = await Toy.start(net, net.a);
    await a.ask(protecting(A, B));
    net.run(net.b, 'ip addr add 10.1.0.3/24 dev w0');
    expect(net.ping(net.b, A.v4) + net.ping(net.b, A.v6)).toBe(0);
    const large = net.ping(net.b, A.v4, 2000);
    expect(large).toBe(0);
    expect(await a.ask({ do: 'inspected' })).toEqual([
      ...Array(2).fill('IPv4 protocol 1 length 84'),
      ...Array(2).fill('IPv6 protocol 58 length 104'),
      ...Array(2).fill(['IPv4 protocol 1 length 1500', 'IPv4 protocol 1 length 548']).flat(),
    ]);
    // What no policy names is left alone.
    expect(net.ping(net.b, `-I 10.1.0.3 ${A.v4}`)).toBe(2);
    expect(await a.ask({ do: 'inspected' })).toEqual([]);
  });

  test('with everything diverted, neighbours still find each other, and nothing else passes', async () => {
    net.run(net.a, `ip route add default via ${B.v4}`);
    const a = await Toy.start(net, net.a);
    await a.ask({ do: 'divert', all: true });
    net.run(net.a, 'ip neigh flush all');
    net.run(net.b, 'ip neigh flush all');
    expect(net.ping(net.b, A.v4) + net.ping(net.b, A.v6)).toBe(0);
    const neighbours = net.run(net.b, 'ip neigh').text;
    for (const mine of [A.v4, A.v6]) {
      expect(neighbours).toMatch(new RegExp(`${mine} dev w0 lladdr .* (REACHABLE|STALE|DELAY)`));
    }
    // Listener discovery comes too, behind hop-by-hop options.
    const inspected = (await a.ask({ do: 'inspected' })) as string[];
    expect(inspected.filter((what) => !what.includes('protocol 0 '))).toHaveLength(4);
    const capture = await net.capture(net.a, 'w0');
    expect(net.ping(net.a, '10.9.9.9') + net.ping(net.a, '2001:db8:9::9')).toBe(0);
    expect(clear(await capture.stop()).filter((what) => what !== '4/50')).toEqual([]);
    // The way to the host's own link-local neighbours is not through the engine.
    expect(net.run(net.a, 'ip route get 224.0.0.251').text).toContain('w0');
    expect(net.run(net.a, 'ip route get 198.51.100.1').text).toContain('testudo0');
  });

  test('a wire that appears later is guarded by itself', async () => {
    const [a, b] = await both();
    const filter = () => net.run(net.a, 'tc filter show dev w1 ingress').text;
    net.addWire('w1', 2);
    await expect.poll(filter).toContain('testudo0i');
    expect(net.run(net.a, 'cat /proc/sys/net/ipv4/conf/w1/rp_filter').text.trim()).toBe('2');
    const mine = { v4: '10.2.0.1', v6: '2001:db8:2::1' };
    const peer = { v4: '10.2.0.2', v6: '2001:db8:2::2' };
    await a.ask(protecting(mine, peer));
    expect(net.ping(net.b, mine.v4) + net.ping(net.b, mine.v6)).toBe(0);
    expect(await a.ask({ do: 'inspected' })).toHaveLength(4);
    await b.ask(protecting(peer, mine));
    expect(net.ping(net.a, peer.v4, 3000) + net.ping(net.a, peer.v6, 3000)).toBe(4);

    // A device of the same name that is another one gets its own filter; one that is gone does no
    // harm.
    for (let i = 0; i < 3; i++) {
      net.run(net.a, 'ip link del w1');
      net.addWire('w1', 2);
      await expect.poll(filter).toContain('testudo0i');
    }
    net.run(net.a, 'ip link del w1');
    await a.ask({ do: 'refresh' });
    expect(net.ping(net.a, B.v4)).toBe(2);
    // One that is not up yet is guarded too, so that there is no moment when it comes up.
    net.run(net.a, 'ip link add w2 type veth peer name w3');
    const other = () => net.run(net.a, 'tc filter show dev w2 ingress').text;
    await expect.poll(other).toContain('testudo0i');
  });

  test('changes of the network are noticed, and the MTU follows the wires', async () => {
    const a = await Toy.start(net, net.a, { mtu: 'auto' });
    const mtu = () => Number(net.run(net.a, 'cat /sys/class/net/testudo0/mtu').text);
    expect(mtu()).toBe(1500 - 128);
    net.run(net.a, 'ip link set w0 mtu 1600');
    await expect.poll(mtu).toBe(1600 - 128);
    net.addWire('w1', 2);
    await expect.poll(mtu).toBe(1500 - 128);
    expect(net.run(net.a, 'cat /proc/sys/net/ipv4/conf/w1/rp_filter').text.trim()).toBe('2');
    net.run(net.a, 'ip link set w0 mtu 1300; ip link set w1 mtu 1300');
    await expect.poll(mtu).toBe(1280);
    await a.close();
  });

  test('headers arrive as they were sent, extension headers included', async () => {
    const a = await Toy.start(net, net.a, { record: true });
    const b = await Toy.start(net, net.b);
    const addresses = '20010db8000100000000000000000002' + '20010db8000100000000000000000001';
    const ah = (icv: string) => `3b0400000000123400000001${icv.repeat(12)}`;
    const packets = [
      // IPv4 with a router alert option and AH; type of service, identification and time to live of
      // our own.
      `46c0003012344000203300000a0100020a01000194040000${ah('aa')}`,
      // Hop-by-hop options (router alert), destination options, AH; class 0xb8, flow label 0x54321.
      `6b85432100280040${addresses}3c000502000001003300010400000000${ah('bb')}`,
      // Destination options before ESP, and ESP alone.
      `6b85432100183c21${addresses}320001040000000000005678000000021122334455667788`,
      `6b85432100103221${addresses}00005678000000031122334455667788`,
    ];
    for (const octets of packets) await b.ask({ do: 'send', octets });
    const got: string[] = [];
    await expect
      .poll(async () => got.push(...((await a.ask({ do: 'received' })) as string[])))
      .toBeGreaterThanOrEqual(packets.length);
    // The kernel writes the IPv4 header checksum.
    const plain = got.map((octets) => octets.replace(/^(4.{19})..../, '$10000'));
    expect(plain.sort()).toEqual(packets.sort());
    expect(await b.ask({ do: 'refused' })).toEqual({});
  });

  test('datagrams to the encapsulation port come as whole packets', async () => {
    const a = await Toy.start(net, net.a, { record: true });
    await a.ask(protecting(A, B));
    for (const to of [A.v4, A.v6]) net.run(net.b, `echo -n hello > /dev/udp/${to}/4500`);
    const got = (await a.ask({ do: 'received' })) as string[];
    expect(got).toHaveLength(2);
    expect(got[0]).toMatch(
      /^45000021000040004011[0-9a-f]{4}0a0100020a010001[0-9a-f]{4}1194000d000068656c6c6f$/,
    );
    expect(got[1]).toMatch(
      /^60[0-9a-f]{6}000d114020010db8000100000000000000000002(20010db8000100000000000000000001)[0-9a-f]{4}1194000d[0-9a-f]{4}68656c6c6f$/,
    );
    expect(await a.ask({ do: 'inspected' })).toEqual([]);
  });

  test('what cannot be sent is counted by its reason', async () => {
    const a = await Toy.start(net, net.a);
    const long = (1600).toString(16).padStart(4, '0');
    const octets = `4500${long}00014000403200000a0100010a010002`.padEnd(3200, '0');
    await a.ask({ do: 'send', octets });
    await a.ask({ do: 'send', octets: '70' });
    expect(await a.ask({ do: 'refused' })).toEqual({ EMSGSIZE: 1, 'not IPv4 or IPv6': 1 });
  });

  test('a second host in the same place is refused, and the first goes on', async () => {
    const [a] = await both();
    const before = snapshot(net.a);
    await expect(Toy.start(net, net.a)).rejects.toThrow(/UDP port 4500.*in use/);
    await expect(Toy.start(net, net.a, { encapPort: 4501 })).rejects.toThrow(/testudo0.*busy/i);
    expect(snapshot(net.a)).toBe(before);
    expect(net.ping(net.a, B.v4)).toBe(2);
    await a.close();
  });
});
