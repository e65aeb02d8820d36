import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fragment } from '../../src/engine/fragment.ts';
import { Reassembly } from '../../src/engine/reassembly.ts';
import { equal, toHex, viewOf } from '../../src/wire/bytes.ts';
import { readCapture } from '../../src/wire/capture.ts';
import * as checksum from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { type Packet, PacketArena, packetFrom } from '../../src/wire/packet.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import { capture, octetsOf } from '../wire/captures.ts';
import {
  concat,
  counting,
  fragmentHeader,
  hex,
  ipv4Packet,
  ipv6Packet,
  udp,
} from '../wire/octets.ts';

const arena = new PacketArena(80);
const cursor = new Cursor();

/** The fragments as octets, or the reason there are none. */
function cut(p: Uint8Array, mtu: number, id = 0xabcdef01): Uint8Array[] | string {
  const packet = packetFrom(p);
  expect(decode(packet.bytes, packet.at, packet.end, cursor)).toBeUndefined();
  const pieces: Uint8Array[] = [];
  const emit = (piece: Packet): void => {
    pieces.push(piece.copy());
    arena.give(piece);
  };
  const reason = fragment(packet, cursor, mtu, id, () => arena.take(), emit);
  expect(equal(packet.bytes, packet.at, p, 0, p.length)).toBe(true);
  return reason ?? pieces;
}

function pieces(p: Uint8Array, mtu: number, id?: number): Uint8Array[] {
  const result = cut(p, mtu, id);
  if (typeof result === 'string') throw new Error(result);
  return result;
}

function join(parts: readonly Uint8Array[]): Uint8Array[] {
  const whole: Uint8Array[] = [];
  const dropped = (reason: string): void => {
    throw new Error(reason);
  };
  const reassembly = new Reassembly({ take: () => arena.take(), dropped });
  for (const part of parts) {
    expect(decode(part, 0, part.length, cursor)).toBeUndefined();
    const packet = reassembly.add(part, cursor, 0);
    if (packet === undefined) continue;
    whole.push(packet.copy());
    arena.give(packet);
  }
  return whole;
}

describe('IPv4', () => {
  test('offsets, flags, lengths and checksums', () => {
    const p = ipv4Packet({ protocol: 17, id: 77 }, counting(100));
    const parts = pieces(p, 60);
    expect(parts.map((one) => one.length)).toEqual([60, 60, 40]);
    expect(parts.map((one) => ipv4.fragmentOffset(one, 0))).toEqual([0, 40, 80]);
    expect(parts.map((one) => ipv4.moreFragments(one, 0))).toEqual([true, true, false]);
    for (const one of parts) {
      expect(ipv4.checksumOk(viewOf(one), 0)).toBe(true);
      expect(ipv4.totalLen(one, 0)).toBe(one.length);
      expect(ipv4.id(one, 0)).toBe(77);
    }
    expect(parts[1]!.slice(20)).toEqual(p.slice(60, 100));
  });

  test('data in front of the last are a multiple of 8, the last takes all the room', () => {
    const lens = (data: number, mtu: number): number[] =>
      pieces(ipv4Packet({ protocol: 17 }, counting(data)), mtu).map((one) => one.length - 20);
    expect(lens(55, 50)).toEqual([24, 24, 7]);
    expect(lens(54, 50)).toEqual([24, 30]);
  });

  test('only options with the copied flag go into later fragments (RFC 791 §3.1)', () => {
    // Record route (7, not copied), NOP, stream id (136, copied), router alert (148, copied).
    const options = hex('07070400000000 01 88041234 94040000');
    const p = ipv4Packet({ protocol: 17, options }, counting(64));
    const parts = pieces(p, 76);
    expect(parts.map((one) => ipv4.headerLen(one, 0))).toEqual([36, 28]);
    expect(parts[0]!.slice(20, 36)).toEqual(options);
    expect(parts[1]!.slice(20, 28)).toEqual(hex('88041234 94040000'));
    expect(join(parts)).toEqual([p]);
  });

  test('options of an odd length are padded with END', () => {
    const p = ipv4Packet({ protocol: 17, options: hex('8803ff 44050500ff') }, counting(64));
    const later = pieces(p, 68)[1]!;
    expect(ipv4.headerLen(later, 0)).toBe(24);
    expect(later.slice(20, 24)).toEqual(hex('8803ff00'));
  });

  test('a fragment is cut further, and all is put together again', () => {
    const p = ipv4Packet({ protocol: 17 }, counting(3000));
    const small = pieces(p, 1500).flatMap((one) => (one.length > 576 ? pieces(one, 576) : [one]));
    expect(small.map((one) => ipv4.moreFragments(one, 0)).filter((more) => !more).length).toBe(1);
    expect(small.map((one) => ipv4.fragmentOffset(one, 0))).toEqual([
      0, 552, 1104, 1480, 2032, 2584, 2960,
    ]);
    expect(join(small.reverse())).toEqual([p]);
  });

  test('what must not be cut', () => {
    const whole = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_DF }, counting(100));
    expect(cut(whole, 60)).toBe('too-big');
    expect(cut(ipv4Packet({ protocol: 17 }, counting(100)), 27)).toBe('too-big');
    const odd = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_MF }, counting(101));
    expect(cut(odd, 60)).toBe('fragment-bad-length');
    const far = ipv4Packet({ protocol: 17, offset: 65_528 }, counting(100));
    expect(cut(far, 60)).toBe('fragment-bad-length');
  });

  test('no packets left', () => {
    const packet = packetFrom(ipv4Packet({ protocol: 17 }, counting(100)));
    decode(packet.bytes, packet.at, packet.end, cursor);
    expect(
      fragment(
        packet,
        cursor,
        60,
        0,
        () => undefined,
        () => {},
      ),
    ).toBe('no-room');
  });
});

