import { describe, expect, test } from 'vitest';
import { Hold } from '../../src/engine/hold.ts';
import * as esp from '../../src/wire/esp.ts';
import { packetFrom } from '../../src/wire/packet.ts';
import { counting, ipv4Packet, udp } from '../wire/octets.ts';
import { policy, Rig, request, sa } from './rig.ts';

const ALL = '0.0.0.0/0';
const FROM_A = { src: '10.0.0.1', dst: '10.0.0.2' };

function datagram(octets: number): Uint8Array {
  return ipv4Packet({ protocol: 17 }, udp(counting(octets)));
}

function negotiating(answer: 'asked' | 'waiting' | 'nobody' = 'asked'): Rig {
  const rig = new Rig({ events: { acquire: () => answer } });
  rig.spd.add(policy('out', ALL, ALL, { requests: [request({})] }));
  return rig;
}

describe('packets without an SA', () => {
  test('wait while one is negotiated, and go out in their order when it comes', () => {
    const rig = negotiating();
    const { src, dst } = addressesOf(datagram(1));
    expect(rig.output(datagram(1), datagram(2))).toEqual([]);
    expect(rig.output(datagram(3))).toEqual([]);
    expect([rig.host.packetsHeld, rig.drops()]).toEqual([3, {}]);
    rig.sad.add(sa({ spi: 0x1001, src, dst }), 'mature');
    rig.sent.length = 0;
    rig.host.releaseHeld();
    expect(rig.sent.map((wire) => esp.seq(wire, 20))).toEqual([1, 2, 3]);
    expect(rig.host.packetsHeld).toBe(0);
    expect([rig.host.stats.outPackets, rig.host.stats.outProtected]).toEqual([3, 3]);
  });

  test('go with the next poll at the latest', () => {
    const rig = negotiating('waiting');
    rig.output(datagram(1));
    rig.sad.add(sa({ spi: 0x1001, ...addressesOf(datagram(1)) }), 'mature');
    rig.sent.length = 0;
    rig.host.poll(rig.env.clock.monotonicMs());
    expect(rig.sent.length).toBe(1);
  });

  test('wait on, and no longer than before, when another SA came', () => {
    const rig = negotiating();
    rig.output(datagram(1));
    rig.env.advance(29_000);
    rig.sad.add(sa({ spi: 0x1001, src: '10.0.0.8', dst: '10.0.0.9' }), 'mature');
    rig.host.releaseHeld();
    expect([rig.host.packetsHeld, rig.drops()]).toEqual([1, {}]);
    rig.env.advance(1000);
    rig.host.poll(rig.env.clock.monotonicMs());
    expect([rig.host.packetsHeld, rig.drops()]).toEqual([0, { 'out held-too-long': 1 }]);
  });

  test('do not wait when nobody negotiates', () => {
    const rig = negotiating('nobody');
    rig.output(datagram(1));
    expect([rig.host.packetsHeld, rig.drops()]).toEqual([0, { 'out no-sa': 1 }]);
  });

  test('are not sent in the clear when the policy goes, but as policy then says', () => {
    const rig = negotiating();
    rig.output(datagram(1));
    rig.spd.flush();
    rig.spd.add(policy('out', ALL, ALL, { type: 'discard' }));
    rig.sad.add(sa({ spi: 0x1001, ...FROM_A }), 'mature');
    rig.sent.length = 0;
    rig.host.releaseHeld();
    expect([rig.sent, rig.drops()]).toEqual([[], { 'out policy-discard': 1 }]);
  });
});

describe('packets whose SA has no keys yet', () => {
  const keys = sa({ spi: 0x1001, ...addressesOf(datagram(1)) });
  const sealed = () => {
    const peer = new Rig();
    peer.sad.add(sa({ spi: 0x1001, ...addressesOf(datagram(1)) }), 'mature');
    peer.spd.add(policy('out', ALL, ALL, { requests: [request({})] }));
    return peer.output(datagram(1), datagram(2));
  };

  test('are opened when they come', () => {
    const rig = new Rig();
    const larval = rig.sad.add(keys, 'larval');
    expect([rig.input(...sealed()), rig.host.packetsHeld]).toEqual([[], 2]);
    rig.sad.update(larval, sa({ spi: 0x1001, ...addressesOf(datagram(1)) }));
    rig.host.releaseHeld();
    expect(rig.delivered).toEqual([datagram(1), datagram(2)]);
    expect([rig.host.packetsHeld, rig.host.stats.inPackets, rig.drops()]).toEqual([0, 2, {}]);
  });

  test('are judged like any other then: forged ones are dropped', () => {
    const rig = new Rig();
    const larval = rig.sad.add(keys, 'larval');
    const [first] = sealed();
    first![first!.length - 1]! ^= 1;
    rig.input(first!);
    rig.sad.update(larval, sa({ spi: 0x1001, ...addressesOf(datagram(1)) }));
    rig.host.releaseHeld();
    expect([rig.delivered, rig.drops()]).toEqual([[], { 'in esp-bad-icv': 1 }]);
  });
});

describe('bounds', () => {
  test.each([
    ['packets', { packetsMax: 2 }],
    ['octets', { octetsMax: 2 * datagram(10).length }],
  ])('of %s: the oldest gives way', (_, bounds) => {
    const dropped: number[] = [];
    const hold = new Hold({ ...bounds, dropped: (octets) => dropped.push(octets[37]!) });
    for (let i = 0; i < 4; i++) {
      const octets = datagram(10);
      octets[37] = i;
      hold.add(packetFrom(octets), 0);
    }
    expect([hold.size, dropped]).toEqual([2, [0, 1]]);
  });

  test('of time', () => {
    const hold = new Hold({ timeoutMs: 100, dropped: () => {} });
    hold.add(packetFrom(datagram(1)), 0);
    hold.add(packetFrom(datagram(1)), 50);
    expect([hold.poll(99), hold.size]).toEqual([100, 2]);
    expect([hold.poll(100), hold.size]).toEqual([150, 1]);
    expect([hold.poll(150), hold.size]).toEqual([Number.POSITIVE_INFINITY, 0]);
  });
});

function addressesOf(packet: Uint8Array): { src: string; dst: string } {
  return { src: packet.slice(12, 16).join('.'), dst: packet.slice(16, 20).join('.') };
}
