import { describe, expect, test } from 'vitest';
import { toHex, u8 } from '../../src/wire/bytes.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { packetFrom } from '../../src/wire/packet.ts';
import { concat, counting, hex, ipv4Packet, ipv6Packet, udp } from '../wire/octets.ts';
import { endsOf, type LayerGiven, Pair } from './pair.ts';
import { sa } from './rig.ts';

const MARK = counting(40);
const PLAIN = {
  4: ipv4Packet({ protocol: 17 }, udp(MARK)),
  6: ipv6Packet(17, udp(MARK)),
} as const;

const esp: LayerGiven = {};
const ah: LayerGiven = { protocol: 'ah' };
const espTunnel = (tunnel: 4 | 6): LayerGiven => ({ tunnel });
const ahTunnel = (tunnel: 4 | 6): LayerGiven => ({ tunnel, protocol: 'ah' });

const BUNDLES: readonly [string, readonly LayerGiven[]][] = [
  ['ESP transport', [esp]],
  ['AH transport', [ah]],
  ['ESP tunnel in IPv4', [espTunnel(4)]],
  ['ESP tunnel in IPv6', [espTunnel(6)]],
  ['AH tunnel in IPv4', [ahTunnel(4)]],
  ['AH tunnel in IPv6', [ahTunnel(6)]],
  ['AH over ESP', [esp, ah]],
  ['ESP over AH', [ah, esp]],
  ['tunnel in tunnel', [espTunnel(4), { ...espTunnel(6), enc: 'aes-cbc', auth: 'hmac-sha1' }]],
  ['AH tunnel over ESP tunnel', [espTunnel(6), ahTunnel(4)]],
  ['transport inside a tunnel', [esp, espTunnel(6)]],
  ['transport over a tunnel', [espTunnel(6), ah]],
  ['two ciphers', [{ enc: 'aes-ctr', auth: 'hmac-sha512' }, { enc: 'chacha20-poly1305' }]],
  ['eight layers', [esp, ah, espTunnel(4), espTunnel(6), ah, ahTunnel(4), espTunnel(6), esp]],
  [
    'eight AH tunnels in IPv6',
    Array.from({ length: 8 }, () => ({ ...ahTunnel(6), auth: 'hmac-sha512' })),
  ],
];

describe.each([4, 6] as const)('IPv%i', (family) => {
  test.each(BUNDLES)('%s: what A sends is what B delivers', (_, layers) => {
    const pair = new Pair(layers, { family });
    const { wire, delivered } = pair.send(PLAIN[family]);
    expect([pair.a.drops(), pair.b.drops()]).toEqual([{}, {}]);
    expect(delivered.map((p) => toHex(p))).toEqual([toHex(PLAIN[family])]);
    const hides = layers.some(({ protocol }) => protocol !== 'ah');
    expect(toHex(wire[0]!).includes(toHex(MARK))).toBe(!hides);
    const outer = layers.findLast(({ tunnel }) => tunnel !== undefined)?.tunnel ?? family;
    expect(u8(wire[0]!, 0) >> 4).toBe(outer);
    const { stats } = pair.a.host;
    expect(stats.espSealed + stats.ahSealed).toBe(layers.length);
    expect(stats.outProtected).toBe(1);
    expect(pair.b.host.stats.espOpened).toBe(stats.espSealed);
  });

  test.each(BUNDLES)('%s: an altered octet anywhere is noticed', (_, layers) => {
    const pair = new Pair(layers, { family });
    const wire = pair.send(PLAIN[family]).wire[0]!;
    for (let at = 0; at < wire.length; at += 7) {
      const altered = wire.slice();
      altered[at]! ^= 0x10;
      const delivered = pair.b.input(altered);
      // Only what routers may change can pass: TOS and class, flow label, hop limit of an outermost
      // header.
      if (delivered.length > 0)
        expect(toHex(delivered[0]!.slice(12))).toBe(toHex(PLAIN[family].slice(12)));
    }
  });
});

