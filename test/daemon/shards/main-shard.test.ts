import { afterEach, describe, expect, test } from 'vitest';
import { setU16 } from '../../../src/wire/bytes.ts';
import * as esp from '../../../src/wire/esp.ts';
import * as ipv4 from '../../../src/wire/ipv4.ts';
import { packetFrom } from '../../../src/wire/packet.ts';
import { icmpError } from '../../engine/errors.ts';
import { policy, Rig, request, type SaOptions, sa } from '../../engine/rig.ts';
import { counting, ipv4Packet, udp } from '../../wire/octets.ts';
import { Divided, type DividedOptions } from './divided.ts';

/** What only the main shard can do, of packets that any shard reads. */

const [A, B] = ['10.0.0.1', '10.0.0.2'];
const SHARDS = 3;
const PLAIN = ipv4Packet({ protocol: 17 }, udp(counting(30)));
let open: Divided[] = [];
afterEach(() => {
  for (const one of open) one.close();
  open = [];
});

/** One whose SAs, in both directions, are for all between A and B. */
function host(at: 'a' | 'b', more: Partial<SaOptions> = {}, options: Partial<DividedOptions> = {}) {
  const one = new Divided({ shards: SHARDS, ...options });
  open.push(one);
  fill(one, at, more);
  return one.join();
}

function fill(side: Pick<Rig, 'sad' | 'spd'>, at: 'a' | 'b', more: Partial<SaOptions> = {}): void {
  side.sad.add(sa({ spi: 0x1001, src: A, dst: B, ...more }), 'mature');
  side.sad.add(sa({ spi: 0x2002, src: B, dst: A, ...more }), 'mature');
  const [there, back] = at === 'a' ? (['out', 'in'] as const) : (['in', 'out'] as const);
  const requests = [request({})];
  side.spd.add(policy(there, A, B, { requests }));
  side.spd.add(policy(back, B, A, { requests }));
}

function peer(at: 'a' | 'b', more: Partial<SaOptions> = {}): Rig {
  const rig = new Rig();
  fill(rig, at, more);
  return rig;
}

