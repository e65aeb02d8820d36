import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { PATH_MTU_MIN, PathMtus } from '../../src/engine/pmtu.ts';
import { setU16 } from '../../src/wire/bytes.ts';
import * as checksum from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as icmp from '../../src/wire/icmp.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { packetFrom } from '../../src/wire/packet.ts';
import {
  concat,
  counting,
  fragmentHeader,
  hex,
  ipv4Packet,
  ipv6Packet,
  udp,
} from '../wire/octets.ts';
import { icmpError, tooBig } from './errors.ts';
import { A, B, endsOf, type LayerGiven, Pair, type PairOptions } from './pair.ts';
import { BUFFERS, policy, Rig, request, sa } from './rig.ts';

const DF = ipv4.FLAG_DF;
const copying = { settings: { dfbit: 'copy' as const } };

/** A UDP packet of so many octets, which its sender wants to stay whole. */
function sized(family: 4 | 6, len: number, flags = DF): Uint8Array {
  const p =
    family === 4
      ? ipv4Packet({ protocol: 17, flags }, udp(counting(len - 28)))
      : ipv6Packet(17, udp(counting(len - 48)));
  const cursor = new Cursor();
  decode(p, 0, p.length, cursor);
  checksum.updateTransportChecksum(p, cursor);
  return p;
}

/** The MTU in an ICMP error, which is a too-big. */
function mtuIn(error: Uint8Array): number {
  const cursor = new Cursor();
  expect(decode(error, 0, error.length, cursor)).toBeUndefined();
  expect(icmp.isTooBig(error, cursor.upperAt, cursor.family)).toBe(true);
  return icmp.mtu(error, cursor.upperAt, cursor.family);
}

/** A sends, and the router in front of a link of `mtu` answers. */
function narrowed(
  layers: readonly LayerGiven[],
  mtu: number,
  options: PairOptions = {},
): { pair: Pair; family: 4 | 6 } {
  const family = options.family ?? 4;
  const pair = new Pair(layers, { mtu: 1600, ...copying, ...options });
  const [sent] = pair.a.output(sized(family, 1400));
  expect(pair.a.input(tooBig(sent!, mtu))).toEqual([]);
  return { pair, family };
}

const layersOf: readonly (readonly [string, readonly LayerGiven[]])[] = [
  ['ESP', [{}]],
  ['AH', [{ protocol: 'ah' }]],
  ['AH over ESP', [{}, { protocol: 'ah' }]],
  ['ESP in UDP', [{ encapsulation: { srcPort: 4500, dstPort: 4500 } }]],
  ['an IPv4 tunnel', [{ tunnel: 4 }]],
  ['an IPv6 tunnel', [{ tunnel: 6 }]],
  ['an AH tunnel in IPv6', [{ tunnel: 6, protocol: 'ah' }]],
  [
    'ESP in UDP through an IPv6 tunnel',
    [{ tunnel: 6, encapsulation: { srcPort: 4500, dstPort: 4500 } }],
  ],
  ['a tunnel in a tunnel', [{ tunnel: 6 }, { tunnel: 4 }]],
  ['AH around a tunnel of the same ends', [{ tunnel: 4 }, { tunnel: 4, protocol: 'ah' }]],
  ['a tunnel under AH', [{ tunnel: 4 }, { protocol: 'ah' }]],
];

describe.each([4, 6] as const)('a too-big about IPv%i in', (family) => {
  test.each(layersOf)('%s: what does not fit any more is answered with what does', (_, layers) => {
    const { pair } = narrowed(layers, 1420, { family });
    expect(pair.a.drops()).toEqual({ 'in icmp-path-mtu': 1 });
    expect(pair.a.host.paths.map(({ mtu }) => mtu)).toEqual([1420]);
    pair.a.output(sized(family, 1400));
    const largest = mtuIn(pair.a.delivered[0]!);
    expect(pair.a.sent).toEqual([]);
    const fits = sized(family, largest);
    const { wire, delivered } = pair.send(fits);
    expect(wire.map(({ length }) => length <= 1420)).toEqual([true]);
    expect(delivered).toEqual([fits]);
    pair.a.output(sized(family, largest + 1));
    expect([pair.a.sent, pair.a.delivered.map(mtuIn)]).toEqual([[], [largest]]);
    expect(pair.a.drops()).toEqual({ 'in icmp-path-mtu': 1, 'out too-big': 2 });
  });
});

