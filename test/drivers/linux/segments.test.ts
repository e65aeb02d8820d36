import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CUT, FAILURE } from '../../../src/drivers/linux/segments.ts';
import { finishUdpHeaders, writeUdpHeaders } from '../../../src/drivers/udp-packet.ts';
import * as checksum from '../../../src/wire/checksum.ts';
import * as ipv4 from '../../../src/wire/ipv4.ts';
import { packetFrom } from '../../../src/wire/packet.ts';
import { FLAG } from '../../../src/wire/tcp.ts';
import { concat, counting } from '../../wire/octets.ts';
import { rigs, SegmentRig } from './segment-rig.ts';
import * as twin from './segment-twin.ts';

const flags = fc.constantFrom(
  FLAG.ACK,
  FLAG.ACK | FLAG.ECE,
  FLAG.ACK | FLAG.PSH,
  FLAG.ACK | FLAG.FIN,
);
const data = counting(65_535);
/** A stream cut into segments of one size, the last of which may be shorter. */
const stream = fc
  .record({
    family: fc.constantFrom(4 as const, 6 as const),
    protocol: fc.constantFrom('tcp' as const, 'udp' as const),
    segment: fc.integer({ min: 1, max: 1500 }),
    count: fc.integer({ min: 1, max: 12 }),
    rest: fc.integer({ min: 1, max: 1500 }),
    options: fc.constantFrom(0, 12, 40),
    last: flags,
    cwr: fc.boolean(),
    seq: fc.constantFrom(0, 7, 0xffff_fff0),
    id: fc.constantFrom(0, 9, 0xfffe),
    df: fc.boolean(),
    tos: fc.constantFrom(0, 2, 0xb8),
  })
  .map(({ segment, count, rest, options, last, cwr, id, seq, ...fields }) => {
    const packets: Uint8Array[] = [];
    for (let i = 0; i < count; i++) {
      const isLast = i === count - 1;
      const len = isLast ? Math.min(rest, segment) : segment;
      const flag =
        (isLast ? last : last & ~(FLAG.PSH | FLAG.FIN)) | (cwr && i === 0 ? FLAG.CWR : 0);
      packets.push(
        twin.packetOf({
          ...fields,
          payload: data.subarray(i * segment, i * segment + len),
          options: counting(options),
          flags: flag,
          seq: (seq + i * segment) >>> 0,
          id: (id + i) & 0xffff,
          window: 500,
        }),
      );
    }
    return { packets, segment, cwr };
  });

/** What is quickly compared, and still readable where it differs. */
function hex(packets: readonly Uint8Array[] | number): readonly string[] | number {
  return typeof packets === 'number'
    ? packets
    : packets.map((octets) => Buffer.from(octets).toString('hex'));
}

/** Nothing tells one such datagram from the next. */
const alone = {
  packets: [
    twin.packetOf({
      family: 4,
      protocol: 'udp',
      payload: counting(1),
      id: 0xfffe,
      df: true,
      tos: 2,
      seq: 0,
      flags: 0,
      window: 500,
    }),
  ],
  segment: 1,
  cwr: false,
};

/**
 * A packet of a group as it is cut again: identifications count up, also those of packets that must
 * not be fragmented and all had the same.
 */
function counted(packet: Uint8Array, i: number, [first]: readonly Uint8Array[]): Uint8Array {
  if (packet[0]! >> 4 !== 4) return packet;
  const copy = packet.slice();
  ipv4.setId(copy, 0, (ipv4.id(first!, 0) + i) & 0xffff);
  ipv4.updateChecksum(copy, 0);
  return copy;
}

