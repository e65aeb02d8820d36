import { beforeEach, describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import type { UdpSocket } from '../../src/inet/udp.ts';
import { Bus, type Node } from '../peers/node.ts';

/**
 * Policies of sockets of our own, between two hosts with SAs and no policies of their own: what is
 * on the wire, and exactly what is counted for it.
 */

const ALGORITHMS = {
  esp: '-E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213',
  ah: '-A hmac-sha256 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',
};
const OPTION = { 4: 'IP_IPSEC_POLICY', 6: 'IPV6_IPSEC_POLICY' } as const;
const KINDS = (['esp', 'ah'] as const).flatMap((proto) =>
  (['transport', 'tunnel'] as const).flatMap((mode) => [
    { proto, mode, family: 4 as const, local: '10.0.0.1', peer: '10.0.0.2' },
    { proto, mode, family: 6 as const, local: 'fd00::1', peer: 'fd00::2' },
  ]),
);

describe.each(KINDS)('$proto $mode, IPv$family', ({ proto, mode, family, local, peer }) => {
  let bus: Bus;
  let a: Node;
  let b: Node;

  function level(from: string, to: string): string {
    return `ipsec ${proto}/${mode}/${mode === 'tunnel' ? `${from}-${to}` : ''}/require`;
  }

  const there = level(local, peer);
  const back = level(peer, local);

  beforeEach(() => {
    bus = new Bus();
    a = bus.add(local);
    b = bus.add(peer);
    const sas =
      `add ${local} ${peer} ${proto} 10000 -m ${mode} ${ALGORITHMS[proto]};` +
      `add ${peer} ${local} ${proto} 10001 -m ${mode} ${ALGORITHMS[proto]};`;
    for (const node of [a, b]) expect(node.setkey(sas)).toEqual([]);
  });

  /** An echo service, and a client of it with policies. */
  function echo(
    port: number,
    policies: boolean,
  ): { ask: (octets: number) => boolean; client: UdpSocket; server: UdpSocket } {
    let came = -1;
    const server = b.inet.openUdp(port, (data, from, back) => server.send(data, from, back));
    const client = a.inet.openUdp(0, (data) => {
      came = data.length;
    });
    if (policies) {
      client.setsockopt(OPTION[family], `out ${there}`);
      client.setsockopt(OPTION[family], `in ${back}`);
      server.setsockopt(OPTION[family], `out ${back}`);
      server.setsockopt(OPTION[family], `in ${there}`);
    }
    const ask = (octets: number) => {
      came = -1;
      client.send(new Uint8Array(octets), address(peer), port);
      return came === octets;
    };
    return { ask, client, server };
  }

  /** What has changed in the layers that a node opened and sealed. */
  function counted(node: Node, act: () => void): { opened: number; sealed: number } {
    const { stats } = node.host;
    const now = () => {
      const sums = stats.families[family];
      return { opened: sums.opened[proto], sealed: sums.sealed[proto] };
    };
    const before = now();
    act();
    const after = now();
    return { opened: after.opened - before.opened, sealed: after.sealed - before.sealed };
  }

  function drops(): unknown[] {
    return [a, b].map(({ host }) => [host.stats.dropped('in'), host.stats.dropped('out')]);
  }

  // Row D: ping small, ping big, UDP echo, each with its exact counts.
  test.each([24, 1000])('ping of %i octets: one layer on, and a clear reply', (size) => {
    expect(
      counted(a, () => expect(a.ping(peer, [`out ${there}`], size)).toBe(mode === 'transport')),
    ).toEqual({ opened: 0, sealed: 1 });
    // Nobody has told B of the tunnel.
    expect(drops()[1]).toEqual([mode === 'tunnel' ? [['policy-unprotected-selector', 1]] : [], []]);
  });

  test('UDP echo: one layer each way, and nothing is dropped', () => {
    const { ask } = echo(7, true);
    for (const octets of [24, 1000]) {
      expect(counted(a, () => expect(ask(octets)).toBe(true))).toEqual({ opened: 1, sealed: 1 });
      expect(bus.take().map(({ what, spi }) => [what, spi])).toEqual([
        [proto, 10000],
        [proto, 10001],
      ]);
    }
    expect(drops()).toEqual([
      [[], []],
      [[], []],
    ]);
  });

  // Row C: a plain exchange works, then one that is protected.
  test('UDP plain, then protected, then plain again; its neighbour is plain all the time', () => {
    const one = echo(7, false);
    const neighbour = echo(8, false);
    const kinds = () => {
      bus.take();
      expect([one.ask(10), neighbour.ask(10)]).toEqual([true, true]);
      return bus.take().map(({ what }) => what);
    };
    expect(kinds()).toEqual(['plain', 'plain', 'plain', 'plain']);
    one.client.setsockopt(OPTION[family], `out ${there}`);
    one.client.setsockopt(OPTION[family], `in ${back}`);
    one.server.setsockopt(OPTION[family], `out ${back}`);
    one.server.setsockopt(OPTION[family], `in ${there}`);
    expect(kinds()).toEqual([proto, proto, 'plain', 'plain']);
    for (const socket of [one.client, one.server]) {
      socket.setsockopt(OPTION[family], 'in entrust');
      socket.setsockopt(OPTION[family], 'out entrust');
    }
    expect(kinds()).toEqual(['plain', 'plain', 'plain', 'plain']);
  });

  test('require refuses plain packets to that socket alone, and says so to nobody', () => {
    const got: number[] = [];
    const closed = b.inet.openUdp(7, () => got.push(7));
    closed.setsockopt(OPTION[family], `in ${there}`);
    b.inet.openUdp(8, () => got.push(8));
    const sender = a.inet.openUdp(0, () => {});
    for (const port of [7, 8]) sender.send(new Uint8Array(5), address(peer), port);
    expect(got).toEqual([8]);
    expect(b.host.stats.dropped('in')).toEqual([['policy-clear', 1]]);
    expect(bus.take().length).toBe(2);
  });

  test('each side can ask whether it is protected, and how', () => {
    const { ask, client, server } = echo(7, true);
    expect(client.protection(family).in).toMatchObject({ packets: 0, layers: [] });
    ask(10);
    const algorithms = [proto === 'esp' ? 'aes-gcm-16' : 'hmac-sha256'];
    const layer = { protocol: proto, mode, algorithms };
    const out = { ...layer, spi: 10000, src: local, dst: peer };
    const into = { ...layer, spi: 10001, src: peer, dst: local };
    expect(client.protection(family)).toMatchObject({
      out: { state: 'protected', packets: 1, layers: [out], policy: { of: 'socket' } },
      in: { state: 'protected', packets: 1, layers: [into] },
    });
    expect(server.protection(family)).toMatchObject({
      out: { layers: [into] },
      in: { layers: [out] },
    });
    const plain = echo(9, false);
    plain.client.protection(family);
    plain.ask(1);
    expect(plain.client.protection(family)).toMatchObject({
      in: { state: 'clear' },
      out: { state: 'clear' },
    });
  });
});

describe('other sockets', () => {
  let bus: Bus;
  let a: Node;
  let b: Node;

  beforeEach(() => {
    bus = new Bus();
    a = bus.add('10.0.0.1', 'fd00::1');
    b = bus.add('10.0.0.2');
    const sas = `add 10.0.0.1 10.0.0.2 esp 10000 ${ALGORITHMS.esp};`;
    for (const node of [a, b]) expect(node.setkey(sas)).toEqual([]);
  });

  test('a connected one is known by its peer', () => {
    const socket = a.inet.openUdp(0, () => {});
    socket.setsockopt('IP_IPSEC_POLICY', 'out ipsec esp/transport//require');
    socket.setsockopt('IPV6_IPSEC_POLICY', 'in ipsec esp/transport//require');
    socket.connect(address('10.0.0.2'), 7);
    const ends = [...a.host.sockets.all()].map(({ ends: one }) => one);
    expect(ends).toMatchObject([
      { family: 4, local: address('10.0.0.1'), remote: address('10.0.0.2'), remotePort: 7 },
      { family: 6, localPort: 0 },
    ]);
    socket.send(new Uint8Array(4));
    expect(bus.take().map(({ what }) => what)).toEqual(['esp', 'plain']);
    socket.close();
    expect(a.host.sockets.size).toBe(0);
  });

  test('raw ones: each gets what its own policy lets in', () => {
    const got: string[] = [];
    const open = (name: string) => b.inet.openRaw(89, () => got.push(name), { privileged: true });
    const strict = open('strict');
    strict.setsockopt('IP_IPSEC_POLICY', 'in ipsec esp/transport//require');
    open('entrusting');
    const bypass = open('bypass');
    bypass.setsockopt('IP_IPSEC_POLICY', 'in bypass');
    const sender = a.inet.openRaw(89, () => {});
    const arrived = () => {
      sender.send(new Uint8Array(8), address('10.0.0.2'));
      return got.splice(0).sort();
    };
    expect(arrived()).toEqual(['bypass', 'entrusting']);
    expect(b.setkey('spdadd 10.0.0.1 10.0.0.2 any -P in discard;')).toEqual([]);
    expect(arrived()).toEqual(['bypass']);
    sender.setsockopt('IP_IPSEC_POLICY', 'out ipsec esp/transport//require');
    expect(arrived()).toEqual(['bypass', 'strict']);
    expect(b.setkey('spdflush;')).toEqual([]);
    expect(arrived()).toEqual(['bypass', 'entrusting', 'strict']);
    strict.close();
    expect(arrived()).toEqual(['bypass', 'entrusting']);
  });

  test('without an SA key exchange is asked, with the policy of the socket', () => {
    const asked: unknown[] = [];
    const session = a.engine.connect({
      ...{ origin: 'client', dialect: 'linux', deliverDump: () => {} },
      deliver: (message) => void (message.type === 'ACQUIRE' && asked.push(message)),
    });
    const head = { errno: 0, seq: 1, pid: 9, reserved: 0, extensions: [] };
    session.request({ type: 'REGISTER', satype: 'ah', ...head });
    const socket = a.inet.openUdp(500, () => {});
    socket.setsockopt('IP_IPSEC_POLICY', 'out ipsec ah/transport//unique');
    socket.send(new Uint8Array(4), address('10.0.0.2'), 7);
    expect(asked).toMatchObject([
      {
        satype: 'ah',
        extensions: [
          { type: 'ADDRESS_SRC', proto: 17, port: 500 },
          { type: 'ADDRESS_DST', proto: 17, port: 7 },
          { type: 'X_POLICY', policyType: 2, direction: 2 },
          { type: 'X_SA2', reqid: 0x4000 },
          { type: 'PROPOSAL' },
        ],
      },
    ]);
    expect(a.host.packetsHeld).toBe(1);
    const sa = `add 10.0.0.1 10.0.0.2 ah 10002 -u 16384 ${ALGORITHMS.ah};`;
    expect(a.setkey(sa)).toEqual([]);
    a.host.releaseHeld();
    expect(bus.take().map(({ what, spi }) => [what, spi])).toEqual([['ah', 10002]]);
    session.close();
  });
});