describe('on a path that became narrow', () => {
  test.each(layersOf)('IPv4 without DF is cut in front of it: %s', (_, layers) => {
    const { pair } = narrowed(layers, 1300);
    const packet = sized(4, 1400, 0);
    const { wire, delivered } = pair.send(packet);
    expect(wire.length).toBe(2);
    expect(Math.max(...wire.map(({ length }) => length))).toBeLessThanOrEqual(1300);
    expect(delivered).toEqual([packet]);
  });

  test('IPv6 packets that no sender makes smaller are cut too', () => {
    const { pair } = narrowed([{ tunnel: 6 }], 1300, { family: 6 });
    pair.a.output(sized(6, 1281));
    expect(pair.a.delivered.map(mtuIn)).toEqual([1280]);
    const { wire, delivered } = pair.send(sized(6, 1280));
    expect(wire.map(({ length }) => length <= 1300)).toEqual([true, true]);
    expect(delivered).toEqual([sized(6, 1280)]);
  });

  test('what its sender has cut already is cut again, and nobody is told', () => {
    const { pair } = narrowed([{}], 1300, { family: 6 });
    const whole = sized(6, 2048);
    const one = ipv6Packet(44, fragmentHeader(17, 0, 1, 7), whole.slice(40, 1064));
    const two = ipv6Packet(44, fragmentHeader(17, 1024, 0, 7), whole.slice(1064));
    const { wire, delivered } = pair.send(one, two);
    expect(wire.map(({ length }) => length <= 1300)).toEqual([true, true]);
    expect(delivered).toEqual([whole]);
    expect(pair.a.drops()).toEqual({ 'in icmp-path-mtu': 1 });
  });

  test('new SAs know it, other destinations do not', () => {
    const { pair } = narrowed([{}], 1300);
    for (const one of pair.a.sad.all()) pair.a.sad.remove(one);
    pair.a.sad.add(sa({ spi: 0x5001, src: A[4], dst: B[4], reqid: 1 }), 'mature');
    pair.a.sad.add(sa({ spi: 0x5002, src: A[4], dst: '10.0.0.3', reqid: 1 }), 'mature');
    expect(pair.a.output(sized(4, 1400))).toEqual([]);
    const other = sized(4, 1400);
    other[19] = 3;
    ipv4.updateChecksum(other, 0);
    expect(pair.a.output(other).length).toBe(1);
  });

  test('it is forgotten after ten minutes', () => {
    const { pair } = narrowed([{}], 1300);
    const { env, host } = pair.a;
    const now = env.clock.monotonicMs();
    env.advance(599_999);
    host.poll(now + 599_999);
    expect(pair.a.output(sized(4, 1400))).toEqual([]);
    env.advance(1);
    host.poll(now + 600_000);
    expect(pair.a.output(sized(4, 1400)).length).toBe(1);
    expect(host.paths).toEqual([]);
  });
});

describe('an error is not believed', () => {
  test.each([
    [4, 400, 576],
    [6, 100, 1280],
  ] as const)('below what every path of IPv%i carries', (family, said, believed) => {
    const { pair } = narrowed([{}], said, { family });
    expect(pair.a.host.paths.map(({ mtu }) => mtu)).toEqual([believed]);
    expect(PATH_MTU_MIN[family]).toBe(believed);
  });

  test('when it would raise the MTU, or repeats it', () => {
    const { pair } = narrowed([{}], 1000);
    const before = pair.a.host.paths;
    pair.a.env.advance(1000);
    const [small] = pair.a.output(sized(4, 900));
    for (const mtu of [1000, 1200, 65_535]) pair.a.input(tooBig(small!, mtu));
    const longer = small!.slice();
    ipv4.setTotalLen(longer, 0, 1400);
    for (const mtu of [1000, 1200]) pair.a.input(tooBig(longer, mtu));
    expect(pair.a.host.paths).toEqual(before);
    expect(pair.a.drops()).toEqual({ 'in icmp-path-mtu': 1, 'in icmp-mtu-refused': 5 });
  });

  test('when it went to somebody else than the sender', () => {
    const pair = new Pair([{}], copying);
    const [sent] = pair.a.output(sized(4, 1400));
    pair.a.input(tooBig(sent!, 1000, { dst: [10, 0, 0, 9] }));
    expect(pair.a.host.paths).toEqual([]);
  });

  test('when it quotes less than the SPI, or what is no packet', () => {
    const pair = new Pair([{}], copying);
    const [sent] = pair.a.output(sized(4, 1400));
    for (const quotedLen of [0, 19, 20, 27]) pair.a.input(tooBig(sent!, 1000, { quotedLen }));
    expect(pair.a.host.paths).toEqual([]);
    pair.a.input(tooBig(sent!, 1000, { quotedLen: 28 }));
    expect(pair.a.host.paths.map(({ mtu }) => mtu)).toEqual([1000]);
  });

  test('whatever octets it is made of: the MTU stays within its bounds', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...layersOf.map(([, layers]) => layers)),
        fc.constantFrom(4 as const, 6 as const),
        fc.nat(70_000),
        fc.integer({ min: 0, max: 700 }),
        fc.array(fc.tuple(fc.nat(130), fc.nat(255)), { maxLength: 4 }),
        (layers, family, mtu, quotedLen, spoilt) => {
          const pair = new Pair(layers, { mtu: 1600, ...copying, family });
          const [sent] = pair.a.output(sized(family, 1400));
          const error = tooBig(sent!, mtu, { quotedLen });
          for (const [at, value] of spoilt) if (at < error.length) error[at] = value;
          pair.a.host.overhear([packetFrom(error)], 1);
          pair.a.input(error);
          for (const path of pair.a.host.paths) {
            expect(path.mtu).toBeGreaterThanOrEqual(PATH_MTU_MIN[path.destination.family]);
            expect(path.mtu).toBeLessThan(sent!.length);
          }
          expect(pair.a.host.buffersFree).toBe(BUFFERS);
        },
      ),
      { numRuns: 200 },
    );
  });
});