describe.each(rigs())('byte loops, %s', (_, rig) => {
  test('a large packet is cut into what it was made of', () => {
    fc.assert(
      fc.property(stream, fc.integer({ min: 1, max: 64 }), ({ packets, segment }, batch) => {
        const whole = twin.join(packets);
        expect(hex(twin.cut(whole, segment))).toEqual(hex(packets));
        expect(hex(rig.cut(whole, segment, { batch }))).toEqual(hex(packets));
        const spread = twin.headersLen(whole);
        expect(hex(rig.cut(whole, segment, { batch, spread }))).toEqual(hex(packets));
      }),
      { numRuns: 60 },
    );
  });

  test('what is put together is what the plain version puts together, and cuts into the same', () => {
    fc.assert(
      fc.property(
        fc.array(stream, { minLength: 1, maxLength: 5 }),
        fc.boolean(),
        (streams, udp) => {
          const batch = streams.flatMap(({ packets }) => packets);
          const { groups, wholes } = rig.join(batch, udp);
          expect(groups).toEqual(twin.groups(batch, udp));
          const joined = groups.filter((group) => group.length > 1);
          for (const [i, group] of joined.entries()) {
            const members = group.map((member) => batch[member]!);
            expect(hex([wholes[i]!])).toEqual(hex([twin.join(members)]));
            const segment = members[0]!.length - twin.headersLen(members[0]!);
            expect(hex(twin.cut(wholes[i]!, segment))).toEqual(hex(members.map(counted)));
          }
        },
      ),
      {
        numRuns: 40,
        examples: [[[alone, alone], true]],
      },
    );
  });

  const base = {
    family: 4,
    protocol: 'tcp',
    payload: counting(100),
    flags: FLAG.ACK,
    options: counting(12),
    seq: 1000,
    id: 5,
  } as const;
  const next = { ...base, seq: 1100, id: 6 };
  const ipv6 = { family: 6 } as const;
  test.each<[string, Partial<twin.Fields>, Partial<twin.Fields>, boolean]>([
    ['the next segment', {}, {}, true],
    ['the next segment over IPv6', ipv6, ipv6, true],
    ['a shorter last one', {}, { payload: counting(99) }, true],
    ['one that pushes', {}, { flags: FLAG.ACK | FLAG.PSH }, true],
    ['one that ends the stream', {}, { flags: FLAG.ACK | FLAG.FIN }, true],
    ['the same identification with DF', { df: true }, { df: true, id: 5 }, true],
    ['the same identification without DF', {}, { id: 5 }, false],
    ['another identification', {}, { id: 8 }, false],
    ['a longer one', {}, { payload: counting(101) }, false],
    ['one without payload', {}, { payload: counting(0) }, false],
    ['a gap', {}, { seq: 1101 }, false],
    ['a repetition', {}, { seq: 1000 }, false],
    ['another port', {}, { sport: 2 }, false],
    ['another acknowledgement', {}, { ack: 1 }, false],
    ['another window', {}, { window: 1 }, false],
    ['other options', {}, { options: counting(12).reverse() }, false],
    ['fewer options', {}, { options: counting(8) }, false],
    ['another TTL', {}, { hopLimit: 63 }, false],
    ['another hop limit', ipv6, { ...ipv6, hopLimit: 63 }, false],
    ['another ECN field', {}, { tos: 3 }, false],
    ['another traffic class', ipv6, { ...ipv6, tos: 3 }, false],
    ['another DF', {}, { df: true }, false],
    ['an echo of congestion', {}, { flags: FLAG.ACK | FLAG.ECE }, false],
    ['a reduced window', {}, { flags: FLAG.ACK | FLAG.CWR }, false],
    ['a reduced window first', { flags: FLAG.ACK | FLAG.CWR }, {}, false],
    ['urgent data', {}, { flags: FLAG.ACK | FLAG.URG }, false],
    ['a reset', {}, { flags: FLAG.ACK | FLAG.RST }, false],
    ['behind one that pushes', { flags: FLAG.ACK | FLAG.PSH }, {}, false],
    ['behind one that ends the stream', { flags: FLAG.ACK | FLAG.FIN }, {}, false],
    ['a damaged one', {}, { damage: 1 }, false],
    ['behind a damaged one', { damage: 1 }, {}, false],
    ['the other family', {}, ipv6, false],
  ])('%s', (_, first, second, belongs) => {
    const batch = [twin.packetOf({ ...base, ...first }), twin.packetOf({ ...next, ...second })];
    expect(twin.groups(batch, true).length).toBe(belongs ? 1 : 2);
    expect(rig.join(batch, true).groups.length).toBe(belongs ? 1 : 2);
  });

  test('UDP is put together only where the kernel can cut it, and never without a checksum', () => {
    const one = { family: 4, protocol: 'udp', payload: counting(50), id: 5 } as const;
    const batch = [twin.packetOf(one), twin.packetOf({ ...one, id: 6 })];
    expect(rig.join(batch, true).groups).toEqual([[0, 1]]);
    expect(rig.join(batch, false).groups).toEqual([[0], [1]]);
    for (const packet of batch) packet.fill(0, 26, 28);
    expect(rig.join(batch, true).groups).toEqual([[0], [1]]);
  });

  test('what is put together fits an IP packet', () => {
    const segment = 1400;
    const packets = Array.from({ length: 60 }, (_, i) =>
      twin.packetOf({ ...base, payload: counting(segment), seq: i * segment, id: i }),
    );
    expect(rig.join(packets, true).groups.map((group) => group.length)).toEqual([46, 14]);
  });

  test('fragments, IP options and lengths that lie are left alone', () => {
    const pair = () => [twin.packetOf(base), twin.packetOf(next)] as const;
    const spoil = (how: (packet: Uint8Array) => void) => {
      const batch = pair();
      how(batch[1]);
      ipv4.updateChecksum(batch[1], 0);
      return rig.join(batch, true).groups.length;
    };
    expect(spoil(() => {})).toBe(1);
    expect(spoil((p) => ipv4.setFragment(p, 0, ipv4.FLAG_MF, 0))).toBe(2);
    expect(spoil((p) => ipv4.setFragment(p, 0, 0, 8))).toBe(2);
    expect(spoil((p) => ipv4.setTotalLen(p, 0, p.length - 1))).toBe(2);
    expect(spoil((p) => ipv4.setHeaderLen(p, 0, 24))).toBe(2);
    expect(spoil((p) => ipv4.setHeaderLen(p, 0, 16))).toBe(2);
    expect(spoil((p) => p.fill(0xff, 32, 33))).toBe(2);
  });

  test('datagrams that came in a row get a header each', () => {
    const meta = { trafficClass: 3, hopLimit: 61 };
    fc.assert(
      fc.property(
        fc.constantFrom(4 as const, 6 as const),
        fc.integer({ min: 1, max: 1500 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 64 }),
        (family, segment, count, batch) => {
          const payloads = data.subarray(0, Math.ceil((count - 0.5) * segment));
          const from = { bytes: counting(16), at: 0, port: 4500 };
          const to = { bytes: counting(32), at: 16, port: 4501 };
          const header = new Uint8Array(family === 4 ? 28 : 48);
          writeUdpHeaders(header, 0, family, from, to, meta);
          const expected: Uint8Array[] = [];
          for (let at = 0; at < payloads.length; at += segment) {
            const packet = packetFrom(concat(header, payloads.subarray(at, at + segment)));
            finishUdpHeaders(packet, family);
            expected.push(packet.copy());
          }
          const isRight = (one: Uint8Array) =>
            checksum.transportChecksumOk(one, twin.cursorOf(one));
          expect(expected.every(isRight)).toBe(true);
          for (const isSpread of [false, true]) {
            const dealt = rig.deal(header, payloads, segment, { batch, isSpread });
            expect(hex(dealt)).toEqual(hex(expected));
          }
        },
      ),
      { numRuns: 20 },
    );
  });

  test('a checksum that was left to us is completed; one of UDP is never 0', () => {
    const zero = twin.packetOf({ family: 4, protocol: 'udp', payload: new Uint8Array(2) });
    // What makes the sum of everything 0xffff.
    new DataView(zero.buffer).setUint16(28, 0xffff);
    new DataView(zero.buffer).setUint16(28, checksum.transportChecksum(zero, twin.cursorOf(zero)));
    for (const packet of [twin.packetOf(base), twin.packetOf({ ...base, ...ipv6 }), zero]) {
      const { upperAt, protocol } = twin.cursorOf(packet);
      const field = upperAt + checksum.fieldAt(protocol);
      checksum.updateTransportChecksum(packet, twin.cursorOf(packet));
      rig.memory.bytes.set(twin.join([packet]), SegmentRig.IN);
      const { segments } = rig;
      expect(segments.complete(SegmentRig.IN, packet.length, upperAt, field)).toBe(0);
      const done = rig.memory.bytes.slice(SegmentRig.IN, SegmentRig.IN + packet.length);
      expect(done).toEqual(packet);
    }
    expect(new DataView(zero.buffer).getUint16(26)).toBe(0xffff);
  });

  test('what cannot be cut is refused', () => {
    const whole = twin.join([twin.packetOf(base), twin.packetOf(next)]);
    const broken = (how: (packet: Uint8Array) => void) => {
      const packet = whole.slice();
      how(packet);
      return rig.cut(packet, 100);
    };
    expect(rig.cut(whole, 0)).toBe(FAILURE.malformed);
    expect(rig.cut(whole.subarray(0, 52), 100)).toBe(FAILURE.malformed);
    expect(rig.cut(whole, 100, { room: 100 })).toBe(FAILURE.tooLarge);
    // Payloads that lie somewhere else than behind these headers.
    expect(rig.cut(whole, 100, { spread: twin.headersLen(whole) - 4 })).toBe(FAILURE.malformed);
    expect(rig.cut(whole, 100, { spread: twin.headersLen(whole) + 4 })).toBe(FAILURE.malformed);
    expect(rig.cut(new Uint8Array(0), 100)).toBe(FAILURE.malformed);
    expect(broken((p) => p.fill(0x46, 0, 1))).toBe(FAILURE.malformed);
    expect(broken((p) => p.fill(50, 9, 10))).toBe(FAILURE.malformed);
    expect(broken((p) => p.fill(0xf0, 32, 33))).toBeInstanceOf(Array);
    expect(broken((p) => p.fill(0x40, 32, 33))).toBe(FAILURE.malformed);
    expect(broken((p) => p.fill(0x20, 6, 7))).toBe(FAILURE.malformed);
  });

  test('places outside of the memory are refused, and nothing is written', () => {
    const whole = twin.join([twin.packetOf(base), twin.packetOf(next)]);
    expect(rig.cut(whole, 100)).toHaveLength(2);
    const before = rig.memory.bytes.slice();
    const { words } = rig.memory;
    const job = SegmentRig.JOB / 4;
    for (const bad of [
      SegmentRig.SIZE,
      SegmentRig.SIZE - 8,
      0x7fff_ffff,
      0xffff_fff0,
      0x8000_0000,
    ]) {
      for (const field of [CUT.at, CUT.end, CUT.places, CUT.count, CUT.room]) {
        const old = words[job + field]!;
        words[job + field] = bad;
        words[job + CUT.from] = 0;
        expect([field, bad, rig.segments.cut(SegmentRig.JOB)]).toEqual([field, bad, -1]);
        words[job + field] = old;
      }
      const place = words[SegmentRig.LISTS / 4]!;
      words[SegmentRig.LISTS / 4] = bad;
      expect(rig.segments.cut(SegmentRig.JOB)).toBe(-1);
      words[SegmentRig.LISTS / 4] = place;
      expect(rig.segments.cut(bad)).toBe(-1);
      expect(rig.segments.deal(bad)).toBe(-1);
      expect(rig.segments.join(bad)).toBe(-1);
      expect(rig.segments.complete(bad, 100, 0, 0)).toBe(-1);
    }
    expect(rig.segments.cut(SegmentRig.JOB + 2)).toBe(-1);
    words[job + CUT.from] = before[SegmentRig.JOB + 4 * CUT.from]!;
    expect(Buffer.compare(rig.memory.bytes, before)).toBe(0);
  });
});
