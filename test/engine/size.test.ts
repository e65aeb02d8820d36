import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { toHex, u8, u16, u32, viewOf } from '../../src/wire/bytes.ts';
import * as checksum from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as icmp from '../../src/wire/icmp.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import {
  concat,
  counting,
  fragmentHeader,
  hex,
  ipv4Packet,
  ipv6Packet,
  udp,
} from '../wire/octets.ts';
import { endsOf, type LayerGiven, Pair } from './pair.ts';
import { BUFFERS, policy, Rig } from './rig.ts';

const DF = ipv4.FLAG_DF;
const MF = ipv4.FLAG_MF;
const cursor = new Cursor();

/** A UDP packet of so many octets. */
function sized(family: 4 | 6, len: number, flags = 0): Uint8Array {
  return family === 4
    ? ipv4Packet({ protocol: 17, flags }, udp(counting(len - 28)))
    : ipv6Packet(17, udp(counting(len - 48)));
}

/** The MTU in an error, after everything else in it was looked at. */
function mtuIn(error: Uint8Array, about: Uint8Array): number {
  expect(decode(error, 0, error.length, cursor)).toBeUndefined();
  const { family, upperAt } = cursor;
  expect([icmp.isTooBig(error, upperAt, family), cursor.end]).toEqual([true, error.length]);
  expect(checksum.transportChecksumOk(error, cursor)).toBe(true);
  if (family === 4) expect(ipv4.checksumOk(viewOf(error), 0)).toBe(true);
  const quoted = error.slice(upperAt + 8);
  expect(toHex(about).startsWith(toHex(quoted))).toBe(true);
  expect(error.length).toBeLessThanOrEqual(family === 4 ? 576 : 1280);
  const [from, to] = endsOf(about).split(' > ');
  expect(endsOf(error)).toBe(`${to} > ${from}`);
  return icmp.mtu(error, upperAt, family);
}

const anyLayer: fc.Arbitrary<LayerGiven> = fc
  .record(
    {
      tunnel: fc.constantFrom(4 as const, 6 as const),
      protocol: fc.constantFrom('esp' as const, 'ah' as const),
      enc: fc.constantFrom('aes-gcm-16', 'aes-ctr', 'aes-cbc', 'null'),
      auth: fc.constantFrom('hmac-sha1', 'hmac-sha512'),
      encapsulation: fc.constantFrom(undefined, { srcPort: 4500, dstPort: 4500 }),
    },
    { requiredKeys: ['protocol', 'auth', 'enc'] },
  )
  .map(({ protocol, enc, auth, encapsulation, tunnel }) => ({
    protocol,
    ...(tunnel === undefined ? {} : { tunnel }),
    ...(protocol === 'ah' ? { auth } : enc === 'aes-gcm-16' ? { enc } : { enc, auth }),
    ...(protocol === 'ah' || encapsulation === undefined ? {} : { encapsulation }),
  }));

test('the MTU of an error is the largest size that fits', () => {
  fc.assert(
    fc.property(
      fc.array(anyLayer, { minLength: 1, maxLength: 4 }),
      fc.constantFrom(4 as const, 6 as const),
      fc.integer({ min: 2100, max: 3000 }),
      fc.nat(3),
      (layers, family, mtu, options) => {
        // The outermost header must be IPv4, which alone has DF; it comes through any below.
        const all = [...layers, { tunnel: 4 as const }];
        const pair = new Pair(all, { family, mtu, settings: { dfbit: 'copy' }, buffers: 8 });
        const header = family === 4 ? hex('01'.repeat(4 * options)) : hex('');
        const make = (len: number) =>
          family === 4
            ? ipv4Packet(
                { protocol: 17, flags: DF, options: header },
                udp(counting(len - 28 - header.length)),
              )
            : sized(6, len);
        pair.a.output(make(2990));
        const errors = pair.a.delivered.slice();
        expect(errors.length).toBe(1);
        const largest = mtuIn(errors[0]!, make(2990));
        expect(pair.a.output(make(largest)).length).toBe(1);
        expect(pair.a.sent[0]!.length).toBeLessThanOrEqual(mtu);
        pair.a.output(make(largest + 1));
        expect(pair.a.sent).toEqual([]);
        expect(pair.a.drops()).toEqual({ 'out too-big': 2 });
      },
    ),
    { numRuns: 60 },
  );
});