test.each([
  ['hmac-sha256', 4, 28],
  ['hmac-sha256', 8, 32],
  ['hmac-sha1', 4, 24],
  ['hmac-sha1', 8, 24],
  ['hmac-sha512', 4, 44],
  ['hmac-sha512', 8, 48],
] as const)('AH with %s on IPv4, padded to %i: %i octets', (auth, ahAlignLen, len) => {
  const pair = new Pair([{ ...ah, auth, ahAlignLen }]);
  const { wire, delivered } = pair.send(PLAIN[4]);
  expect((u8(wire[0]!, 21) + 2) * 4).toBe(len);
  expect(delivered).toEqual([PLAIN[4]]);
  // RFC 4302 §2.2: IPv6 demands a multiple of 8 whatever the SA says.
  const six = new Pair([{ ...ah, auth, ahAlignLen }], { family: 6 }).send(PLAIN[6]);
  expect((u8(six.wire[0]!, 41) + 2) % 2).toBe(0);
  expect(six.delivered).toEqual([PLAIN[6]]);
});

test.each([
  ['sequential', '010203'],
  ['zero', '000000'],
] as const)('padding %s', (padding, octets) => {
  const pair = new Pair([{ enc: 'null', auth: 'hmac-sha1', padding }]);
  const packet = ipv4Packet({ protocol: 17 }, udp(counting(7)));
  const { wire, delivered } = pair.send(packet);
  // 15 octets of payload, 3 of padding, its length, the next header and 12 of ICV.
  expect(toHex(wire[0]!.slice(-17, -12))).toBe(`${octets}0311`);
  expect(delivered).toEqual([packet]);
});

test('random padding differs from packet to packet', () => {
  const pair = new Pair([{ enc: 'null', auth: 'hmac-sha1', padding: 'random' }]);
  const packet = ipv4Packet({ protocol: 17 }, udp(counting(7)));
  const { wire, delivered } = pair.send(packet, packet, packet);
  expect(new Set(wire.map((p) => toHex(p.slice(-17, -14)))).size).toBe(3);
  expect(delivered.length).toBe(3);
});

test('IPv4 options and IPv6 extension headers stay where routers look for them', () => {
  const options = hex('94040000 830b04 0a000009 0a000002');
  const four = ipv4Packet({ protocol: 17, options: concat(options, hex('00')) }, udp(MARK));
  const six = ipv6Packet(
    0,
    hex('2b00 050200000000'),
    hex('3c02 0001 00000000 20010db8000000000000000000000003'),
    hex('1100 010400000000'),
    udp(MARK),
  );
  for (const layers of [[esp], [ah], [esp, ah]]) {
    const pair4 = new Pair(layers).send(four);
    expect(toHex(pair4.wire[0]!.slice(20, 36))).toBe(toHex(four.slice(20, 36)));
    expect(pair4.delivered.map((p) => toHex(p))).toEqual([toHex(four)]);
    // The source route is not at its end yet, so AH is computed for the address that it ends at
    // (RFC 4302 §3.3.3.1.2.2).
    const wire = new Pair(layers, { family: 6 }).send(six).wire[0]!;
    expect(toHex(wire.slice(40, 48))).toBe(toHex(six.slice(40, 48)));
    expect(u8(wire, 48)).toBe(layers.includes(ah) ? 51 : 50);
  }
});

test('AH survives a source route: the last hop has other addresses than the first', () => {
  const via = hex('20010db8000000000000000000000009');
  const last = hex('20010db8000000000000000000000002');
  const packet = ipv6Packet(43, concat(hex('1102 0001 00000000'), last), udp(MARK));
  packet.set(via, 24);
  const pair = new Pair([ah], { family: 6 });
  // The SA of A goes by the destination in the header, the first hop.
  pair.a.sad.flush();
  pair.a.sad.add(
    sa({
      protocol: 'ah',
      auth: 'hmac-sha256',
      spi: 0x1001,
      reqid: 1,
      src: '2001:db8::1',
      dst: '2001:db8::9',
    }),
    'mature',
  );
  const [wire] = pair.a.output(packet);
  wire!.set(last, 24);
  wire!.set(via, 48);
  wire![43] = 0;
  expect(pair.b.input(wire!).length).toBe(1);
  expect(pair.b.drops()).toEqual({});
});

test('sequence numbers go on past 2^32 with ESN, on both sides', () => {
  for (const protocol of ['esp', 'ah'] as const) {
    const start = 2 ** 32 - 3;
    const lease = () => ({ start, extend: (needed: number) => needed, release: () => {} });
    const pair = new Pair([{ protocol, esn: true }], { sequences: { lease } });
    const inbound = [...pair.b.sad.all()].find(({ spec }) => spec.spi === 0x1001)!;
    inbound.replay.startAt(start - 1);
    const { delivered } = pair.send(...Array.from({ length: 8 }, () => PLAIN[4]));
    expect(delivered.length).toBe(8);
    expect(inbound.replay.top).toBe(start + 7);
  }
});

