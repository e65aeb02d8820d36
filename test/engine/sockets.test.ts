import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { explanationText } from '../../src/engine/explain-text.ts';
import type { SocketEnds, SocketHandle } from '../../src/engine/socket-policies.ts';
import { plainRule, type SocketRule } from '../../src/engine/socket-rule.ts';
import type { Request } from '../../src/spd/policy.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { packetFrom } from '../../src/wire/packet.ts';
import { counting, hex, ipv4Packet, ipv6Packet, udp } from '../wire/octets.ts';
import { icmpError, tooBig } from './errors.ts';
import { Pair } from './pair.ts';
import { policy, Rig, request, sa } from './rig.ts';

const ALL = '0.0.0.0/0';
/** 10.0.0.1:1000 > 10.0.0.2:2000. */
const FLOW = ipv4Packet({ protocol: 17 }, udp(counting(40)));
const NEIGHBOUR = ipv4Packet({ protocol: 17 }, neighbour());
const A = { src: '10.0.0.1', dst: '10.0.0.2' } as const;

function neighbour(): Uint8Array {
  const datagram = udp(counting(40));
  datagram.set(hex('03e9 07d1'));
  return datagram;
}

function ipsec(...requests: Request[]): SocketRule {
  return { ...plainRule('entrust', 'out'), type: 'ipsec', requests };
}

const REQUIRE = ipsec(request({}));

/** The socket of `FLOW`, at its source or at its destination. */
function open(
  rig: Rig,
  at: 'source' | 'destination',
  rules: { in?: SocketRule; out?: SocketRule },
  privileged = true,
): SocketHandle {
  const localPort = at === 'source' ? 1000 : 2000;
  const ends: SocketEnds = { family: 4, protocol: 17, localPort, remotePort: 0 };
  return rig.host.sockets.open(ends, { privileged, ...rules });
}

/** A has SAs to B, and B has them too; no policies. */
function pair(layers: ConstructorParameters<typeof Pair>[0] = [{}]): Pair {
  const both = new Pair(layers);
  both.a.spd.flush();
  both.b.spd.flush();
  return both;
}

function protocols(wire: readonly Uint8Array[]): number[] {
  return wire.map((p) => ipv4.protocol(p, 0));
}