describe('errors', () => {
  const copying = { settings: { dfbit: 'copy' as const } };

  test.each([
    [4, [{}], 1466],
    [4, [{ tunnel: 4 as const }], 1446],
    [4, [{ protocol: 'ah' as const }], 1472],
    [6, [{ tunnel: 4 as const }], 1446],
  ] as const)('IPv%i through %j: MTU %i', (family, layers, largest) => {
    const pair = new Pair(layers, { family, ...copying });
    const packet = sized(family, 1490, DF);
    expect(pair.a.output(packet)).toEqual([]);
    expect(pair.a.delivered.map((error) => mtuIn(error, packet))).toEqual([largest]);
    expect(pair.a.host.stats.tooBigSent).toBe(1);
  });

  test('also for what goes out in the clear', () => {
    const rig = new Rig({ mtu: 1400 });
    const packet = sized(4, 1401, DF);
    expect(rig.output(packet, sized(4, 1400, DF)).length).toBe(1);
    expect(rig.delivered.map((error) => mtuIn(error, packet))).toEqual([1400]);
    expect(rig.drops()).toEqual({ 'out too-big': 1 });
  });

  test('never say less than every link carries', () => {
    const small4 = new Pair([{ tunnel: 4 }], { mtu: 100, ...copying });
    const packet = sized(4, 90, DF);
    small4.a.output(packet);
    expect(small4.a.delivered.map((error) => mtuIn(error, packet))).toEqual([68]);
    const small6 = new Pair([{ tunnel: 4 }], { family: 6, mtu: 1300, ...copying });
    const six = sized(6, 1290);
    small6.a.output(six);
    expect(small6.a.delivered.map((error) => mtuIn(error, six))).toEqual([1280]);
    // Which then must get through, in fragments (RFC 2473 §7.1).
    expect(small6.a.output(sized(6, 1280)).length).toBe(2);
    expect(small6.b.input(...small6.a.sent)).toEqual([sized(6, 1280)]);
  });

  test.each([
    [
      'an ICMP error',
      ipv4Packet({ protocol: 1, flags: DF }, concat(hex('0303 0000 00000000'), counting(1470))),
    ],
    [
      'a later fragment',
      ipv4Packet({ protocol: 17, flags: DF | MF, offset: 80, src: 7 }, counting(1472)),
    ],
    ['multicast', withDst(sized(4, 1490, DF), [224, 0, 0, 9])],
    ['broadcast', withDst(sized(4, 1490, DF), [255, 255, 255, 255])],
  ])('none about %s (RFC 1122 §3.2.2)', (_, packet) => {
    const pair = new Pair([{ tunnel: 4 }], copying);
    pair.a.output(packet);
    expect(pair.a.delivered).toEqual([]);
    expect(pair.a.drops()).toEqual({ 'out too-big': 1 });
  });

  test('an echo request gets one', () => {
    const pair = new Pair([{ tunnel: 4 }], copying);
    pair.a.output(
      ipv4Packet({ protocol: 1, flags: DF }, concat(hex('0800 0000 00000000'), counting(1470))),
    );
    expect(pair.a.delivered.length).toBe(1);
  });
});

function withDst(p: Uint8Array, dst: number[]): Uint8Array {
  p.set(dst, ipv4.DST_AT);
  ipv4.updateChecksum(p, 0);
  return p;
}

