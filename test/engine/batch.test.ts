import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { address } from '../../src/base/address.ts';
import type { EspTransform, JobQueue } from '../../src/crypto/transform.ts';
import type { SaSpec } from '../../src/sad/sa.ts';
import { setU16, toHex, u8 } from '../../src/wire/bytes.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { concat, counting, hex, ipv4Packet, ipv6Packet, udp } from '../wire/octets.ts';
import { A, B, type LayerGiven, Pair } from './pair.ts';
import { policy, Rig, request, sa } from './rig.ts';

/** A packet of some flow: few flows, so that many follow one of their own. */
interface Sent {
  readonly family: 4 | 6;
  readonly upper: 'tcp' | 'udp' | 'icmp';
  readonly host: number;
  readonly port: number;
  readonly len: number;
  readonly df: boolean;
  readonly options: boolean;
  readonly part: 'whole' | 'first' | 'broken';
}

const flow = fc.record({
  family: fc.constantFrom(4 as const, 4 as const, 6 as const),
  upper: fc.constantFrom('tcp' as const, 'udp' as const, 'icmp' as const),
  host: fc.constantFrom(2, 2, 2, 3),
  port: fc.constantFrom(80, 80, 9, 500),
});

const rest = fc.record({
  len: fc.constantFrom(0, 700, 1400, 1452, 1500, 2500),
  df: fc.boolean(),
  options: fc.constantFrom(false, false, true),
  part: fc.constantFrom(...(['whole', 'whole', 'whole', 'whole', 'first', 'broken'] as const)),
});

/** Some packets of one flow after the other, of this one and of that. */
const sent: fc.Arbitrary<Sent[]> = fc
  .array(fc.tuple(flow, fc.array(rest, { minLength: 1, maxLength: 8 })), { maxLength: 16 })
  .map((trains) => trains.flatMap(([one, all]) => all.map((each) => ({ ...one, ...each }))));

function octetsOf({ family, upper, host, port, len, df, options, part }: Sent): Uint8Array {
  const data = counting(len);
  const isIcmp = upper === 'icmp';
  const head = isIcmp ? concat(hex(family === 4 ? '0800' : '8000'), data) : udp(data);
  if (!isIcmp) setU16(head, 2, port);
  const protocol = { tcp: 6, udp: 17, icmp: family === 4 ? 1 : 58 }[upper];
  const flags = part === 'first' ? ipv4.FLAG_MF : df ? ipv4.FLAG_DF : 0;
  const more = hex(options ? '01010100' : '');
  const packet =
    family === 4
      ? ipv4Packet({ protocol, flags, options: more }, head)
      : ipv6Packet(protocol, head);
  const dstAt = family === 4 ? ipv4.DST_AT : ipv6.DST_AT;
  packet.set(address(family === 4 ? `10.0.0.${host}` : `2001:db8::${host}`).bytes, dstAt);
  if (family === 4) ipv4.updateChecksum(packet, 0);
  if (part === 'broken') setU16(packet, family === 4 ? 2 : 4, 0xffff);
  return packet;
}

/** In three networks: protected, protected by other SAs for one port, and in the clear. */
function routed(layers: readonly LayerGiven[]): Pair {
  const pair = new Pair(layers, {
    mtu: 1500,
    // Some fragments wait for others that are lost.
    buffers: 40,
    settings: { dfbit: 'copy' },
    ports: { protocol: 17, dport: 9 },
  });
  for (const [i, family] of ([4, 6] as const).entries()) {
    const [src, dst] = [A[family], B[family]];
    const given = { spi: 0x3001 + i, src, dst, mode: 'tunnel', reqid: 77 } as const;
    const net = family === 4 ? '10.0.0.0/30' : '2001:db8::/126';
    const all = family === 4 ? '0.0.0.0/0' : '::/0';
    const one = request({ mode: 'tunnel', src, dst, reqid: 77 });
    for (const rig of [pair.a, pair.b]) {
      rig.sad.add(sa(given), 'mature');
      const direction = rig === pair.a ? 'out' : 'in';
      const bypass = family === 4 ? '10.0.0.3/32' : '2001:db8::3/128';
      rig.spd.add(policy(direction, all, bypass, { type: 'none', priority: 1 }));
      rig.spd.add(policy(direction, all, net, { requests: [one], priority: 2 }));
    }
  }
  return pair;
}