describe('going out', () => {
  test('ipsec: the packets of the socket are protected, those of its neighbour are not', () => {
    const { a } = pair();
    open(a, 'source', { out: REQUIRE });
    const ends: SocketEnds = { family: 4, protocol: 17, localPort: 1001, remotePort: 0 };
    a.host.sockets.open(ends, { privileged: false });
    expect(protocols(a.outputOfSockets(FLOW, NEIGHBOUR, FLOW))).toEqual([50, 17, 50]);
  });

  test('all packets of a flow in one batch are of the socket', () => {
    const { a } = pair();
    const { entry } = open(a, 'source', { out: REQUIRE });
    expect(protocols(a.outputOfSockets(FLOW, FLOW, FLOW))).toEqual([50, 50, 50]);
    expect(entry.used.out.packets).toBe(3);
  });

  test('a packet whose socket is not known is dropped, also between others', () => {
    const { a } = pair();
    open(a, 'source', { out: REQUIRE });
    expect(protocols(a.outputOfSockets(FLOW, NEIGHBOUR, FLOW))).toEqual([50, 50]);
    expect(a.drops()).toEqual({ 'out socket-unknown': 1 });
  });

  test('what comes by the other way never asks the table', () => {
    const { a } = pair();
    open(a, 'source', { out: REQUIRE });
    expect(protocols(a.output(FLOW))).toEqual([17]);
  });

  test('a fragment goes by the socket of its datagram', () => {
    const { a } = pair();
    open(a, 'source', { out: REQUIRE });
    const data = FLOW.slice(20);
    const first = ipv4Packet({ protocol: 17, id: 5, flags: ipv4.FLAG_MF }, data.slice(0, 24));
    const later = ipv4Packet({ protocol: 17, id: 5, offset: 24 }, data.slice(24));
    expect(a.outputOfSockets(later)).toEqual([]);
    expect(protocols(a.outputOfSockets(first))).toEqual([50]);
    // Fragments of another way in are another datagram.
    a.spd.add(policy('out', ALL, ALL, { requests: [request({})] }));
    expect([a.output(later), a.outputOfSockets(first)]).toEqual([[], []]);
    expect(protocols(a.output(first))).toEqual([50]);
  });

  test('a fragment of a socket that hands its packets over itself', () => {
    const { a } = pair();
    const { entry } = open(a, 'source', { out: REQUIRE });
    const data = FLOW.slice(20);
    const first = ipv4Packet({ protocol: 17, id: 5, flags: ipv4.FLAG_MF }, data.slice(0, 24));
    const later = ipv4Packet({ protocol: 17, id: 5, offset: 24 }, data.slice(24));
    a.host.outputOf(entry, [packetFrom(first), packetFrom(later)], 2);
    expect(protocols(a.sent)).toEqual([50]);
  });

  test('a rule for a socket of ICMPv6 is meant for neighbour discovery, too', () => {
    const ends: SocketEnds = { family: 6, protocol: 58, localPort: 0, remotePort: 0, raw: true };
    const rig = new Rig();
    const { entry } = rig.host.sockets.open(ends, { privileged: true, in: REQUIRE, out: REQUIRE });
    const solicitation = ipv6Packet(58, hex('8700 0000'), counting(20));
    expect(rig.outputOfSockets(solicitation)).toEqual([]);
    expect(rig.drops()).toEqual({ 'out no-sa': 1 });
    expect(rig.input(solicitation).length).toBe(1);
    expect([rig.toSockets, entry.refused]).toEqual([[], 1]);
  });

  const SPD = ['none', 'discard', 'ipsec'] as const;
  const RULES = { entrust: plainRule('entrust', 'out'), bypass: plainRule('bypass', 'out') };
  test.each([
    // rule, privileged, what the host says, what goes out
    ['entrust', true, 'nothing', [17]],
    ['entrust', true, 'discard', []],
    ['entrust', true, 'ipsec', [51]],
    ['entrust', false, 'ipsec', [51]],
    ['ipsec', true, 'nothing', [50]],
    ['ipsec', true, 'none', [50]],
    ['ipsec', true, 'discard', [50]],
    ['ipsec', true, 'ipsec', [50]],
    ['bypass', true, 'nothing', [17]],
    ['bypass', true, 'discard', [17]],
    ['bypass', true, 'ipsec', [17]],
    // Of a socket without privilege the host is asked first, also where it says none.
    ['ipsec', false, 'nothing', [50]],
    ['ipsec', false, 'none', [17]],
    ['ipsec', false, 'discard', []],
    ['ipsec', false, 'ipsec', [51]],
  ] as const)('%s, privileged %s, the host says %s', (rule, privileged, host, sent) => {
    const { a } = pair();
    a.sad.add(sa({ protocol: 'ah', spi: 0x3001, ...A, auth: 'hmac-sha1' }), 'mature');
    const type = SPD.find((one) => one === host);
    const requests = type === 'ipsec' ? [request({ protocol: 'ah' })] : [];
    if (type) a.spd.add(policy('out', ALL, ALL, { type, requests }));
    open(a, 'source', { out: rule === 'ipsec' ? REQUIRE : RULES[rule] }, privileged);
    expect(protocols(a.outputOfSockets(FLOW))).toEqual(sent);
  });

  test('def_policy discard is for what neither the host nor the socket speaks of', () => {
    const { a } = pair();
    a.host.settings.inet.defPolicy = 'discard';
    const socket = open(a, 'source', {}, false);
    expect(a.outputOfSockets(FLOW)).toEqual([]);
    socket.setRule('out', REQUIRE);
    expect(protocols(a.outputOfSockets(FLOW))).toEqual([50]);
  });

  test('level default asks the host', () => {
    const rig = new Rig();
    open(rig, 'source', { out: ipsec(request({ level: 'default' })) });
    expect(protocols(rig.outputOfSockets(FLOW))).toEqual([17]);
    rig.host.settings.inet.espTransDeflev = 'require';
    expect(rig.outputOfSockets(FLOW)).toEqual([]);
  });

  test('a rule for the socket of IKE is meant for it', () => {
    const { a } = pair();
    const ike = FLOW.slice();
    ike.set(hex('01f4'), 20);
    const ends: SocketEnds = { family: 4, protocol: 17, localPort: 500, remotePort: 0 };
    a.host.sockets.open(ends, { privileged: true, out: REQUIRE });
    expect(protocols(a.outputOfSockets(ike))).toEqual([50]);
  });

  test('no SA: it is asked for with the policy of the socket, and the packet waits with its socket', () => {
    const asked: unknown[] = [];
    const rig = new Rig({
      events: {
        acquire: ({ id, direction, type }, { reqid }) => {
          asked.push({ id, direction, type, reqid });
          return 'asked';
        },
      },
    });
    const rule = ipsec(request({ level: 'unique', reqid: 0x4001 }));
    const { entry } = open(rig, 'source', { out: rule });
    const { id } = entry.policies.out!;
    expect(id).toBeGreaterThanOrEqual(0x8000_0000);
    expect(rig.outputOfSockets(FLOW)).toEqual([]);
    expect(asked).toEqual([{ id, direction: 'out', type: 'ipsec', reqid: 0x4001 }]);
    expect([rig.host.packetsHeld, rig.drops()]).toEqual([1, {}]);
    rig.sad.add(sa({ spi: 0x1001, ...A, reqid: 0x4001 }), 'mature');
    rig.host.releaseHeld();
    expect(protocols(rig.sent)).toEqual([50]);
  });

  test('a held packet goes by the rule that its socket has now', () => {
    const rig = new Rig({ events: { acquire: () => 'asked' } });
    const socket = open(rig, 'source', { out: REQUIRE });
    rig.outputOfSockets(FLOW);
    rig.host.releaseHeld();
    expect(rig.sent).toEqual([]);
    socket.setRule('out', plainRule('bypass', 'out'));
    rig.host.releaseHeld();
    expect(protocols(rig.sent)).toEqual([17]);
  });

  test('too big: the socket is told', () => {
    const both = new Pair([{}], { mtu: 1000 });
    both.a.spd.flush();
    const { entry } = open(both.a, 'source', { out: REQUIRE });
    const large = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_DF }, udp(counting(1000)));
    expect(both.a.outputOfSockets(large)).toEqual([]);
    expect(both.a.toSockets.map(({ takers }) => takers)).toEqual([entry.alone]);
  });
});

