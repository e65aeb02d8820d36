import { describe, expect, test } from 'vitest';
import { formatAddress } from '../../src/base/address.ts';
import type { UdpEndpoint } from '../../src/engine/core.ts';
import { setU16, u16 } from '../../src/wire/bytes.ts';
import * as checksum from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { concat, counting, hex, ipv4Packet, ipv6Packet, udp } from '../wire/octets.ts';
import { Pair, type PairOptions } from './pair.ts';
import { BUFFERS } from './rig.ts';

const nat = { encapsulation: { srcPort: 4500, dstPort: 4500 } } as const;
const PLAIN = ipv4Packet({ protocol: 17 }, udp(counting(30)));
const cursor = new Cursor();

test('over IPv4 the checksum is 0, over IPv6 it is right', () => {
  const four = new Pair([{ ...nat, tunnel: 4 }]).send(PLAIN);
  expect([u16(four.wire[0]!, 20), u16(four.wire[0]!, 22), u16(four.wire[0]!, 26)]).toEqual([
    4500, 4500, 0,
  ]);
  expect(u16(four.wire[0]!, 24)).toBe(four.wire[0]!.length - 20);
  expect(four.delivered).toEqual([PLAIN]);
  const six = new Pair([{ ...nat, tunnel: 6 }]).send(PLAIN);
  decode(six.wire[0]!, 0, six.wire[0]!.length, cursor);
  expect(u16(six.wire[0]!, 46)).not.toBe(0);
  expect(checksum.transportChecksumOk(six.wire[0]!, cursor)).toBe(true);
  expect(six.delivered).toEqual([PLAIN]);
});

test('behind the non-ESP marker is IKE, which is handed on as it is', () => {
  const pair = new Pair([nat]);
  const data = udp(concat(hex('00000000'), counting(30)));
  setU16(data, 2, 4500);
  const ike = ipv4Packet({ protocol: 17 }, data);
  expect(pair.b.input(ike)).toEqual([ike]);
});

test('octets behind the datagram do not belong to ESP', () => {
  const pair = new Pair([nat]);
  const wire = concat(pair.a.output(PLAIN)[0]!, counting(3));
  ipv4.setTotalLen(wire, 0, wire.length);
  ipv4.updateChecksum(wire, 0);
  expect(pair.b.input(wire)).toEqual([PLAIN]);
});

describe('a NAT gives the peer another address or port', () => {
  interface Moved {
    readonly from: string;
    readonly to: string;
  }

  /** A is behind the NAT, B listens. */
  function behindNat(options: PairOptions = {}, more: object = {}) {
    const moved: Moved[] = [];
    const text = (one: UdpEndpoint) => `${formatAddress(one.address)}:${one.port}`;
    const events = {
      natMapping: (_: unknown, from: UdpEndpoint, to: UdpEndpoint) =>
        void moved.push({ from: text(from), to: text(to) }),
    };
    const pair = new Pair([{ ...nat, tunnel: 4, ...more }], { ...options, peer: { events } });
    return { pair, moved };
  }

  function mapped(wire: Uint8Array, port: number, last = 77): Uint8Array {
    const p = wire.slice();
    p[15] = last;
    setU16(p, 20, port);
    ipv4.updateChecksum(p, 0);
    return p;
  }

  test('listeners are told, and what goes to the peer goes there', () => {
    const { pair, moved } = behindNat();
    const [one, two, three] = pair.a.output(PLAIN, PLAIN, PLAIN);
    expect(pair.b.input(one!).length).toBe(1);
    expect(moved).toEqual([]);
    expect(pair.b.input(mapped(two!, 31_000), mapped(three!, 31_000)).length).toBe(2);
    expect(moved).toEqual([{ from: '10.0.0.1:4500', to: '10.0.0.77:31000' }]);
    const back = pair.b.output(PLAIN)[0]!;
    expect([back[19], u16(back, 20), u16(back, 22)]).toEqual([77, 4500, 31_000]);
    expect(pair.b.host.stats.natMappings).toBe(1);
  });

  test('an older packet, or one that is not authentic, moves nothing', () => {
    const { pair, moved } = behindNat();
    const [one, two] = pair.a.output(PLAIN, PLAIN);
    pair.b.input(two!);
    expect(pair.b.input(mapped(one!, 31_000)).length).toBe(1);
    const spoilt = mapped(pair.a.output(PLAIN)[0]!, 31_000);
    spoilt[50]! ^= 1;
    pair.b.input(spoilt);
    expect(moved).toEqual([]);
    expect(u16(pair.b.output(PLAIN)[0]!, 22)).toBe(4500);
  });

  test.each([
    ['without a replay window', { replayPackets: 0 }],
    ['without an ICV', { enc: 'aes-cbc' }],
  ])('%s nothing moves, since anybody could', (_, more) => {
    const { pair, moved } = behindNat({}, more);
    expect(pair.b.input(mapped(pair.a.output(PLAIN)[0]!, 31_000)).length).toBe(1);
    expect(moved).toEqual([]);
  });

  test('a host that does not follow only tells', () => {
    const { pair, moved } = behindNat({ settings: { followNat: false } });
    pair.b.input(mapped(pair.a.output(PLAIN)[0]!, 31_000));
    expect(moved.length).toBe(1);
    expect(u16(pair.b.output(PLAIN)[0]!, 22)).toBe(4500);
  });
});