describe('outer fragments', () => {
  test.each([
    [4, [{ tunnel: 4 as const }]],
    [4, [{ tunnel: 6 as const }]],
    [6, [{ tunnel: 4 as const }]],
    [6, [{}]],
    [4, [{}]],
    [4, [{ protocol: 'ah' as const }]],
    [6, [{ protocol: 'ah' as const, tunnel: 6 as const }]],
  ] as const)(
    'IPv%i through %j: cut, and put together by the peer in any order',
    (family, layers) => {
      const pair = new Pair(layers, { family });
      const packet = sized(family, 4000);
      const wire = pair.a.output(packet);
      expect(wire.length).toBe(3);
      expect(Math.max(...wire.map((p) => p.length))).toBeLessThanOrEqual(1500);
      expect(pair.a.host.stats.fragmentsMade).toBe(3);
      expect(pair.b.input(wire[2]!, wire[0]!)).toEqual([]);
      expect(pair.b.input(wire[1]!)).toEqual([packet]);
      expect(pair.b.host.buffersFree).toBe(BUFFERS);
    },
  );

  test('a tunnel header of IPv6 has no DF, whatever is set', () => {
    const pair = new Pair([{ tunnel: 6 }], { settings: { dfbit: 'set' } });
    expect(pair.send(sized(4, 1490, DF)).delivered).toEqual([sized(4, 1490, DF)]);
    expect(pair.a.host.stats.fragmentsMade).toBe(2);
  });

  test('the longest packet of all', () => {
    const pair = new Pair([{ tunnel: 4 }], { buffers: 64 });
    const overhead = 20 + 8 + 8 + 16 + 2;
    const most = 65_535 - overhead - ((65_535 - overhead - 20) % 4);
    const packet = sized(4, most - ((most + 2) % 4));
    expect(pair.send(packet).delivered).toEqual([packet]);
    pair.a.output(sized(4, 65_500));
    expect(pair.a.drops()).toEqual({ 'out packet-too-long': 1 });
  });

  test('without buffers the whole is dropped, and no part of it is sent', () => {
    const pair = new Pair([{ tunnel: 4 }], { buffers: 2 });
    expect(pair.a.output(sized(4, 4000), sized(4, 100)).length).toBe(1);
    expect(pair.a.drops()).toEqual({ 'out no-room': 1 });
    const { stats } = pair.a.host;
    expect([stats.outProtected, stats.fragmentsMade, pair.a.host.buffersFree]).toEqual([1, 0, 2]);
  });

  test('order is kept', () => {
    const pair = new Pair([{ tunnel: 4 }]);
    const packets = [sized(4, 100), sized(4, 2000), sized(4, 200), sized(4, 3000), sized(4, 300)];
    expect(pair.send(...packets).delivered).toEqual(packets);
  });
});