/** Identifications count what a host makes, in the order in which it makes it. */
function withoutId(packet: Uint8Array): string {
  const copy = packet.slice();
  if (u8(copy, 0) >>> 4 === 4) {
    setU16(copy, 4, 0);
    setU16(copy, 10, 0);
  }
  return toHex(copy);
}

/**
 * A damaged packet may also have a sequence number that another one of its batch had: alone it is
 * found to be a replay before anybody looks at its ICV, in the batch the other way round.
 */
function dropsOf(rig: Rig): unknown {
  const drops: Record<string, number> = {};
  for (const [reason, count] of Object.entries(rig.drops())) {
    const name = reason.replace(/-(replay|bad-icv)$/, '-replay or -bad-icv');
    drops[name] = (drops[name] ?? 0) + count;
  }
  return drops;
}

function seen(rig: Rig): unknown {
  const { stats } = rig.host;
  return {
    drops: dropsOf(rig),
    sealed: stats.espSealed,
    opened: stats.espOpened,
    clear: stats.outClear,
    delivered: stats.inDelivered,
    tooBig: stats.tooBigSent,
    free: rig.host.buffersFree,
  };
}

const layers: readonly (readonly LayerGiven[])[] = [
  [{}],
  [{ protocol: 'ah' }],
  [{ tunnel: 4 }],
  [{ tunnel: 6, encapsulation: { srcPort: 4500, dstPort: 4500 } }],
];

describe('a batch gives what its packets give one by one', () => {
  test('going out', () => {
    fc.assert(
      fc.property(sent, fc.constantFrom(...layers), (some, bundle) => {
        const packets = some.map(octetsOf);
        const [together, apart] = [routed(bundle).a, routed(bundle).a];
        const wire = { together: together.output(...packets), apart: [] as Uint8Array[] };
        const errors = { together: [...together.delivered], apart: [] as Uint8Array[] };
        for (const packet of packets) {
          wire.apart.push(...apart.output(packet));
          errors.apart.push(...apart.delivered);
        }
        expect(wire.together.map(withoutId)).toEqual(wire.apart.map(withoutId));
        expect(errors.together.map(withoutId)).toEqual(errors.apart.map(withoutId));
        expect(seen(together)).toEqual(seen(apart));
      }),
      { numRuns: 150 },
    );
  });

  test('coming in: duplicates are delivered once, and the bad ones do not touch the good', () => {
    const fate = fc.constantFrom('once', 'once', 'once', 'twice', 'bent', 'cut', 'clear');
    const fates = fc.infiniteStream(fc.tuple(fate, fc.nat(2000)));
    fc.assert(
      fc.property(sent, fates, fc.constantFrom(...layers), (some, fated, bundle) => {
        const [together, apart] = [routed(bundle), routed(bundle)];
        const packets = some.flatMap((one) => {
          const [what, at] = fated.next().value;
          const plain = octetsOf(one);
          if (what === 'clear') return [plain];
          return together.a.output(plain).flatMap((octets) => {
            if (what === 'twice') return [octets, octets];
            if (what === 'cut') return [octets.slice(0, at % octets.length)];
            if (what === 'bent') octets[at % octets.length]! ^= 1 + (at % 255);
            return [octets];
          });
        });
        const delivered = together.b.input(...packets);
        const others = packets.flatMap((packet) => apart.b.input(packet));
        expect(delivered.map((p) => toHex(p))).toEqual(others.map((p) => toHex(p)));
        expect(seen(together.b)).toEqual(seen(apart.b));
      }),
      { numRuns: 150 },
    );
  });
});

const ANY = '0.0.0.0/0';