describe('whoever reads it', () => {
  test('a packet without an SA waits, and goes when one has come', () => {
    const a = new Divided({ shards: SHARDS, events: { acquire: () => 'asked' } });
    open.push(a);
    a.spd.add(policy('out', A, B, { requests: [request({})] }));
    a.join();
    for (let shard = 0; shard < SHARDS; shard++) expect(a.output(shard, PLAIN)).toEqual([]);
    expect(a.host.packetsHeld).toBe(SHARDS);
    a.apply(() => a.sad.add(sa({ spi: 0x1001, src: A, dst: B }), 'mature'));
    a.sent.length = 0;
    a.host.releaseHeld();
    a.settle();
    expect(a.sent.map((packet) => esp.seq(packet, 20))).toEqual([1, 2, 3]);
    expect(a.drops()).toEqual({});
    const stats = a.shards.statsWith(a.host.stats);
    expect([stats.outPackets, stats.outProtected, stats.held]).toEqual([3, 3, 3]);
  });

  test('fragments are put together before they are protected', () => {
    const a = host('a');
    const b = peer('b');
    const whole = ipv4Packet({ protocol: 17 }, udp(counting(2000)));
    const first = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_MF }, whole.slice(20, 20 + 1480));
    const second = ipv4Packet({ protocol: 17, offset: 1480 }, whole.slice(20 + 1480));
    a.output(1, first);
    const wire = a.output(2, second);
    expect(b.input(...wire)).toEqual([whole]);
  });

  test('an ICMP error about a packet is believed, and everybody knows the path then', () => {
    const a = host('a', { mode: 'tunnel', tunnel: { df: 'copy' } });
    const tunnel = request({ mode: 'tunnel', src: A, dst: B });
    a.apply(() => a.spd.update(policy('out', A, B, { requests: [tunnel] })));
    const large = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_DF }, udp(counting(1200)));
    const [wire] = a.output(2, large);
    expect(wire).toBeDefined();
    a.input(1, icmpError(wire!, 3, 4, { rest: 1000, dst: [10, 0, 0, 1] }));
    expect(a.drops()).toEqual({ 'in icmp-path-mtu': 1 });
    a.shards.settle();
    for (const { host } of a.others) expect(host.paths.map(({ mtu }) => mtu)).toEqual([1000]);
    for (let shard = 0; shard < SHARDS; shard++) expect(a.output(shard, large)).toEqual([]);
    expect(a.drops()).toMatchObject({ 'out too-big': SHARDS });
  });

  test('a peer behind a NAT is followed by the owners of all its SAs', () => {
    const nat = { encapsulation: { srcPort: 4500, dstPort: 4500 } };
    const b = host('b', nat);
    const a = peer('a', nat);
    const [wire] = a.output(PLAIN);
    setU16(wire!, 20, 1234);
    expect(b.input(2, wire!)).toEqual([PLAIN]);
    expect(b.moved.map(({ spec }) => spec.spi)).toEqual([0x1001]);
    b.shards.settle();
    const answer = PLAIN.slice();
    answer.set([10, 0, 0, 2, 10, 0, 0, 1], ipv4.SRC_AT);
    ipv4.updateChecksum(answer, 0);
    for (let shard = 0; shard < SHARDS; shard++) {
      const [sent] = b.output(shard, answer);
      expect(sent!.slice(20, 24)).toEqual(Uint8Array.of(0x11, 0x94, 0x04, 0xd2));
    }
  });

  test('a packet that was decided about by an SA which has gone is decided about anew', () => {
    const a = host('a');
    const [out] = [...a.sad.all()];
    const other = a.others.findIndex((_, i) => i + 1 !== out!.owner);
    // The one shard passes it on; before the other looks, the SA is replaced.
    a.others[other]!.host.output([packetFrom(PLAIN)], 1);
    a.sad.add(sa({ spi: 0x1777, src: A, dst: B }), 'mature');
    a.sad.remove(out!);
    a.settle();
    expect(a.sent.map((octets) => esp.spi(octets, 20))).toEqual([0x1777]);
    expect(a.drops()).toEqual({});
  });

  test('what comes out of SAs is delivered by the main shard while sockets have policies', () => {
    const b = host('b');
    const a = peer('a');
    b.shards.deliverAtMain();
    for (let shard = 0; shard < SHARDS; shard++) {
      expect(b.input(shard, ...a.output(PLAIN))).toEqual([PLAIN]);
    }
    expect(b.host.stats.inDelivered).toBe(SHARDS);
    for (const { host } of b.others) expect(host.stats.inDelivered).toBe(0);
  });
});

describe('copies in other shards', () => {
  test('do not look at the clock', () => {
    const limit = { packets: 0, bytes: 0, addSeconds: 10, useSeconds: 5 };
    const a = host('a', { hard: limit });
    a.output(1, PLAIN);
    a.env.advance(60_000);
    for (const other of a.others) other.poll(a.env.clock.monotonicMs());
    expect(a.others.map(({ sad }) => sad.size)).toEqual(new Array(SHARDS - 1).fill(2));
  });

  test('begin with the window that the main shard had for them', () => {
    const b = new Divided({ shards: SHARDS });
    open.push(b);
    b.join();
    b.apply(() => {
      fill(b, 'b');
      for (const one of b.sad.all()) one.replay.startAt(2);
    });
    const a = peer('a');
    const wire = a.output(PLAIN, PLAIN, PLAIN);
    expect(b.input(1, ...wire)).toEqual([PLAIN]);
    expect(b.drops()).toEqual({ 'in esp-replay': 2 });
  });

  test('get their keys by memory that is zeroed', () => {
    const a = host('a', { encKey: new Uint8Array(20).fill(0xab) });
    a.shards.settle();
    expect(a.controls.length).toBe(SHARDS - 1);
    for (const memory of a.controls) expect(new Uint8Array(memory).includes(0xab)).toBe(false);
    expect(a.output(1, PLAIN)).toHaveLength(1);
  });
});