describe('inner fragments', () => {
  // Not between the ends of the tunnel: there a fragment of UDP might be one of IKE.
  const whole = ipv4Packet({ protocol: 17, id: 9, src: 7 }, udp(counting(48)));
  const first = ipv4Packet({ protocol: 17, id: 9, src: 7, flags: MF }, whole.slice(20, 44));
  const later = ipv4Packet({ protocol: 17, id: 9, src: 7, offset: 24 }, whole.slice(44));
  const whole6 = ipv6Packet(17, udp(counting(48)));
  const first6 = ipv6Packet(44, fragmentHeader(17, 0, 1, 7), whole6.slice(40, 64));
  const later6 = ipv6Packet(44, fragmentHeader(17, 24, 0, 7), whole6.slice(64));

  test.each([
    [4, first, later, whole],
    [6, first6, later6, whole6],
  ] as const)(
    'IPv%i before a transport SA: put together first (RFC 4303 §3.3.4)',
    (family, one, two, all) => {
      const from = family === 4 ? { src: '10.0.0.7' } : {};
      const pair = new Pair([from], { family });
      expect(pair.send(two).wire).toEqual([]);
      const { delivered } = pair.send(one);
      expect([pair.a.drops(), pair.b.drops()]).toEqual([{}, {}]);
      expect(delivered).toEqual([all]);
      expect(pair.a.host.stats.reassembled).toBe(1);
      expect(pair.a.host.buffersFree).toBe(BUFFERS);
    },
  );

  test.each([
    [4, first, later],
    [6, first6, later6],
  ] as const)('IPv%i through a tunnel for all: each as it is', (family, one, two) => {
    const pair = new Pair([{ tunnel: 4 }], { family });
    expect(pair.send(two, one).delivered).toEqual([two, one]);
    expect(pair.b.host.stats.reassembled).toBe(0);
  });

  test.each([
    [4, first, later, whole],
    [6, first6, later6, whole6],
  ] as const)(
    'IPv%i through a tunnel for one port: put together on the way out',
    (family, one, two, all) => {
      const pair = new Pair([{ tunnel: 4 }], { family, ports: { protocol: 17, dport: 2000 } });
      expect(pair.send(one).wire).toEqual([]);
      expect(pair.send(two).delivered).toEqual([all]);
    },
  );

  test('through a tunnel whose inbound policy asks for ports: put together on the way in', () => {
    const pair = new Pair([{ tunnel: 4 }]);
    pair.b.spd.flush();
    const all = '0.0.0.0/0';
    const requests = pair.a.spd.list('out')[0]!.requests;
    pair.b.spd.add(policy('in', all, all, { protocol: 17, dport: 2000, requests }));
    expect(pair.send(later).delivered).toEqual([]);
    expect(pair.send(first).delivered).toEqual([whole]);
  });

  test('of different SAs are never put together', () => {
    const pair = new Pair([{ tunnel: 4 }]);
    const other = new Pair([{ tunnel: 4, enc: 'aes-ctr', auth: 'hmac-sha1' }]);
    const [theirs] = [...other.b.sad.all()].filter(({ spec }) => spec.spi === 0x1001);
    pair.b.sad.add({ ...theirs!.spec, spi: 0x3001 }, 'mature');
    other.a.sad.flush();
    other.a.sad.add({ ...theirs!.spec, spi: 0x3001 }, 'mature');
    pair.b.spd.flush();
    const all = '0.0.0.0/0';
    const requests = pair.a.spd.list('out')[0]!.requests;
    pair.b.spd.add(policy('in', all, all, { protocol: 17, dport: 2000, requests }));
    pair.b.input(pair.a.output(first)[0]!);
    expect(pair.b.input(other.a.output(later)[0]!)).toEqual([]);
    expect(pair.b.host.fragmentsWaiting).toBe(2);
  });

  test('IPv6 fragments whose header names an extension get the answer of the whole', () => {
    const data = concat(hex('1100 010400000000'), udp(counting(40)));
    const one = ipv6Packet(44, fragmentHeader(60, 0, 1, 7), data.slice(0, 24));
    const two = ipv6Packet(44, fragmentHeader(60, 24, 0, 7), data.slice(24));
    const pair = new Pair([{ tunnel: 4 }], { family: 6, ports: { protocol: 17 } });
    expect(pair.send(one, two).delivered).toEqual([ipv6Packet(60, data)]);
  });

  test('what never is completed is counted', () => {
    const pair = new Pair([{}]);
    pair.a.output(first);
    expect(pair.a.host.fragmentsWaiting).toBe(1);
    pair.a.env.advance(30_000);
    pair.a.host.poll(pair.a.env.clock.monotonicMs());
    expect(pair.a.drops()).toEqual({ 'out fragment-timeout': 1 });
  });
});

test('an error quotes no more than it may', () => {
  const rig = new Rig({ mtu: 1400 });
  rig.output(sized(4, 1500, DF));
  expect(u16(rig.delivered[0]!, 2)).toBe(576);
  expect([
    u8(rig.delivered[0]!, 20),
    u8(rig.delivered[0]!, 21),
    u32(rig.delivered[0]!, 24),
  ]).toEqual([3, 4, 1400]);
});