describe('packets of new flows, in a large table, whose policies are looked up ahead', () => {
  /** Two networks are protected; of other hosts every third is shut out, and some are not known. */
  function large(): Rig {
    const rig = new Rig({ mtu: 1500 });
    for (const [i, family] of ([4, 6] as const).entries()) {
      const [src, dst] = [A[family], B[family]];
      rig.sad.add(sa({ spi: 0x3001 + i, src, dst, mode: 'tunnel', reqid: 77 }), 'mature');
      const one = request({ mode: 'tunnel', src, dst, reqid: 77 });
      const [all, net] = family === 4 ? [ANY, '10.0.0.0/30'] : ['::/0', '2001:db8::/126'];
      rig.spd.add(policy('out', all, net, { requests: [one] }));
    }
    for (let i = 0; i < 8192; i++) {
      const type = i % 3 === 0 ? 'discard' : 'none';
      rig.spd.add(policy('out', ANY, `10.0.${4 + (i >> 8)}.${i & 255}/32`, { type }));
    }
    return rig;
  }

  /** Mostly to other hosts, some to the protected ones, some broken, and trains of one flow. */
  function traffic(seed: number): Uint8Array[] {
    let state = seed;
    const below = (limit: number) => {
      state = (Math.imul(state, 0x41c6_4e6d) + 12_345) >>> 0;
      return (state >>> 8) % limit;
    };
    return Array.from({ length: 120 }, () => below(5)).flatMap((kind) => {
      const near = { upper: 'udp', host: 2, port: 9 } as const;
      const one = {
        family: kind === 0 ? 6 : 4,
        ...near,
        len: 10,
        df: false,
        options: false,
      } as const;
      const part = (['first', 'broken', 'whole', 'whole', 'whole'] as const)[below(5)]!;
      const octets = octetsOf({ ...one, part });
      if (kind < 2) return [octets];
      setU16(octets, ipv4.DST_AT + 2, below(0x2400));
      return kind === 2 ? [octets, octets.slice(), octets.slice()] : [octets];
    });
  }

  test('in batches and one by one it is the same', () => {
    const [together, apart] = [large(), large()];
    const asked = vi.spyOn(together.spd, 'lookupBatch');
    for (const seed of [1, 2, 3, 4, 5, 6, 7, 8, 9]) {
      const packets = traffic(seed);
      const wire = together.output(...packets).map(withoutId);
      expect(wire).toEqual(packets.flatMap((packet) => apart.output(packet)).map(withoutId));
      expect(seen(together)).toEqual(seen(apart));
    }
    expect(asked.mock.calls.length).toBeGreaterThan(5);
    expect(together.drops()).toMatchObject({ 'out policy-discard': expect.any(Number) });
  });

  test('policies that change in the middle of a batch count from there on', () => {
    const all = policy('out', ANY, ANY, { type: 'discard', priority: 0 });
    const rig: Rig = new Rig({
      events: {
        acquire: () => {
          rig.spd.add(all);
          return 'nobody';
        },
      },
    });
    for (let i = 0; i < 8192; i++) {
      const host = `10.1.${i >> 8}.${i & 255}/32`;
      rig.spd.add(policy('out', ANY, host, { type: 'none', priority: 7 }));
    }
    rig.spd.add(policy('out', ANY, '10.9.0.0/16', { requests: [request({})], priority: 8 }));
    const to = (net: number, i: number) => {
      const packet = ipv4Packet({ protocol: 17 }, udp(counting(4)));
      packet.set([10, net, 0, i], ipv4.DST_AT);
      ipv4.updateChecksum(packet, 0);
      return packet;
    };
    const clear = (from: number) => Array.from({ length: 30 }, (_, i) => to(1, from + i));
    const asked = vi.spyOn(rig.spd, 'lookupBatch');
    expect(rig.output(...clear(0))).toHaveLength(30);
    expect(rig.output(...clear(30), to(9, 1), ...clear(60))).toHaveLength(30);
    expect(asked.mock.calls).toHaveLength(1);
    expect(rig.drops()).toEqual({ 'out no-sa': 1, 'out policy-discard': 30 });
  });
});