describe('batches', () => {
  const many = Array.from({ length: 150 }, (_, i) =>
    ipv4Packet({ protocol: 17, id: i + 1 }, udp(counting(20 + i))),
  );

  test.each(BUNDLES)(
    '%s: a batch gives the same octets as one packet after the other',
    (_, layers) => {
      const [together, alone] = [new Pair(layers), new Pair(layers)];
      const batch = together.send(...many);
      const single = many.flatMap((one) => alone.send(one).wire);
      // What is random may differ: compare what is opened, and the lengths and order of what is
      // sent.
      expect(batch.wire.map((p) => p.length)).toEqual(single.map((p) => p.length));
      expect(batch.wire.map(endsOf)).toEqual(single.map(endsOf));
      expect([together.a.drops(), together.b.drops()]).toEqual([{}, {}]);
      expect(batch.delivered).toEqual(many);
      const counts = (pair: Pair) =>
        [...pair.a.sad.all(), ...pair.b.sad.all()].map(({ usage }) => [usage.packets, usage.bytes]);
      expect(counts(together)).toEqual(counts(alone));
    },
  );

  test.each(['esp', 'ah'] as const)(
    '%s: a packet that is twice in a batch is delivered once',
    (protocol) => {
      const pair = new Pair([{ protocol }]);
      const wire = pair.a.output(...many.slice(0, 3));
      const delivered = pair.b.input(wire[0]!, wire[0]!, wire[1]!, wire[0]!, wire[2]!, wire[1]!);
      expect(delivered.length).toBe(3);
      expect(pair.b.drops()).toEqual({ [`in ${protocol}-replay`]: 3 });
    },
  );

  test('what cannot be sent is dropped from the middle of a batch, and the rest goes', () => {
    const pair = new Pair([esp]);
    const bad = PLAIN[4].slice(0, 19);
    const { delivered } = pair.send(PLAIN[4], bad, PLAIN[4]);
    expect(delivered.length).toBe(2);
    expect(pair.a.drops()).toEqual({ 'out truncated-header': 1 });
  });
});

test('IPv4 gets an identification before it is protected, as Linux would add one behind our back', () => {
  const pair = new Pair([ah]);
  const { wire } = pair.send(
    ...Array.from({ length: 3 }, () => ipv4Packet({ protocol: 17, id: 0 }, udp(MARK))),
  );
  const ids = wire.map((p) => ipv4.id(p, 0));
  expect(ids.every((id) => id !== 0)).toBe(true);
  expect(new Set(ids).size).toBe(3);
  expect(ipv4.id(pair.send(ipv4Packet({ protocol: 17, id: 77 }, udp(MARK))).wire[0]!, 0)).toBe(77);
});

test('a sink may hand packets to the host that calls it', () => {
  const { a, b } = new Pair([esp]);
  const replies: Uint8Array[] = [];
  const reply = fromB(ipv4Packet({ protocol: 17, src: 2 }, udp(counting(9))));
  // B answers each packet at once, and the answers come back while A is still sending.
  a.onTransmit = (packets, count) => b.host.input(packets, count);
  b.onDeliver = (_, count) => {
    for (let i = 0; i < count; i++) b.host.output([packetFrom(reply)], 1);
  };
  b.onTransmit = (packets, count) => a.host.input(packets, count);
  a.onDeliver = (packets, count) => {
    for (let i = 0; i < count; i++) replies.push(packets[i]!.copy());
    if (replies.length === 1) a.host.output([packetFrom(PLAIN[4])], 1);
  };
  a.output(...Array.from({ length: 5 }, () => PLAIN[4]));
  expect(replies).toEqual(Array.from({ length: 6 }, () => reply));
  expect([a.drops(), b.drops()]).toEqual([{}, {}]);
});

/** From B to A: the source and destination of `ipv4Packet` exchanged. */
function fromB(p: Uint8Array): Uint8Array {
  p.set([10, 0, 0, 2, 10, 0, 0, 1], ipv4.SRC_AT);
  ipv4.updateChecksum(p, 0);
  return p;
}
