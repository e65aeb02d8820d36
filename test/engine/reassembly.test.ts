import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Reassembly, type ReassemblyOptions } from '../../src/engine/reassembly.ts';
import { viewOf } from '../../src/wire/bytes.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { PacketArena } from '../../src/wire/packet.ts';
import { concat, counting, fragmentHeader, hex, ipv4Packet, ipv6Packet } from '../wire/octets.ts';

const MF = ipv4.FLAG_MF;
const cursor = new Cursor();

/** A Reassembly that writes down what it does. */
class Bench {
  readonly arena = new PacketArena(2);
  readonly drops: string[] = [];
  readonly reassembly: Reassembly;

  constructor(options: Partial<ReassemblyOptions> = {}) {
    this.reassembly = new Reassembly({
      take: () => this.arena.take(),
      dropped: (reason, fragments) => this.drops.push(`${reason} ${fragments}`),
      ...options,
    });
  }

  add(p: Uint8Array, nowMs = 0): Uint8Array | undefined {
    expect(decode(p, 0, p.length, cursor)).toBeUndefined();
    const packet = this.reassembly.add(p, cursor, nowMs);
    if (packet === undefined) return undefined;
    const whole = packet.copy();
    this.arena.give(packet);
    return whole;
  }
}

/** Data octets `from` to `to` of a datagram of 24; the last one if it ends there. */
function piece4(from: number, to: number, id = 1, change = 0): Uint8Array {
  const data = counting(24).map((octet) => octet ^ change);
  const flags = to === 24 ? 0 : MF;
  return ipv4Packet({ protocol: 17, id, flags, offset: from }, data.slice(from, to));
}

function piece6(from: number, to: number, id = 1, change = 0): Uint8Array {
  const data = counting(24).map((octet) => octet ^ change);
  return ipv6Packet(44, fragmentHeader(17, from, to === 24 ? 0 : 1, id), data.slice(from, to));
}

const whole4 = ipv4Packet({ protocol: 17, id: 1 }, counting(24));
const whole6 = ipv6Packet(17, counting(24));

describe.each([
  ['IPv4', piece4, whole4],
  ['IPv6', piece6, whole6],
] as const)('%s', (name, piece, whole) => {
  test.each([
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
  ])('order %i %i %i', (...order) => {
    const bench = new Bench();
    const results = order.map((i) => bench.add(piece(8 * i, 8 * i + 8)));
    expect(results).toEqual([undefined, undefined, whole]);
    expect([bench.reassembly.size, bench.reassembly.octets, bench.drops]).toEqual([0, 0, []]);
  });

  test('an exact duplicate changes nothing', () => {
    const bench = new Bench();
    bench.add(piece(8, 16));
    bench.add(piece(8, 16));
    bench.add(piece(16, 24));
    bench.add(piece(16, 24));
    expect(bench.add(piece(0, 8))).toEqual(whole);
    expect(bench.drops).toEqual(['fragment-duplicate 1', 'fragment-duplicate 1']);
  });

  test.each([
    ['the same place with other octets', piece(8, 16, 1, 1)],
    ['longer than before', piece(8, 24)],
    ['over the end of one before', piece(0, 16)],
  ])('overlap: %s', (_what, other) => {
    const bench = new Bench();
    bench.add(piece(8, 16));
    expect(bench.add(other)).toBeUndefined();
    expect(bench.drops).toEqual(['fragment-overlap 2']);
    expect(bench.reassembly.octets).toBe(0);
  });

  test('overlap with the tail of the one in front', () => {
    const bench = new Bench();
    bench.add(piece(0, 16));
    bench.add(piece(8, 24));
    expect(bench.drops).toEqual(['fragment-overlap 2']);
  });

  test('datagrams are told apart by identification', () => {
    const bench = new Bench();
    bench.add(piece(0, 16, 1));
    expect(bench.add(piece(16, 24, 2))).toBeUndefined();
    expect(bench.reassembly.size).toBe(2);
    expect(bench.add(piece(16, 24, 1))).toEqual(whole);
  });

  test('timeout', () => {
    const bench = new Bench();
    expect(bench.reassembly.poll(0)).toBe(Number.POSITIVE_INFINITY);
    bench.add(piece(0, 8, 1), 1000);
    bench.add(piece(8, 16, 1), 9000);
    bench.add(piece(0, 8, 2), 2000);
    expect(bench.reassembly.poll(30_999)).toBe(31_000);
    expect(bench.drops).toEqual([]);
    expect(bench.reassembly.poll(31_000)).toBe(32_000);
    expect(bench.drops).toEqual(['fragment-timeout 2']);
    expect(bench.add(piece(16, 24, 1), 31_000)).toBeUndefined();
    expect(bench.add(piece(8, 24, 2), 32_000)).toBeUndefined();
    expect(bench.drops).toEqual(['fragment-timeout 2', 'fragment-timeout 1']);
  });

  test('the oldest datagram makes room', () => {
    const bench = new Bench({ datagramsMax: 2 });
    for (const id of [1, 2, 3]) bench.add(piece(0, 16, id));
    expect(bench.drops).toEqual(['fragment-queue-full 1']);
    expect(bench.add(piece(16, 24, 3))).toBeDefined();
    expect(bench.add(piece(16, 24, 2))).toBeDefined();
    expect(bench.add(piece(16, 24, 1))).toBeUndefined();
  });

  test('memory is bounded, small fragments included', () => {
    const bench = new Bench({ octetsMax: 1000 });
    for (let id = 0; id < 40; id++) {
      bench.add(piece(8, 16, id));
      expect(bench.reassembly.octets).toBeLessThanOrEqual(1000);
    }
    expect(bench.reassembly.size).toBe(7);
    expect(bench.drops.length).toBe(33);
  });

  test('the number of fragments is bounded', () => {
    const bench = new Bench({ fragmentsMax: 2 });
    bench.add(piece(0, 8));
    bench.add(piece(8, 16));
    expect(bench.add(piece(16, 24))).toBeUndefined();
    expect(bench.drops).toEqual(['fragment-queue-full 3']);
  });

  /** 8 octets anywhere, the last or not. */
  function eight(offset: number, more: boolean): Uint8Array {
    return name === 'IPv4'
      ? ipv4Packet({ protocol: 17, id: 1, flags: more ? MF : 0, offset }, counting(8))
      : ipv6Packet(44, fragmentHeader(17, offset, more ? 1 : 0, 1), counting(8));
  }

  test.each([
    ['two ends', eight(16, false), eight(24, false)],
    ['data behind the end', eight(16, false), eight(24, true)],
    ['an end in front of data', eight(24, true), eight(8, false)],
  ])('%s', (_what, one, other) => {
    const bench = new Bench();
    bench.add(one);
    bench.add(other);
    expect(bench.drops).toEqual(['fragment-bad-length 2']);
    expect(bench.reassembly.size).toBe(0);
  });

  test('no packet left', () => {
    const bench = new Bench({ take: () => undefined });
    bench.add(piece(0, 16));
    expect(bench.add(piece(16, 24))).toBeUndefined();
    expect(bench.drops).toEqual(['no-room 2']);
    expect(bench.reassembly.octets).toBe(0);
  });
});