describe('IPv6', () => {
  test('fragment headers', () => {
    const p = ipv6Packet(17, udp(counting(100)));
    const parts = pieces(p, 96);
    expect(parts.map((one) => one.length)).toEqual([96, 96, 60]);
    expect(parts[0]!.slice(0, 8)).toEqual(hex('60000000 00382c40'));
    expect(parts.map((one) => one.slice(40, 48))).toEqual([
      hex('11000001 abcdef01'),
      hex('11000031 abcdef01'),
      hex('11000060 abcdef01'),
    ]);
    expect(join(parts)).toEqual([p]);
  });

  test('hop-by-hop options and routing header go into each, those for the last host do not', () => {
    const hop = hex('2b000104 00000000');
    const routing = hex('3c020001 00000000 20010db8000000000000000000000009');
    const last = hex('11000104 00000000');
    const p = ipv6Packet(0, hop, routing, last, udp(counting(100)));
    const parts = pieces(p, 160);
    for (const one of parts) {
      expect(one.slice(40, 48)).toEqual(hop);
      expect(one[48]).toBe(44);
      expect(one.slice(49, 72)).toEqual(routing.slice(1));
      expect(one[72]).toBe(60);
    }
    expect(parts[0]!.slice(80, 88)).toEqual(last);
    expect(join(parts)).toEqual([p]);
  });

  test('destination options alone are cut with the rest (RFC 8200 §4.5)', () => {
    const p = ipv6Packet(60, hex('11000104 00000000'), udp(counting(100)));
    expect(pieces(p, 96)[0]!.slice(40, 56)).toEqual(hex('3c000001 abcdef01 11000104 00000000'));
    expect(join(pieces(p, 96))).toEqual([p]);
  });

  test('a fragment keeps its identification when its source cuts it further', () => {
    const p = ipv6Packet(44, fragmentHeader(17, 800, 1, 9), counting(96));
    const parts = pieces(p, 96);
    expect(parts.map((one) => ipv6.fragmentOffset(one, 40))).toEqual([800, 848]);
    expect(parts.map((one) => ipv6.moreFragments(one, 40))).toEqual([true, true]);
    expect(parts.map((one) => ipv6.fragmentId(one, 40))).toEqual([9, 9]);
  });
});

describe('fragments that Linux made', () => {
  const sent = [...readCapture(capture('fragments.pcap'))].map(octetsOf);
  const wholes = join(sent);

  test('are put together to pings with right checksums', () => {
    expect(wholes.map((one) => one.length)).toEqual([3028, 3028, 1348, 1348, 1568, 1568]);
    for (const one of wholes) {
      expect(decode(one, 0, one.length, cursor)).toBeUndefined();
      expect(cursor.isFragment).toBe(false);
      expect(cursor.protocol).toBe(cursor.family === 4 ? PROTO.ICMP : PROTO.ICMPV6);
      expect(checksum.transportChecksumOk(one, cursor)).toBe(true);
      if (cursor.family === 4) expect(ipv4.checksumOk(viewOf(one), 0)).toBe(true);
    }
  });

  test('are the same that we make', () => {
    // Not those with options: Linux leaves NOPs where we leave out what is not copied.
    const plain = wholes.slice(0, 4);
    const ids = [0, 0, 0xaec872fc, 0x8f35b5b8];
    const ours = plain.flatMap((one, i) => pieces(one, 1280, ids[i]!));
    expect(ours).toEqual(sent.slice(0, 10));
  });
});

test('any packet, cut for any MTU and shuffled, comes back whole', () => {
  const hop = hex('3c000104 00000000');
  const dst = hex('11000104 00000000');
  const make = [
    (data: Uint8Array) => ipv4Packet({ protocol: 17 }, data),
    (data: Uint8Array) => ipv4Packet({ protocol: 17, options: hex('94040000 07030400') }, data),
    (data: Uint8Array) => ipv6Packet(17, data),
    (data: Uint8Array) => ipv6Packet(0, hop, dst, data),
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...make),
      fc.integer({ min: 200, max: 2000 }),
      fc.integer({ min: 120, max: 1000 }),
      fc.infiniteStream(fc.nat(1000)),
      (packet, len, mtu, order) => {
        const p = packet(concat(udp(counting(len))));
        fc.pre(p.length > mtu && len / (mtu - 64) < 70);
        const parts = pieces(p, mtu);
        for (const one of parts) expect(one.length).toBeLessThanOrEqual(mtu);
        const shuffled = parts
          .map((one) => ({ one, place: order.next().value as number }))
          .sort((a, b) => a.place - b.place)
          .map(({ one }) => one);
        expect(join(shuffled).map((one) => toHex(one))).toEqual([toHex(p)]);
      },
    ),
    { numRuns: 100 },
  );
  expect(arena.available).toBe(80);
});
