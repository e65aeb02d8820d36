import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { address } from '../../src/base/address.ts';
import type * as rowOut from '../../src/engine/row.ts';
import type * as sameFlow from '../../src/engine/same-flow.ts';
import { NO_LIMIT } from '../../src/sad/lifetime.ts';
import { equal, setU16, setU32, toHex, u8 } from '../../src/wire/bytes.ts';
import { updateTransportChecksum } from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import { concat, counting, ipv4Packet, ipv6Packet } from '../wire/octets.ts';
import { type LayerGiven, Pair } from './pair.ts';
import { policy, type Rig } from './rig.ts';

const rows = vi.hoisted(() => ({ allowed: true }));

vi.mock('../../src/engine/same-flow.ts', async (importOriginal) => {
  const real = await importOriginal<typeof sameFlow>();
  return {
    ...real,
    countFollowers: (...asked: Parameters<typeof real.countFollowers>) => {
      return rows.allowed ? real.countFollowers(...asked) : 0;
    },
  };
});

vi.mock('../../src/engine/row.ts', async (importOriginal) => {
  const real = await importOriginal<typeof rowOut>();
  return {
    ...real,
    mayLead: (...asked: Parameters<typeof real.mayLead>) => {
      return rows.allowed && real.mayLead(...asked);
    },
  };
});

/** What an engine does that sees no rows, neither marked ones nor others. */
function oneByOne<T>(work: () => T): T {
  rows.allowed = false;
  try {
    return work();
  } finally {
    rows.allowed = true;
  }
}

/** What is cut into packets: as many of one length, and a shorter one behind them. */
interface Train {
  readonly family: 4 | 6;
  readonly protocol: number;
  readonly port: number;
  readonly count: number;
  readonly len: number;
  readonly rest: number;
  readonly tos: number;
  readonly df: boolean;
  readonly id: number;
  /** A packet of it whose header checksum is wrong, if there are so many. */
  readonly wrong: number;
}

const train: fc.Arbitrary<Train> = fc.record({
  family: fc.constantFrom(4 as const, 4 as const, 6 as const),
  protocol: fc.constantFrom(PROTO.TCP, PROTO.TCP, PROTO.UDP),
  port: fc.constantFrom(80, 80, 4500, 9),
  count: fc.constantFrom(0, 1, 2, 5, 40),
  len: fc.constantFrom(20, 36, 700, 1400, 1470),
  rest: fc.constantFrom(0, 8, 30),
  tos: fc.constantFrom(0, 0, 2, 0xb8),
  df: fc.boolean(),
  id: fc.constantFrom(0, 1, 0xffff),
  wrong: fc.constantFrom(99, 99, 99, 0, 1, 4),
});

/** As the kernel's own segmentation does it. */
function packetsOf(whole: Train): Uint8Array[] {
  const { family, protocol, port, count, len, rest, tos, df, id, wrong } = whole;
  const lens = [...new Array<number>(count).fill(len), ...(rest > 0 ? [rest] : [])];
  return lens.map((each, i) => {
    const upper = concat(new Uint8Array(protocol === PROTO.TCP ? 20 : 8), counting(each));
    setU16(upper, 0, 1234);
    setU16(upper, 2, port);
    if (protocol === PROTO.TCP) setU32(upper, 4, 1000 + i * len);
    else setU16(upper, 4, upper.length);
    if (family === 6) {
      const packet = ipv6Packet(protocol, upper);
      ipv6.setTrafficClass(packet, 0, tos);
      return withChecksum(packet);
    }
    const packet = ipv4Packet({ protocol, flags: df ? ipv4.FLAG_DF : 0 }, upper);
    ipv4.setTos(packet, 0, tos);
    ipv4.setId(packet, 0, (id + i) & 0xffff);
    ipv4.updateChecksum(packet, 0);
    if (i === wrong) packet[10]! ^= 0x40;
    return withChecksum(packet);
  });
}

function withChecksum(packet: Uint8Array): Uint8Array {
  const cursor = new Cursor();
  decode(packet, 0, packet.length, cursor);
  updateTransportChecksum(packet, cursor);
  return packet;
}

/** Whether a packet has the same length and headers as the one before, but for what counts up. */
function marks(packets: readonly Uint8Array[]): boolean[] {
  return packets.map((packet, i) => i > 0 && isAlike(packets[i - 1]!, packet));
}

