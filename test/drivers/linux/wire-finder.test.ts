import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { address } from '../../../src/base/address.ts';
import { libc } from '../../../src/drivers/linux/libc.ts';
import { WireFinder } from '../../../src/drivers/linux/wire-finder.ts';
import * as ipv4 from '../../../src/wire/ipv4.ts';
import * as ipv6 from '../../../src/wire/ipv6.ts';
import { type Packet, packetFrom } from '../../../src/wire/packet.ts';
import { announceSkip, whyNoHosts } from '../../hosts/namespaces.ts';
import { TestSpace } from './test-space.ts';

const MARK = 7557;

describe.skipIf(announceSkip('wire-finder.test.ts', whyNoHosts()))('the wire of a packet', () => {
  let space: TestSpace;
  let finder: WireFinder;

  beforeEach(() => {
    space = new TestSpace();
    space.addWire();
    space.sh('ip link add w2 type veth peer name w3; ip link set w2 up; ip link set w3 up');
    space.sh('ip addr add 10.2.0.1/24 dev w2; ip addr add fd02::1/64 dev w2 nodad');
    finder = space.inside(() => new WireFinder(libc('a test'), MARK));
  });

  afterEach(() => {
    finder.close();
    space.close();
  });

  const indexOf = (device: string) => Number(space.sh(`cat /sys/class/net/${device}/ifindex`));

  test.each([
    ['10.1.0.2', 'w0'],
    ['10.2.0.2', 'w2'],
    ['fd01::2', 'w0'],
    ['fd02::2', 'w2'],
  ])('to %s is %s', (to, device) => {
    expect(finder.deviceOf(packetTo(to))).toBe(indexOf(device));
    expect(finder.deviceOf(packetTo(to))).toBe(indexOf(device));
  });

  test('is 0 where no route leads, and for what is no packet', () => {
    expect(finder.deviceOf(packetTo('10.3.0.1'))).toBe(0);
    expect(finder.deviceOf(packetFrom(Uint8Array.of(0x45, 0)))).toBe(0);
    expect(finder.deviceOf(packetFrom(new Uint8Array(39).fill(0x60)))).toBe(0);
  });

  test('is that of packets with the mark, and the old one until it forgets', () => {
    const packet = packetTo('10.1.0.2');
    expect(finder.deviceOf(packet)).toBe(indexOf('w0'));
    space.sh('ip route add 10.1.0.2 dev w2 table 77; ip rule add fwmark 7557 table 77');
    expect(finder.deviceOf(packet)).toBe(indexOf('w0'));
    finder.forget();
    expect(finder.deviceOf(packet)).toBe(indexOf('w2'));
  });
});

function packetTo(text: string): Packet {
  const to = address(text);
  const p = new Uint8Array(60);
  p[0] = to.family << 4;
  p.set(to.bytes, to.family === 4 ? ipv4.DST_AT : ipv6.DST_AT);
  return packetFrom(p);
}