describe('coming in', () => {
  function arrives(
    rule: SocketRule,
    as: 'plain' | 'transport' | 'tunnel' | 'ah',
    options: { host?: 'none' | 'ipsec' | 'discard'; privileged?: boolean } = {},
  ): string {
    const layer = {
      ...{ plain: {}, transport: {} },
      tunnel: { tunnel: 4 as const },
      ah: { protocol: 'ah' as const },
    }[as];
    const { a, b } = new Pair([layer]);
    b.spd.flush();
    const { host, privileged = true } = options;
    const requests = host === 'ipsec' ? [request({})] : [];
    if (host) b.spd.add(policy('in', ALL, ALL, { type: host, requests }));
    const { entry } = open(b, 'destination', { in: rule }, privileged);
    const delivered = b.input(...(as === 'plain' ? [FLOW] : a.output(FLOW)));
    if (delivered.length === 0) return Object.keys(b.drops()).join();
    expect(b.toSockets).toEqual([{ octets: FLOW, takers: entry.alone }]);
    return 'passes';
  }

  const RULES = {
    require: REQUIRE,
    use: ipsec(request({ level: 'use' })),
    'require tunnel': ipsec(request({ mode: 'tunnel', ...A })),
    bypass: plainRule('bypass', 'in'),
    entrust: plainRule('entrust', 'in'),
  };
  test.each([
    ['require', 'plain', {}, 'in policy-clear'],
    ['require', 'transport', {}, 'passes'],
    ['require', 'ah', {}, 'in policy-mismatch'],
    ['require', 'tunnel', {}, 'in policy-mismatch'],
    ['use', 'plain', {}, 'passes'],
    ['require tunnel', 'tunnel', {}, 'passes'],
    ['require', 'plain', { host: 'none' }, 'in policy-clear'],
    ['require', 'transport', { host: 'discard' }, 'passes'],
    ['bypass', 'plain', { host: 'ipsec' }, 'passes'],
    ['bypass', 'plain', { host: 'discard' }, 'passes'],
    ['bypass', 'transport', { host: 'ipsec' }, 'passes'],
    // What a tunnel brings is for the policy of the tunnel.
    ['bypass', 'tunnel', {}, 'in policy-unprotected-selector'],
    ['entrust', 'plain', {}, 'passes'],
    ['entrust', 'plain', { host: 'ipsec' }, 'in policy-clear'],
    ['entrust', 'transport', { host: 'ipsec' }, 'passes'],
    ['require', 'plain', { privileged: false }, 'in policy-clear'],
    ['require', 'plain', { privileged: false, host: 'none' }, 'passes'],
    ['require', 'plain', { privileged: false, host: 'discard' }, 'in policy-discard'],
  ] as const)('%s, as %s, %j: %s', (rule, as, options, verdict) => {
    expect(arrives(RULES[rule], as, options)).toBe(verdict);
  });

  test('require refuses plain packets to that socket alone', () => {
    const rig = new Rig();
    const { entry } = open(rig, 'destination', { in: REQUIRE });
    expect(rig.input(FLOW, NEIGHBOUR)).toEqual([NEIGHBOUR]);
    expect([rig.toSockets, entry.refused]).toEqual([[], 1]);
    expect(rig.drops()).toEqual({ 'in policy-clear': 1 });
  });

  test('the packets of a flow in one batch all go to the socket', () => {
    const { a, b } = pair();
    a.spd.add(policy('out', ALL, ALL, { requests: [request({})] }));
    const { entry } = open(b, 'destination', { in: REQUIRE });
    b.input(...a.output(FLOW, FLOW, FLOW));
    expect(b.toSockets.map(({ takers }) => takers)).toEqual([
      entry.alone,
      entry.alone,
      entry.alone,
    ]);
    expect([entry.used.in.packets, entry.used.out.packets]).toEqual([3, 0]);
  });

  test('fragments within a tunnel wait for the ports, if they may be for a socket', () => {
    const { a, b } = new Pair([{ tunnel: 4 }]);
    // Of somebody behind A, which need not look into it.
    const from = { protocol: 17, src: 9, id: 5 };
    const first = ipv4Packet({ ...from, flags: ipv4.FLAG_MF }, FLOW.slice(20, 44));
    const later = ipv4Packet({ ...from, offset: 24 }, FLOW.slice(44));
    const { entry } = open(b, 'destination', {});
    expect(b.input(...a.output(first))).toEqual([]);
    expect(b.input(...a.output(later)).length).toBe(1);
    expect(b.toSockets[0]!.takers).toBe(entry.alone);
  });

  test('what is forwarded is not for the sockets of this host', () => {
    const isLocal = (_: 4 | 6, p: Uint8Array, at: number) => p[at + 3] === 1;
    const rig = new Rig({ sockets: { isLocal }, forwards: true });
    open(rig, 'destination', { in: REQUIRE });
    expect(rig.input(FLOW)).toEqual([FLOW]);
    expect(rig.toSockets).toEqual([]);
  });

  test('raw sockets get copies each by its own rule, whatever the others get', () => {
    const igmp = ipv4Packet({ protocol: 89 }, counting(20));
    const raw: SocketEnds = { family: 4, protocol: 89, localPort: 0, remotePort: 0, raw: true };
    const rig = new Rig();
    const strict = rig.host.sockets.open(raw, { privileged: true, in: REQUIRE });
    rig.input(igmp);
    // Nobody is named: it is for everybody but the one that refused it.
    expect([rig.delivered.length, rig.toSockets.length, strict.entry.refused]).toEqual([1, 0, 1]);
    const easy = rig.host.sockets.open(raw, { privileged: true });
    rig.input(igmp);
    expect(rig.toSockets.pop()!.takers).toEqual({ sockets: [easy.entry], others: true });
    rig.spd.add(policy('in', ALL, ALL, { type: 'discard' }));
    expect(rig.input(igmp)).toEqual([]);
    easy.setRule('in', plainRule('bypass', 'in'));
    rig.input(igmp);
    expect(rig.toSockets.pop()!.takers).toEqual({ sockets: [easy.entry], others: false });
  });

  test('a raw socket gets what the socket that it is for refuses', () => {
    const reply = ipv4Packet({ protocol: 1 }, hex('0000 0000 0007 0001'));
    const rig = new Rig();
    const icmp = { family: 4, protocol: 1, remotePort: 0 } as const;
    const echo = rig.host.sockets.open({ ...icmp, localPort: 7 }, { privileged: true });
    const raw = rig.host.sockets.open({ ...icmp, localPort: 0, raw: true }, { privileged: true });
    rig.input(reply);
    const both = [echo.entry, raw.entry];
    expect(rig.toSockets.pop()!.takers).toEqual({ sockets: both, others: false });
    echo.setRule('in', REQUIRE);
    rig.input(reply);
    expect(rig.toSockets.pop()!.takers).toEqual({ sockets: [raw.entry], others: false });
  });
});

