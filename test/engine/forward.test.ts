import { expect, test } from 'vitest';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { counting, fragmentHeader, ipv6Packet, udp } from '../wire/octets.ts';
import { policy, Rig } from './rig.ts';

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
  expect(one.host.buffersFree).toBe(128);
});

test('a local side that does not forward gets the datagram', () => {
  const [whole, ...more] = rig(false).input(...FRAGMENTS);
  expect(more).toEqual([]);
  expect([ipv6.nextHeader(whole!, 0), whole!.slice(40)]).toEqual([17, DATAGRAM]);
});