test('a router that names no MTU means the next lower one that is usual (RFC 1191 §7.1)', () => {
  const { pair } = narrowed([{}], 0);
  expect(pair.a.host.paths.map(({ mtu }) => mtu)).toEqual([1006]);
  const { pair: six } = narrowed([{}], 0, { family: 6 });
  expect(six.a.host.paths.map(({ mtu }) => mtu)).toEqual([1280]);
});

describe('ESP in UDP', () => {
  const encapsulation = { srcPort: 4500, dstPort: 4500 };

  test('to where the peer of a NAT is now', () => {
    const pair = new Pair([{ encapsulation }], copying);
    const [outbound] = pair.a.sad.between('esp', address(A[4]), address(B[4]));
    outbound!.peer = { address: address(B[4]), port: 61_000 };
    const [sent] = pair.a.output(sized(4, 1400));
    const elsewhere = sent!.slice();
    setU16(elsewhere, 22, 4500);
    pair.a.input(tooBig(elsewhere, 1000));
    expect(pair.a.drops()).toEqual({ 'in icmp-no-sa': 1 });
    pair.a.input(tooBig(sent!, 1000));
    expect(pair.a.host.paths.map(({ mtu }) => mtu)).toEqual([1000]);
  });

  test('through a tunnel that follows its peer to another address', () => {
    const pair = new Pair([{ tunnel: 4, encapsulation }], copying);
    const [outbound] = pair.a.sad.between('esp', address(A[4]), address(B[4]));
    outbound!.peer = { address: address('10.0.0.77'), port: 61_000 };
    const [sent] = pair.a.output(sized(4, 1400));
    pair.a.input(tooBig(sent!, 1000));
    expect(pair.a.host.paths.map(({ destination }) => destination)).toEqual([address('10.0.0.77')]);
    expect(pair.a.output(sized(4, 1400))).toEqual([]);
    outbound!.peer = undefined;
    expect(pair.a.output(sized(4, 1400)).length).toBe(1);
  });

  test('an error about IKE is for the program that sent it', () => {
    const rig = new Rig();
    const ike = ipv4Packet(
      { protocol: 17, flags: DF },
      concat(hex('1194 1194 0064 0000'), new Uint8Array(92)),
    );
    const error = tooBig(ike, 1000);
    expect(rig.input(error)).toEqual([error]);
  });
});