describe('lengths that cannot be', () => {
  test.each([
    ['not a multiple of 8', ipv4Packet({ protocol: 17, flags: MF }, counting(9))],
    ['nothing', ipv4Packet({ protocol: 17, flags: MF }, counting(0))],
    ['nothing at the end', ipv4Packet({ protocol: 17, offset: 8 }, counting(0))],
    ['behind 65,535', ipv4Packet({ protocol: 17, offset: 65_528 }, counting(8))],
    ['not a multiple of 8, IPv6', ipv6Packet(44, fragmentHeader(17, 0, 1, 1), counting(9))],
    ['behind 65,535, IPv6', ipv6Packet(44, fragmentHeader(17, 65_528, 0, 1), counting(8))],
  ])('%s', (_what, p) => {
    const bench = new Bench();
    expect(bench.add(p)).toBeUndefined();
    expect(bench.drops).toEqual(['fragment-bad-length 1']);
    expect(bench.reassembly.size).toBe(0);
  });

  test('65,535 with the headers, and not one more', () => {
    const first = ipv4Packet({ protocol: 17, flags: MF }, counting(65_504));
    const fits = new Bench();
    fits.add(first);
    expect(fits.add(ipv4Packet({ protocol: 17, offset: 65_504 }, counting(11)))?.length).toBe(
      65_535,
    );
    const tooLong = new Bench();
    tooLong.add(first);
    tooLong.add(ipv4Packet({ protocol: 17, offset: 65_504 }, counting(12)));
    expect(tooLong.drops).toEqual(['fragment-bad-length 2']);
  });
});