function isAlike(p: Uint8Array, q: Uint8Array): boolean {
  if (p.length !== q.length || p.length < 28) return false;
  const isIpv4 = u8(p, 0) === 0x45;
  if (!isIpv4 && (u8(p, 0) >>> 4 !== 6 || p.length < 48)) return false;
  const [from, to, protocolAt, upperAt] = isIpv4 ? [12, 20, 9, 20] : [8, 40, 6, 40];
  const headers = isIpv4 ? equal(p, 0, q, 0, 4) && equal(p, 6, q, 6, 4) : equal(p, 0, q, 0, 8);
  if (!headers || !equal(p, from, q, from, to - from)) return false;
  const protocol = u8(p, protocolAt);
  if (protocol === PROTO.UDP) return equal(p, upperAt, q, upperAt, 6);
  if (protocol === PROTO.TCP) return equal(p, upperAt, q, upperAt, 4);
  return protocol === PROTO.ESP;
}

const NATT = { srcPort: 4500, dstPort: 4500 };
const family = fc.constantFrom(4 as const, 4 as const, 6 as const);

const layers: readonly (readonly LayerGiven[])[] = [
  [{}],
  [{ enc: 'aes-cbc', auth: 'hmac-sha256', esn: true }],
  [{ tunnel: 4 }],
  [{ tunnel: 6 }],
  [{ tunnel: 4, encapsulation: NATT }],
  [{ tunnel: 6, encapsulation: NATT }],
  [{ encapsulation: NATT }],
  [{ tunnel: 4, padding: 'random' }],
  [{ tunnel: 4, tunnelOptions: { df: 'copy' } }],
  [{ tunnel: 4, enc: 'null', auth: 'hmac-sha256' }],
  [{ tunnel: 4, hard: { ...NO_LIMIT, packets: 7 } }],
  [{ tunnel: 4, soft: { ...NO_LIMIT, bytes: 5000 } }],
  [{ protocol: 'ah' }],
  [{}, { tunnel: 4 }],
  [{ tunnel: 4, encapsulation: NATT }, { tunnel: 4 }],
];

/** Port 9 goes in the clear, and is refused where it comes in. */
function pair(bundle: readonly LayerGiven[], family: 4 | 6): Pair {
  // Of some trains all fragments wait for one that is lost.
  const both = new Pair(bundle, { mtu: 1500, family, priority: 1, buffers: 40 });
  const all = family === 4 ? '0.0.0.0/0' : '::/0';
  for (const rig of [both.a, both.b]) {
    const nine = { protocol: PROTO.TCP, dport: 9 };
    rig.spd.add(policy('out', all, all, { type: 'none', ...nine }));
    rig.spd.add(policy('in', all, all, { type: 'discard', ...nine }));
  }
  // The first packet of an SA reserves its sequence numbers, and is alone.
  both.send(...packetsOf({ ...PLAIN, family, count: 1 }));
  return both;
}

function seen(rig: Rig): unknown {
  const { families } = rig.host.stats;
  const sas = [...rig.sad.all()].map(
    ({ spec, usage, sentSeq, replay, replays, badIcvs, state }) => {
      const { packets, bytes } = usage;
      return { spi: spec.spi, packets, bytes, sentSeq, top: replay.top, replays, badIcvs, state };
    },
  );
  const expired = rig.expired.map(([one, limit]) => `${one.spec.spi} ${limit}`);
  return { families: structuredClone(families), sas, expired, free: rig.host.buffersFree };
}

const hexOf = (packets: readonly Uint8Array[]) => packets.map((packet) => toHex(packet));

/** Packets of the trains, all but one of a family; one train behind the other, or in turn. */
function mostlyOf(family: 4 | 6, trains: readonly Train[], inTurn: boolean): Uint8Array[] {
  const each = trains.map((one, i) => packetsOf(i === 3 ? one : { ...one, family }));
  if (!inTurn) return each.flat();
  const longest = Math.max(0, ...each.map(({ length }) => length));
  return Array.from({ length: longest }, (_, i) => each.flatMap((some) => some[i] ?? [])).flat();
}

const PLAIN: Train = {
  ...{ family: 4, protocol: PROTO.TCP, port: 80, count: 6, len: 500 },
  ...{ rest: 0, tos: 0, df: true, id: 7, wrong: 99 },
};