describe('ICMP errors about what a socket sent', () => {
  test('go to the socket, in the clear only if it wants no protection', () => {
    const rig = new Rig();
    const socket = open(rig, 'source', {});
    const error = icmpError(FLOW, 3, 3, { src: [10, 0, 0, 2] });
    rig.input(error);
    expect(rig.toSockets.pop()!.takers.sockets).toEqual([socket.entry]);
    socket.setRule('in', REQUIRE);
    expect(rig.input(error)).toEqual([]);
    expect(rig.drops()).toEqual({ 'in icmp-flow-protected': 1 });
    // About others it is as ever.
    expect(rig.input(icmpError(NEIGHBOUR, 3, 3)).length).toBe(1);
    expect(rig.input(tooBig(NEIGHBOUR, 600)).length).toBe(1);
  });
});

describe('explain', () => {
  test('names the rule of the socket as what decided, and why the host was not asked', () => {
    const { a } = pair();
    a.spd.add(policy('out', ALL, ALL, { type: 'discard' }));
    open(a, 'source', { out: REQUIRE });
    const [told] = a.host.explain('out', [FLOW]);
    expect(told!.outcome.kind).toBe('protected');
    expect(told!.policy!.socket).toMatchObject({
      ...{ ends: 'protocol 17 any[1000] any[any]', rule: 'ipsec', privileged: true, decides: true },
      match: 'it is bound to this port of any address',
      why: 'it is privileged, so its policy comes first',
    });
    expect(told!.policy!.considered).toEqual([]);
    expect(explanationText(told!)).toContain('protocol 17 any[1000] any[any] says ipsec');
    const [other] = a.host.explain('out', [NEIGHBOUR]);
    expect([other!.policy!.socket, other!.outcome.kind]).toEqual([undefined, 'dropped']);
  });

  test('of a socket without privilege it shows the policies of the host that did not fit', () => {
    const { a } = pair();
    a.spd.add(policy('out', ALL, '10.9.0.0/16', { type: 'discard' }));
    open(a, 'source', { out: REQUIRE }, false);
    const { policy: choice, outcome } = a.host.explain('out', [FLOW])[0]!;
    expect(outcome.kind).toBe('protected');
    expect(choice!.considered.map(({ why }) => why)).toEqual([
      'destination 10.0.0.2 is not in 10.9.0.0/16',
    ]);
    expect(choice!.socket).toMatchObject({ privileged: false, decides: true });
    a.spd.add(policy('out', ALL, ALL, { type: 'none' }));
    const again = a.host.explain('out', [FLOW])[0]!;
    expect(again.outcome.kind).toBe('clear');
    expect(again.policy!.socket).toMatchObject({ rule: 'ipsec', decides: false });
  });

  test('coming in: at fault is the policy of the socket; nothing is counted', () => {
    const rig = new Rig();
    const { entry } = open(rig, 'destination', { in: REQUIRE });
    const [told] = rig.host.explain('in', [FLOW]);
    expect(told!.outcome).toMatchObject({
      reason: 'policy-clear',
      fault: 'the policy of socket protocol 17 any[2000] any[any], request esp/transport//require',
    });
    expect([entry.refused, entry.used.in.packets]).toEqual([0, 0]);
  });

  test('a packet that must be of a socket, and is of none', () => {
    const rig = new Rig();
    const [told] = rig.host.explain('out', [FLOW], { ofSockets: true });
    expect(told!.outcome).toMatchObject({ kind: 'dropped', reason: 'socket-unknown' });
  });
});