describe('keep-alives', () => {
  test.each([4, 6] as const)('IPv%i: to a NAT that was sent nothing for a while', (tunnel) => {
    const pair = new Pair([{ ...nat, tunnel }]);
    const { a } = pair;
    const poll = (seconds: number) => {
      a.env.advance(seconds * 1000);
      a.sent.length = 0;
      a.host.poll(a.env.clock.monotonicMs());
      return a.sent.length;
    };
    expect(poll(60)).toBe(0);
    a.output(PLAIN);
    expect([poll(19), poll(6)]).toEqual([0, 1]);
    const [p] = a.sent;
    decode(p!, 0, p!.length, cursor);
    expect([cursor.sport, cursor.dport, p!.at(-1), cursor.end - cursor.upperAt]).toEqual([
      4500, 4500, 0xff, 9,
    ]);
    expect(checksum.transportChecksumOk(p!, cursor)).toBe(true);
    // The peer knows what it is (RFC 3948 §2.3).
    pair.b.input(p!);
    expect(pair.b.drops()).toEqual({ 'in natt-keepalive': 1 });
    expect([poll(5), poll(20), a.host.stats.keepalivesSent]).toEqual([0, 1, 2]);
    expect(a.host.buffersFree).toBe(BUFFERS);
  });

  test('the interval is a setting that works from when it is changed', () => {
    const { a } = new Pair([nat], { settings: { keepaliveSeconds: 0 } });
    const later = (seconds: number) => {
      a.env.advance(seconds * 1000);
      return a.host.poll(a.env.clock.monotonicMs());
    };
    a.output(PLAIN);
    a.sent.length = 0;
    later(100);
    expect(a.sent).toEqual([]);
    a.host.settings.keepaliveSeconds = 10;
    later(10);
    expect(a.sent.length).toBe(1);
  });
});

describe('transport mode through a NAT: checksums were made with other addresses (RFC 3948 §3.1.2)', () => {
  /** Through a NAT that gives A the address 10.0.0.77, as B sees it. */
  function through(packet: Uint8Array, six = false): Uint8Array | undefined {
    const pair = new Pair([nat], { family: six ? 6 : 4 });
    const p = pair.a.output(packet)[0]!;
    const at = six ? 23 : 15;
    p[at] = 77;
    if (!six) ipv4.updateChecksum(p, 0);
    decode(p, 0, p.length, cursor);
    if (six) checksum.updateTransportChecksum(p, cursor);
    return pair.b.input(p)[0];
  }

  const tcp = concat(hex('03e807d0 00000001 00000000 50020400 00000000'), counting(20));

  test.each([
    ['TCP', ipv4Packet({ protocol: 6 }, tcp), false],
    ['UDP', ipv4Packet({ protocol: 17 }, udp(counting(20))), false],
    ['TCP over IPv6', ipv6Packet(6, tcp), true],
    ['UDP over IPv6', ipv6Packet(17, udp(counting(20))), true],
  ] as const)('%s', (_, packet, six) => {
    const sent = packet.slice();
    decode(sent, 0, sent.length, cursor);
    checksum.updateTransportChecksum(sent, cursor);
    const got = through(sent, six)!;
    decode(got, 0, got.length, cursor);
    expect(got[six ? 23 : 15]).toBe(77);
    expect(checksum.transportChecksumOk(got, cursor)).toBe(true);
  });

  test('a UDP datagram without a checksum has none afterwards', () => {
    const got = through(ipv4Packet({ protocol: 17 }, udp(counting(20))))!;
    expect(u16(got, 26)).toBe(0);
  });
});
