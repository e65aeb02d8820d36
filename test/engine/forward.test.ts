import { describe, expect, test } from 'vitest';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { counting, fragmentHeader, ipv6Packet, udp } from '../wire/octets.ts';
import { Pair } from './pair.ts';
import { BUFFERS, policy, Rig } from './rig.ts';

/** What the kernel behind a TUN may have to forward must not have grown on the way through us. */

const DATAGRAM = udp(counting(2000));
const FRAGMENTS = [
  ipv6Packet(44, fragmentHeader(17, 0, 1, 7), DATAGRAM.slice(0, 1000)),
  ipv6Packet(44, fragmentHeader(17, 1000, 0, 7), DATAGRAM.slice(1000)),
];

function rig(forwards: boolean): Rig {
  const one = new Rig({ forwards });
  // A policy that needs ports, so that the fragments must be put together.
  one.spd.add(policy('in', '::/0', '::/0', { type: 'none', protocol: 17, dport: 9 }));
  return one;
}

test('IPv6 fragments are judged as a whole, and go on no larger than they came', () => {
  const one = rig(true);
  const delivered = one.input(...FRAGMENTS);
  expect(delivered.map((packet) => packet.length)).toEqual([1056, 1048]);
  const data = delivered.flatMap((packet) => [...packet.slice(48)]);
  expect(data).toEqual([...DATAGRAM]);
  expect(one.drops()).toEqual({});
  expect(one.host.buffersFree).toBe(BUFFERS);
});

test('a local side that does not forward gets the datagram', () => {
  const [whole, ...more] = rig(false).input(...FRAGMENTS);
  expect(more).toEqual([]);
  expect([ipv6.nextHeader(whole!, 0), whole!.slice(40)]).toEqual([17, DATAGRAM]);
});

describe('IPv6 fragments into a tunnel, under a policy with ports', () => {
  const behind = { family: 6, ports: { protocol: 17, dport: 2000 } } as const;
  // The first was larger by what the second lacked.
  const lengths = [1056, 1048];

  test('are cut again, since the wire behind the other end may be as narrow', () => {
    const { a, b } = new Pair([{ tunnel: 6 }], { ...behind, forwards: true });
    const wire = a.output(...FRAGMENTS);
    expect(wire.length).toBe(2);
    const delivered = b.input(...wire);
    expect(delivered.map((packet) => packet.length)).toEqual(lengths);
    expect(delivered.flatMap((packet) => [...packet.slice(48)])).toEqual([...DATAGRAM]);
    expect([a.drops(), b.drops()]).toEqual([{}, {}]);
    expect([a.host.buffersFree, b.host.buffersFree]).toEqual([BUFFERS, BUFFERS]);
    expect(a.host.stats.outProtected).toBe(2);
  });

  test('a bundle goes around each of them', () => {
    const layers = [{ tunnel: 4 }, { protocol: 'ah' }, { tunnel: 6 }] as const;
    const { wire, delivered } = new Pair(layers, { ...behind, forwards: true }).send(...FRAGMENTS);
    expect(wire.length).toBe(2);
    expect(delivered.map((packet) => packet.length)).toEqual(lengths);
  });

  test('in transport mode the peer is the end, and gets the datagram', () => {
    const { a, b } = new Pair([{}], { ...behind, forwards: true, peer: { forwards: false } });
    const delivered = b.input(...a.output(...FRAGMENTS));
    expect(delivered.map((packet) => packet.length)).toEqual([40 + DATAGRAM.length]);
  });

  test('what one piece finds no buffer for is dropped as a whole, and counted', () => {
    const { a } = new Pair([{ tunnel: 6 }], { ...behind, forwards: true, buffers: 2 });
    expect(a.output(...FRAGMENTS)).toEqual([]);
    expect(a.drops()).toEqual({ 'out no-room': 1 });
    expect(a.host.buffersFree).toBe(2);
  });
});

test.each([4, 6] as const)(
  'IPv6 whose tunnel over IPv%i was cut on its way goes on whole',
  (outer) => {
    const pair = new Pair([{ tunnel: outer }], { family: 6, mtu: 1300, peer: { forwards: true } });
    const packet = ipv6Packet(17, udp(counting(1260)));
    const { wire, delivered } = pair.send(packet);
    expect(wire.length).toBe(2);
    expect(delivered).toEqual([packet]);
    expect(pair.b.host.buffersFree).toBe(BUFFERS);
  },
);