describe('protection', () => {
  const ENDS: SocketEnds = {
    ...{ family: 4, protocol: 17, localPort: 1000, remotePort: 2000 },
    ...{ local: address('10.0.0.1'), remote: address('10.0.0.2') },
  };
  const esp = (spi: number, src: string, dst: string) => ({
    ...{ protocol: 'esp', spi, mode: 'transport', src, dst, algorithms: ['aes-gcm-16'] },
  });

  test('of a socket: what its last packets had', () => {
    const { a, b } = pair();
    const socket = open(a, 'source', { out: REQUIRE });
    const { entry } = socket;
    expect(a.host.protectionOf(entry)).toMatchObject({
      out: { state: 'lacking', layers: [], policy: { of: 'socket', type: 'ipsec' } },
      in: { state: 'open' },
    });
    b.input(...a.outputOfSockets(FLOW));
    const there = a.host.protectionOf(entry).out;
    expect(there).toMatchObject({
      state: 'protected',
      packets: 1,
      lastWallMs: a.env.clock.wallMs(),
    });
    expect(there.layers).toEqual([esp(0x1001, '10.0.0.1', '10.0.0.2')]);
    socket.setRule('out', plainRule('bypass', 'out'));
    a.outputOfSockets(FLOW);
    expect(a.host.protectionOf(entry).out).toMatchObject({
      ...{ state: 'clear', packets: 2, layers: [], policy: { type: 'none' } },
    });
    expect(JSON.stringify(a.host.protectionOf(entry))).not.toMatch(/key/i);
  });

  test('of any flow: what its next packet will get', () => {
    const { a } = new Pair([{}]);
    expect(a.host.protectionOf(ENDS)).toMatchObject({
      out: { state: 'ready', layers: [esp(0x1001, '10.0.0.1', '10.0.0.2')] },
      in: { state: 'lacking', policy: { of: 'host', requests: ['esp/transport//require:1'] } },
    });
    const rig = new Rig();
    expect(rig.host.protectionOf(ENDS)).toMatchObject({
      in: { state: 'open' },
      out: { state: 'open' },
    });
    rig.spd.add(policy('out', ALL, ALL, { requests: [request({})] }));
    rig.spd.add(policy('in', ALL, ALL, { type: 'discard' }));
    expect(rig.host.protectionOf(ENDS)).toMatchObject({
      ...{ in: { state: 'blocked' }, out: { state: 'lacking' } },
    });
  });

  test('of a socket whose own packets it sends', () => {
    const { a } = pair();
    const { entry } = a.host.sockets.open(ENDS, { privileged: true, out: REQUIRE });
    expect(a.host.protectionOf(entry).out.state).toBe('ready');
    a.host.outputOf(entry, [packetFrom(FLOW)], 1);
    expect(protocols(a.sent)).toEqual([50]);
    expect(a.host.protectionOf(ENDS).out.state).toBe('protected');
  });
});