/** A provider that does its jobs when it is told to, by the real transforms. */
function queued(spec: SaSpec, queue: Jobs): SaSpec {
  const esp = spec.esp!;
  const later = (job: () => boolean) => queue.add(job);
  const sealLater = (...given: Parameters<typeof esp.seal>) => {
    return later(() => {
      esp.seal(...given);
      return true;
    });
  };
  return {
    ...spec,
    esp: {
      ...{ ivLen: esp.ivLen, icvLen: esp.icvLen, alignLen: esp.alignLen, iv: esp.iv },
      authenticates: esp.authenticates,
      seal: (...given) => esp.seal(...given),
      open: (...given) => esp.open(...given),
      queue,
      ...{ sealLater, openLater: (...given) => later(() => esp.open(...given)) },
      sealRowLater: (...row) => forRow(row, sealLater),
      openRowLater: (...row) => forRow(row, (...given) => later(() => esp.open(...given))),
      wipe: () => esp.wipe(),
    },
  };
}

/** One by one; the number of the first. */
function forRow(
  [packets, from, count, by, len, high]: Parameters<Required<EspTransform>['sealRowLater']>,
  note: (p: Uint8Array, at: number, end: number, high: number) => number,
): number {
  const jobs = packets.slice(from, from + count).map(({ bytes, at }) => {
    return note(bytes, at + by, at + by + len, high);
  });
  return jobs[0]!;
}

class Jobs implements JobQueue {
  readonly capacity = 256;
  readonly #jobs: (() => boolean)[] = [];
  readonly #ok: boolean[] = [];
  most = 0;

  get count(): number {
    return this.#jobs.length;
  }

  add(job: () => boolean): number {
    this.#jobs.push(job);
    this.most = Math.max(this.most, this.count);
    return this.count - 1;
  }

  run(): void {
    this.#ok.splice(0, Infinity, ...this.#jobs.map((job) => job()));
    this.#jobs.length = 0;
  }

  ok(job: number): boolean {
    return this.#ok[job]!;
  }

  countOk(job: number, count: number): number {
    const bad = this.#ok.slice(job, job + count).indexOf(false);
    return bad < 0 ? count : bad;
  }
}

describe('a provider with a queue', () => {
  /** A sends to B by SAs of two queues and of none; every batch has packets of each. */
  function hosts(): { a: Rig; b: Rig; queues: readonly Jobs[] } {
    const [a, b] = [new Rig(), new Rig()];
    const queues = [new Jobs(), new Jobs()];
    for (const rig of [a, b]) {
      for (const [i, queue] of [...queues, undefined].entries()) {
        const given = sa({ spi: 0x1001 + i, src: A[4], dst: B[4], reqid: i + 1 });
        rig.sad.add(queue === undefined ? given : queued(given, queue), 'mature');
        const direction = rig === a ? 'out' : 'in';
        const requests = [request({ reqid: i + 1 })];
        const only = { protocol: 17, dport: 5000 + i, requests };
        rig.spd.add(policy(direction, '0.0.0.0/0', '0.0.0.0/0', only));
      }
    }
    return { a, b, queues };
  }

  const packets = Array.from({ length: 150 }, (_, i) => {
    const head = udp(counting(i));
    setU16(head, 2, 5000 + (i % 3));
    return ipv4Packet({ protocol: 17 }, head);
  });

  test('gets a whole batch at once; whatever has no queue, or another one, is served as well', () => {
    const { a, b, queues } = hosts();
    const wire = a.output(...packets);
    expect(queues[0]!.most).toBeGreaterThan(20);
    expect(queues.map(({ count }) => count)).toEqual([0, 0]);
    expect(b.input(...wire).map((p) => toHex(p))).toEqual(packets.map((p) => toHex(p)));
    expect([a.drops(), b.drops()]).toEqual([{}, {}]);
  });

  test('tells the right packet from the wrong one', () => {
    const { a, b } = hosts();
    const wire = a.output(...packets);
    for (const i of [0, 3, 64, 65, 149]) wire[i]!.set([wire[i]!.at(-1)! ^ 1], wire[i]!.length - 1);
    const good = packets.filter((_, i) => ![0, 3, 64, 65, 149].includes(i));
    expect(b.input(...wire).map((p) => toHex(p))).toEqual(good.map((p) => toHex(p)));
    expect(b.drops()).toEqual({ 'in esp-bad-icv': 5 });
  });
});