describe('packets that follow one another', () => {
  const trains = fc.array(train, { maxLength: 5 });
  const worlds = fc.record({
    of: family,
    bundle: fc.constantFrom(...layers),
    isMarked: fc.boolean(),
    inTurn: fc.boolean(),
    isReversed: fc.constantFrom(false, false, true),
  });

  test('going out: become what they would have become one by one, to the last octet', () => {
    fc.assert(
      fc.property(trains, worlds, (some, { of, bundle, isMarked, inTurn }) => {
        const packets = mostlyOf(of, some, inTurn);
        const [fast, slow] = [pair(bundle, of).a, pair(bundle, of).a];
        const sent = fast.outputMarked(packets, isMarked ? marks(packets) : []);
        expect(hexOf(sent)).toEqual(hexOf(oneByOne(() => slow.output(...packets))));
        expect(seen(fast)).toEqual(seen(slow));
      }),
      { numRuns: 100 },
    );
  });

  test('coming in: are delivered, or not, as they would be one by one', () => {
    const fate = fc.constantFrom(...['once', 'once', 'once', 'once', 'twice', 'bent', 'away']);
    const fates = fc.infiniteStream(fc.tuple(fate, fc.nat(2000)));
    fc.assert(
      fc.property(trains, fates, worlds, (some, fated, world) => {
        const { of, bundle, isMarked, inTurn, isReversed } = world;
        const wire = pair(bundle, of)
          .a.output(...mostlyOf(of, some, inTurn))
          .flatMap((packet) => {
            const [what, at] = fated.next().value;
            if (what === 'away') return [];
            if (what === 'twice') return [packet, packet.slice()];
            if (what === 'bent') packet[at % packet.length]! ^= 1 + (at % 255);
            return [packet];
          });
        if (isReversed) wire.reverse();
        const [fast, slow] = [pair(bundle, of).b, pair(bundle, of).b];
        const delivered = fast.inputMarked(wire, isMarked ? marks(wire) : []);
        expect(hexOf(delivered)).toEqual(hexOf(oneByOne(() => slow.input(...wire))));
        expect(seen(fast)).toEqual(seen(slow));
      }),
      { numRuns: 100 },
    );
  });

  test('a duplicate of a last fragment is not like the datagram that this has become', () => {
    const { a } = pair([{}], 4);
    const [one, two, ...more] = a.output(
      ...packetsOf({ ...PLAIN, df: false, count: 1, len: 1490 }),
    );
    expect(more).toEqual([]);
    const wire = [one, two, two, one, one].map((fragment) => fragment!.slice());
    const [fast, slow] = [pair([{}], 4).b, pair([{}], 4).b];
    const delivered = fast.inputMarked(wire, marks(wire));
    expect(hexOf(delivered)).toEqual(hexOf(oneByOne(() => slow.input(...wire))));
    expect(seen(fast)).toEqual(seen(slow));
  });

  test.each([
    [{ tunnel: 4, encapsulation: NATT }],
    [{ tunnel: 4 }],
    [{}],
    [{ encapsulation: NATT }],
  ] as LayerGiven[][])('of two flows by one SA are told apart: %j', (layer) => {
    const { a, b } = pair([layer], 4);
    const { TCP: protocol } = PROTO;
    b.spd.add(policy('in', '0.0.0.0/0', '0.0.0.0/0', { type: 'discard', protocol, dport: 81 }));
    const good = packetsOf(PLAIN);
    // A length of 501 is as long as 500 with its padding.
    for (const len of [500, 501]) {
      const bad = packetsOf({ ...PLAIN, port: 81, len });
      for (const packets of [[...good, ...bad], [...bad, ...good], interleaved(bad, good)]) {
        const wire = a.output(...packets);
        expect(marks(wire).filter((mark) => mark)).toHaveLength(11);
        const before = b.drops()['in policy-discard'] ?? 0;
        expect(hexOf(b.inputMarked(wire, marks(wire)))).toEqual(hexOf(good));
        expect(b.drops()).toEqual({ 'in policy-discard': before + 6 });
      }
    }
  });

  test('of two lengths that are one when they are sealed are told apart', () => {
    const { a, b } = pair([{}], 4);
    const packets = interleaved(packetsOf(PLAIN), packetsOf({ ...PLAIN, len: 501 }));
    const wire = a.output(...packets);
    expect(hexOf(b.inputMarked(wire, marks(wire)))).toEqual(hexOf(packets));
  });

  test.each([
    [1, false],
    [2 ** 32 - 60, false],
    [2 ** 32 - 60, true],
    [2 ** 32 - 3, true],
    [2 ** 33 + 5, true],
  ])('sequence numbers from %i on, extended %s', (start, esn) => {
    const release = () => {};
    const sequences = { lease: () => ({ start, extend: () => start + 10_000, release }) };
    const both = () => new Pair([{ tunnel: 4, esn, replayPackets: 64 }], { sequences });
    const [fast, slow] = [both(), both()];
    for (const { a, b } of [fast, slow]) b.input(...a.output(packetsOf(PLAIN)[0]!));
    for (let round = 0; round < 12; round++) {
      const packets = packetsOf(PLAIN);
      const wire = fast.a.outputMarked(packets, marks(packets));
      expect(hexOf(wire)).toEqual(hexOf(oneByOne(() => slow.a.output(...packets))));
      const delivered = fast.b.inputMarked(wire, marks(wire));
      expect(hexOf(delivered)).toEqual(hexOf(oneByOne(() => slow.b.input(...wire))));
      expect([seen(fast.a), seen(fast.b)]).toEqual([seen(slow.a), seen(slow.b)]);
    }
  });

  test('a wrong ICV and a limit within a row', () => {
    const hard = { ...NO_LIMIT, packets: 9 };
    const { a } = pair([{ tunnel: 4 }], 4);
    const { b } = pair([{ tunnel: 4, hard }], 4);
    const packets = packetsOf(PLAIN);
    const wire = a.output(...packets);
    wire[2]!.set([wire[2]!.at(-1)! ^ 1], wire[2]!.length - 1);
    const delivered = b.inputMarked(wire, marks(wire));
    expect(hexOf(delivered)).toEqual(hexOf(packets.filter((_, i) => i !== 2)));
    // Nine with the first of the pair: three more, and no fourth.
    const more = a.output(...packets);
    expect(b.inputMarked(more, marks(more))).toHaveLength(3);
    expect(b.drops()).toMatchObject({ 'in esp-bad-icv': 1, 'in sa-not-usable': 3 });
    expect(b.expired.map(([, limit]) => limit)).toEqual(['hard']);
  });

  test('congestion that was met on the way is for those that can hear of it', () => {
    const { a, b } = pair([{ tunnel: 4, tunnelOptions: { ecn: false } }], 4);
    const { TCP: protocol } = PROTO;
    const able = packetsOf({ ...PLAIN, protocol, tos: 2 });
    const deaf = packetsOf({ ...PLAIN, protocol, tos: 0 });
    const wire = a.output(...interleaved(able, deaf));
    for (const packet of wire) {
      ipv4.setTos(packet, 0, 3);
      ipv4.updateChecksum(packet, 0);
    }
    for (const one of b.sad.all()) one.spec = { ...one.spec, tunnel: { ecn: true } };
    const delivered = b.inputMarked(wire, marks(wire));
    expect(delivered.map((packet) => ipv4.tos(packet, 0))).toEqual(new Array(6).fill(3));
    expect(b.drops()).toEqual({ 'in ecn-invalid': 6 });
  });

  test.each([PROTO.TCP, PROTO.UDP])(
    'behind a NAT checksums are mended: protocol %i',
    (protocol) => {
      const { a, b } = pair([{ encapsulation: NATT }], 4);
      const [one] = [...b.sad.all()].filter(({ spec }) => spec.spi === 0x1001);
      one!.spec = { ...one!.spec, src: address('10.0.0.99') };
      const packets = packetsOf({ ...PLAIN, protocol });
      const translated = (packet: Uint8Array) => {
        packet[ipv4.SRC_AT + 3] = 99;
        ipv4.updateChecksum(packet, 0);
        return packet;
      };
      for (let round = 0; round < 3; round++) {
        const wire = a.output(...packets).map(translated);
        const delivered = b.inputMarked(wire, marks(wire));
        expect(hexOf(delivered)).toEqual(
          hexOf(packets.map((packet) => withChecksum(translated(packet.slice())))),
        );
      }
      // A packet that came with a wrong checksum says nothing about those behind it.
      const [first, ...others] = packets;
      const bad = first!.slice();
      bad[ipv4.HEADER_LEN + (protocol === PROTO.TCP ? 16 : 6)]! ^= 0x40;
      const wire = a.output(bad, ...others).map(translated);
      const delivered = b.inputMarked(wire, marks(wire)).slice(1);
      expect(hexOf(delivered)).toEqual(
        hexOf(others.map((packet) => withChecksum(translated(packet.slice())))),
      );
    },
  );

  test('a peer that has moved is found by its newest packet, wherever in the row that is', () => {
    const { a, b } = pair([{ tunnel: 4, encapsulation: NATT }], 4);
    const wire = a.output(...packetsOf(PLAIN));
    b.input(wire[3]!);
    for (const packet of wire) setU16(packet, ipv4.HEADER_LEN, 61_000);
    const late = [wire[1]!, wire[2]!, wire[4]!];
    expect(marks(late)).toEqual([false, true, true]);
    expect(b.inputMarked(late, marks(late))).toHaveLength(3);
    expect(b.host.stats.natMappings).toBe(1);
    expect(b.sad.get('esp', 0x1001, address('10.0.0.2'))!.seenAt!.port).toBe(61_000);
  });
});

function interleaved<T>(some: readonly T[], others: readonly T[]): T[] {
  return some.flatMap((one, i) => [one, others[i]!]);
}