describe('the header of the whole', () => {
  test('IPv4: that of the first fragment, options included, whatever others say', () => {
    const options = hex('07030400');
    const bench = new Bench();
    bench.add(ipv4Packet({ protocol: 17, id: 1, offset: 8 }, counting(5)));
    const whole = bench.add(ipv4Packet({ protocol: 17, id: 1, flags: MF, options }, counting(8)))!;
    expect(whole).toEqual(
      ipv4Packet({ protocol: 17, id: 1, options }, concat(counting(8), counting(5))),
    );
    expect(ipv4.checksumOk(viewOf(whole), 0)).toBe(true);
  });

  test('IPv6: the next header that the first fragment names replaces the fragment header', () => {
    const hop = hex('2c000104 00000000');
    const bench = new Bench();
    bench.add(ipv6Packet(0, hop, fragmentHeader(6, 8, 0, 1), counting(5)));
    const whole = bench.add(ipv6Packet(0, hop, fragmentHeader(17, 0, 1, 1), counting(8)));
    expect(whole).toEqual(ipv6Packet(0, hex('11000104 00000000'), counting(8), counting(5)));
  });

  test('congestion that any fragment met is kept (RFC 3168 §5.3)', () => {
    const marked = (p: Uint8Array, ecn: number): Uint8Array => {
      const q = p.slice();
      if (q[0] === 0x45) ipv4.setTos(q, 0, ecn);
      else ipv6.setTrafficClass(q, 0, ecn);
      return q;
    };
    for (const piece of [piece4, piece6]) {
      const bench = new Bench();
      bench.add(marked(piece(0, 16), 2));
      const whole = bench.add(marked(piece(16, 24), 3))!;
      expect(piece === piece4 ? ipv4.tos(whole, 0) : ipv6.trafficClass(whole, 0)).toBe(3);
      bench.add(marked(piece(0, 16), 0));
      expect(bench.add(marked(piece(16, 24), 3))).toBeUndefined();
      expect(bench.drops).toEqual(['ecn-invalid 2']);
    }
  });

  test('an atomic fragment is whole at once, apart from others of the same id (RFC 6946)', () => {
    const bench = new Bench();
    bench.add(piece6(0, 8));
    const atomic = ipv6Packet(44, fragmentHeader(17, 0, 0, 1), counting(5));
    expect(bench.add(atomic)).toEqual(ipv6Packet(17, counting(5)));
    expect(bench.reassembly.size).toBe(1);
  });
});

test('behind an overlap, IPv6 drops what still comes; IPv4 begins anew', () => {
  const six = new Bench();
  six.add(piece6(0, 16));
  six.add(piece6(8, 24));
  expect([six.add(piece6(0, 16)), six.add(piece6(16, 24))]).toEqual([undefined, undefined]);
  expect(six.drops).toEqual(['fragment-overlap 2', 'fragment-overlap 1', 'fragment-overlap 1']);
  expect(six.reassembly.poll(29_999)).toBe(30_000);
  expect(six.reassembly.poll(30_000)).toBe(Number.POSITIVE_INFINITY);
  six.add(piece6(0, 16), 30_000);
  expect(six.add(piece6(16, 24), 30_000)).toEqual(whole6);

  const four = new Bench();
  four.add(piece4(0, 16));
  four.add(piece4(8, 24));
  four.add(piece4(0, 16));
  expect(four.add(piece4(16, 24))).toEqual(whole4);
});

test('whatever arrives, the bounds hold and nothing stays behind', () => {
  const anyFragment = fc.record({
    six: fc.boolean(),
    id: fc.nat(3),
    offset: fc.nat(5).map((n) => n * 8),
    len: fc.nat(24),
    more: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(anyFragment, { maxLength: 40 }), (fragments) => {
      let dropped = 0;
      const arena = new PacketArena(1);
      const reassembly = new Reassembly({
        take: () => arena.take(),
        dropped: (_reason, count) => {
          dropped += count;
        },
        datagramsMax: 3,
        octetsMax: 1200,
        fragmentsMax: 4,
      });
      for (const [now, one] of fragments.entries()) {
        const flags = one.more ? MF : 0;
        const p = one.six
          ? ipv6Packet(
              44,
              fragmentHeader(17, one.offset, one.more ? 1 : 0, one.id),
              counting(one.len),
            )
          : ipv4Packet({ protocol: 17, id: one.id, flags, offset: one.offset }, counting(one.len));
        decode(p, 0, p.length, cursor);
        if (!cursor.isFragment) continue;
        const whole = reassembly.add(p, cursor, now * 1000);
        expect(reassembly.size).toBeLessThanOrEqual(3);
        expect(reassembly.octets).toBeLessThanOrEqual(1200);
        if (whole === undefined) continue;
        expect(decode(whole.bytes, whole.at, whole.end, cursor)).toBeUndefined();
        expect([cursor.isFragment, cursor.end]).toEqual([false, whole.end]);
        arena.give(whole);
      }
      expect(reassembly.poll(1e9)).toBe(Number.POSITIVE_INFINITY);
      expect([reassembly.size, reassembly.octets]).toEqual([0, 0]);
      expect(dropped).toBeLessThanOrEqual(fragments.length);
    }),
    { numRuns: 300 },
  );
});