describe('through tunnels in tunnels', () => {
  // To G, and from there on to C.
  const G = '10.0.5.1';
  const C = '10.0.6.1';

  function nested(family: 4 | 6): { rig: Rig; gateway: Rig } {
    const [rig, gateway] = [new Rig({ mtu: 1600, ...copying }), new Rig(copying)];
    const inner = { protocol: 'esp', mode: 'tunnel', reqid: 1 } as const;
    const outer = { protocol: 'esp', mode: 'tunnel', reqid: 2 } as const;
    rig.sad.add(sa({ spi: 0x1011, src: A[4], dst: C, ...inner }), 'mature');
    for (const one of [rig, gateway]) {
      one.sad.add(sa({ spi: 0x1021, src: A[4], dst: G, ...outer }), 'mature');
      one.sad.add(sa({ spi: 0x1022, src: G, dst: A[4], ...outer }), 'mature');
    }
    const all = family === 4 ? '0.0.0.0/0' : '::/0';
    const there = [
      request({ ...inner, src: A[4], dst: C }),
      request({ ...outer, src: A[4], dst: G }),
    ];
    rig.spd.add(policy('out', all, all, { requests: there }));
    const back = [request({ ...outer, src: G, dst: A[4] })];
    rig.spd.add(policy('in', '10.0.0.0/8', `${A[4]}/32`, { requests: back }));
    gateway.spd.add(policy('out', '10.0.0.0/8', `${A[4]}/32`, { requests: back }));
    gateway.spd.add(policy('in', `${A[4]}/32`, '10.0.0.0/8', { requests: there.slice(1) }));
    return { rig, gateway };
  }

  test.each([4, 6] as const)(
    'IPv%i: what is too big behind the first is made to fit there',
    (family) => {
      const { rig, gateway } = nested(family);
      const [sent] = rig.output(sized(family, 1400));
      const [onward] = gateway.input(sent!);
      expect(endsOf(onward!)).toBe(`${A[4]} > ${C}`);
      const [answer] = gateway.output(tooBig(onward!, 1380, { src: [10, 0, 5, 9] }));
      expect(rig.input(answer!)).toEqual([]);
      expect(rig.drops()).toEqual({ 'in icmp-path-mtu': 1 });
      rig.output(sized(family, 1400));
      const largest = mtuIn(rig.delivered[0]!);
      const [fits] = rig.output(sized(family, largest));
      expect(gateway.input(fits!).map(({ length }) => length <= 1380)).toEqual([true]);
      rig.output(sized(family, largest + 1));
      expect(rig.delivered.map(mtuIn)).toEqual([largest]);
      if (family === 6) return;
      // Nobody could cut it there any more, so its sender is told though it left DF out.
      rig.output(sized(4, 1400, 0));
      expect(rig.delivered.map(mtuIn)).toEqual([largest]);
    },
  );
});

test('a policy for all that comes in does not keep the news from us', () => {
  const { pair } = narrowed([{}], 1000);
  expect(pair.a.spd.list('in')[0]!.selector.src.length).toBe(0);
  expect(pair.a.host.paths.length).toBe(1);
});

test('what is overheard is used and never delivered', () => {
  const pair = new Pair([{}], copying);
  const { host } = pair.a;
  const [sent] = pair.a.output(sized(4, 1400));
  pair.a.delivered.length = 0;
  const packets = [tooBig(sized(4, 1400), 900), icmpError(sent!, 3, 2), tooBig(sent!, 1000), sent!];
  host.overhear(packets.map(packetFrom), packets.length);
  expect(pair.a.delivered).toEqual([]);
  expect(pair.a.drops()).toEqual({ 'in icmp-unauthenticated': 1, 'in icmp-path-mtu': 1 });
  expect([host.stats.inPackets, host.paths.map(({ mtu }) => mtu)]).toEqual([2, [1000]]);
});

describe('the table of paths', () => {
  const to = (i: number) => address(`10.0.${i >> 8}.${i & 255}`);

  test('is bounded: the oldest goes', () => {
    const paths = new PathMtus();
    for (let i = 0; i < 1025; i++) expect(paths.lower(to(i), 1000, i * 1000)).toBe('lowered');
    expect([paths.size, paths.list()[0]!.destination]).toEqual([1024, to(1)]);
  });

  test('takes little news in a second, and again in the next', () => {
    const paths = new PathMtus();
    const outcomes = Array.from({ length: 70 }, (_, i) => paths.lower(to(i), 1000, 5000));
    expect(outcomes.filter((one) => one === 'lowered').length).toBe(64);
    expect(paths.lower(to(300), 1000, 5999)).toBe('too-many-news');
    expect(paths.lower(to(300), 1000, 6000)).toBe('lowered');
  });

  test('says when it next forgets', () => {
    const paths = new PathMtus();
    paths.lower(to(1), 1000, 0);
    paths.lower(to(2), 1000, 50);
    paths.lower(to(1), 900, 100);
    expect(paths.poll(0)).toBe(600_050);
    expect(paths.poll(600_050)).toBe(600_100);
    expect(paths.list().map(({ mtu }) => mtu)).toEqual([900]);
    expect(paths.poll(600_100)).toBe(Number.POSITIVE_INFINITY);
  });
});
