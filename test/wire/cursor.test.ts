import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addressFrom, formatAddress } from '../../src/base/address.ts';
import * as ah from '../../src/wire/ah.ts';
import { fromHex, viewOf } from '../../src/wire/bytes.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as esp from '../../src/wire/esp.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import {
  concat,
  counting,
  fragmentHeader,
  hex,
  ipv4Packet,
  ipv6Packet,
  linuxFrames,
  udp,
} from './octets.ts';

const cursor = new Cursor();

function decoded(p: Uint8Array): Cursor {
  const one = new Cursor();
  expect(decode(p, 0, p.length, one)).toBeUndefined();
  return one;
}

function refusal(p: Uint8Array): string | undefined {
  return decode(p, 0, p.length, cursor);
}

/** An options header of 8 octets: one PadN. */
const options = (next: number): Uint8Array => Uint8Array.of(next, 0, 1, 4, 0, 0, 0, 0);
/** A type 0 routing header with one address, 2001:db8::9. */
const routing = (next: number, left: number): Uint8Array =>
  concat(Uint8Array.of(next, 2, 0, left, 0, 0, 0, 0), hex('20010db8000000000000000000000009'));

describe('IPv4', () => {
  test('UDP behind options, with link padding behind the packet', () => {
    const p = ipv4Packet({ protocol: 17, options: hex('94040000') }, udp(counting(5)));
    const one = decoded(concat(p, counting(9)));
    expect(one).toMatchObject({
      family: 4,
      end: p.length,
      protocol: 17,
      protocolAt: 9,
      upperAt: 24,
      srcAt: 12,
      dstAt: 16,
      isFragment: false,
      insertAt: 24,
      insertProtocolAt: 9,
      sport: 1000,
      dport: 2000,
      portsKnown: true,
      hopOptionsAt: 0,
      routingAt: 0,
    });
  });

  test('a later fragment has no ports, though its data look like some', () => {
    const p = ipv4Packet({ protocol: 17, offset: 1480 }, udp(counting(5)));
    expect(decoded(p)).toMatchObject({
      isFragment: true,
      fragmentOffset: 1480,
      moreFragments: false,
      upperAt: 20,
      portsKnown: false,
      sport: 0,
    });
  });

  test('a first fragment has them', () => {
    const p = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_MF }, udp(counting(8)));
    expect(decoded(p)).toMatchObject({ isFragment: true, moreFragments: true, portsKnown: true });
  });

  test('an upper header that is cut off', () => {
    const p = ipv4Packet({ protocol: 6 }, hex('0050 01'));
    expect(decoded(p)).toMatchObject({ portsKnown: false, sport: 0, dport: 0 });
  });

  test('ICMP has its type and code in the place of ports', () => {
    const p = ipv4Packet({ protocol: 1 }, hex('0304 0000 0000 0578'));
    expect(decoded(p)).toMatchObject({ sport: 3, dport: 4, portsKnown: true });
  });

  test('a protocol without ports: nothing is unknown', () => {
    const p = ipv4Packet({ protocol: PROTO.OSPF }, counting(8));
    expect(decoded(p)).toMatchObject({ sport: 0, dport: 0, portsKnown: true });
  });

  test.each([
    ['truncated-header', hex('')],
    ['truncated-header', hex('45000014000000004011')],
    ['bad-version', hex('55')],
    ['bad-header-length', hex('4400001400000000401100000a0000010a000002')],
    ['bad-total-length', hex('4600001400000000401100000a0000010a000002')],
    ['bad-total-length', hex('4500001300000000401100000a0000010a000002')],
    ['bad-total-length', hex('4500001500000000401100000a0000010a000002')],
    ['bad-option', ipv4Packet({ protocol: 17, options: hex('07010000') }, counting(8))],
    ['bad-option', ipv4Packet({ protocol: 17, options: hex('07050000') }, counting(8))],
    ['bad-option', ipv4Packet({ protocol: 17, options: hex('01010107') }, counting(8))],
  ])('%s', (reason, p) => {
    expect(refusal(p)).toBe(reason);
  });

  test('what follows the end of options is not looked at', () => {
    decoded(ipv4Packet({ protocol: 17, options: hex('00ffffff') }, udp(counting(0))));
  });
});

describe('IPv6', () => {
  test('no extension headers', () => {
    expect(decoded(ipv6Packet(17, udp(counting(3))))).toMatchObject({
      family: 6,
      protocol: 17,
      protocolAt: 6,
      upperAt: 40,
      srcAt: 8,
      dstAt: 24,
      insertAt: 40,
      insertProtocolAt: 6,
      sport: 1000,
      dport: 2000,
      end: 51,
    });
  });

  test('every extension header: ESP goes behind routing, before what is for the last hop', () => {
    const p = ipv6Packet(0, options(60), options(43), routing(60, 1), options(6), counting(20));
    expect(decoded(p)).toMatchObject({
      protocol: 6,
      protocolAt: 80,
      upperAt: 88,
      hopOptionsAt: 40,
      routingAt: 56,
      segmentsLeft: 1,
      insertAt: 80,
      insertProtocolAt: 56,
    });
  });

  test('destination options without a routing header stay in front, as in Linux', () => {
    const p = ipv6Packet(60, options(17), udp(counting(0)));
    expect(decoded(p)).toMatchObject({ insertAt: 48, insertProtocolAt: 40, upperAt: 48 });
  });

  test('the routing header with segments left is the one that counts', () => {
    const p = ipv6Packet(43, routing(43, 0), routing(17, 1), udp(counting(0)));
    expect(decoded(p)).toMatchObject({ routingAt: 64, segmentsLeft: 1 });
    const q = ipv6Packet(43, routing(43, 1), routing(17, 0), udp(counting(0)));
    expect(decoded(q)).toMatchObject({ routingAt: 40, segmentsLeft: 1 });
  });

  test('a first fragment is walked to its upper header', () => {
    const p = ipv6Packet(44, fragmentHeader(60, 0, 1, 7), options(17), udp(counting(8)));
    expect(decoded(p)).toMatchObject({
      isFragment: true,
      fragmentHeaderAt: 40,
      fragmentOffset: 0,
      moreFragments: true,
      protocol: 17,
      upperAt: 56,
      portsKnown: true,
      insertAt: 40,
    });
  });

  test('a later fragment is not: its data are anything', () => {
    const p = ipv6Packet(44, fragmentHeader(60, 1448, 0, 7), hex('ffffffffffffffff'));
    expect(decoded(p)).toMatchObject({
      isFragment: true,
      fragmentOffset: 1448,
      moreFragments: false,
      protocol: 60,
      protocolAt: 40,
      upperAt: 48,
      portsKnown: false,
    });
  });

  test.each([PROTO.ESP, PROTO.AH, PROTO.IPCOMP, PROTO.NONE, 253])('stops at %i', (protocol) => {
    expect(decoded(ipv6Packet(0, options(protocol), counting(16)))).toMatchObject({
      protocol,
      upperAt: 48,
      portsKnown: true,
    });
  });

  test('mobility header: the type is in the place of the port', () => {
    expect(decoded(ipv6Packet(135, hex('3b00 0500 0000 0000')))).toMatchObject({ sport: 5 });
  });

  const jumbo = ipv6Packet(0, hex('1100 c204 00010000'), counting(8));
  ipv6.setPayloadLen(jumbo, 0, 0);
  const tooLong = ipv6Packet(17, counting(4));
  ipv6.setPayloadLen(tooLong, 0, 5);
  const lengthless = ipv6Packet(17, counting(8));
  ipv6.setPayloadLen(lengthless, 0, 0);

  test.each([
    ['truncated-header', ipv6Packet(17).slice(0, 39)],
    ['bad-total-length', tooLong],
    ['jumbogram', jumbo],
    ['jumbogram', lengthless],
    ['jumbogram', ipv6Packet(0, hex('1100 c204 00010000'), counting(8))],
    ['truncated-header', ipv6Packet(0, hex('11000104000000'))],
    ['truncated-header', ipv6Packet(0, hex('1101010400000000'))],
    ['truncated-header', ipv6Packet(43, hex('1102000100000000'))],
    ['bad-option', ipv6Packet(60, options(0), options(17), counting(8))],
    ['bad-option', ipv6Packet(0, hex('1100 0105 00000000'), counting(8))],
    ['bad-option', ipv6Packet(60, hex('1100 0102 00000001'), counting(8))],
    ['bad-option', ipv6Packet(44, fragmentHeader(44, 0, 1, 1), fragmentHeader(17, 0, 1, 1))],
    ['too-many-headers', ipv6Packet(60, ...Array.from({ length: 17 }, () => options(60)))],
  ])('%s', (reason, p) => {
    expect(refusal(p)).toBe(reason);
  });

  test('as many headers as are allowed', () => {
    const chain = Array.from({ length: 16 }, (_, i) => options(i === 15 ? 17 : 60));
    expect(decoded(ipv6Packet(60, ...chain, counting(8)))).toMatchObject({ upperAt: 40 + 128 });
  });

  test('an empty packet with next header 59 and link padding', () => {
    expect(decoded(concat(ipv6Packet(59), counting(6)))).toMatchObject({ end: 40, upperAt: 40 });
  });
});

describe('what Linux puts on the wire', () => {
  test('all 241 frames decode to their ESP or AH header', () => {
    const frames = linuxFrames();
    expect(frames.length).toBe(241);
    for (const one of frames) {
      const frame = fromHex(one.frame);
      expect(decode(frame, 14, frame.length, cursor)).toBeUndefined();
      expect(cursor.family).toBe(one.outer);
      expect(formatAddress(addressFrom(cursor.family, frame, cursor.srcAt))).toBe(one.src);
      expect(formatAddress(addressFrom(cursor.family, frame, cursor.dstAt))).toBe(one.dst);
      if (cursor.family === 4) expect(ipv4.checksumOk(viewOf(frame), 14)).toBe(true);
      expect(cursor.insertAt).toBe(cursor.upperAt);
      const seq = one.esn ? one.id + 1 : 1;
      if (one.encap) {
        expect(cursor).toMatchObject({ protocol: PROTO.UDP, dport: 4500 });
        expect(esp.spi(frame, cursor.upperAt + 8)).toBe(one.spi);
      } else if (one.proto === 'esp') {
        expect(cursor.protocol).toBe(PROTO.ESP);
        expect(esp.check(frame, cursor.upperAt, cursor.end)).toBeUndefined();
        expect(esp.spi(frame, cursor.upperAt)).toBe(one.spi);
        expect(esp.seq(frame, cursor.upperAt)).toBe(seq);
      } else {
        expect(cursor.protocol).toBe(PROTO.AH);
        expect(ah.check(frame, cursor.upperAt, cursor.end)).toBeUndefined();
        expect(ah.spi(frame, cursor.upperAt)).toBe(one.spi);
        expect(ah.seq(frame, cursor.upperAt)).toBe(seq);
        const inner = cursor.upperAt + ah.len(frame, cursor.upperAt);
        const wanted = one.mode === 'transport' ? PROTO.UDP : one.inner === 4 ? 4 : 41;
        expect(ah.nextHeader(frame, cursor.upperAt)).toBe(wanted);
        if (one.mode === 'tunnel') {
          expect(decode(frame, inner, frame.length, cursor)).toBeUndefined();
          expect(cursor).toMatchObject({ sport: one.sport, dport: one.dport });
        }
      }
    }
  });
});

describe('octets from outside', () => {
  /** Reads outside of `at` to `end` are told by a proxy, since JavaScript itself would not tell. */
  function guarded(p: Uint8Array, at: number, end: number): Uint8Array {
    return new Proxy(p, {
      get(target, key) {
        const i = typeof key === 'string' ? Number(key) : Number.NaN;
        if (Number.isInteger(i) && (i < at || i >= end)) throw new Error(`read at ${i}`);
        return Reflect.get(target, key, target);
      },
    });
  }

  function survives(p: Uint8Array, at: number, end: number): void {
    if (decode(guarded(p, at, end), at, end, cursor) !== undefined) return;
    const { upperAt, insertAt, protocolAt, insertProtocolAt } = cursor;
    expect(cursor.end).toBeLessThanOrEqual(end);
    for (const one of [upperAt, insertAt]) {
      expect(one).toBeGreaterThan(at);
      expect(one).toBeLessThanOrEqual(cursor.end);
    }
    expect(insertAt).toBeLessThanOrEqual(upperAt);
    expect(p[protocolAt]).toBe(cursor.protocol);
    expect(insertProtocolAt).toBeLessThan(insertAt);
    if (cursor.routingAt !== 0) {
      expect(ipv6.finalDestinationAt(p, cursor.routingAt)).toBeLessThanOrEqual(upperAt - 16);
    }
  }

  const samples = [
    ipv4Packet({ protocol: 6, options: hex('44080500000000000100') }, counting(30)),
    ipv4Packet({ protocol: 17, options: hex('0101830704000000') }, counting(9)),
    ipv6Packet(0, options(60), options(43), routing(60, 1), options(6), counting(20)),
    ipv6Packet(0, options(44), fragmentHeader(60, 0, 1, 9), options(17), counting(8)),
    ipv6Packet(43, routing(43, 0), routing(58, 1), counting(8)),
  ];

  test('random octets behind a version', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(0x45, 0x46, 0x4f, 0x60),
        fc.uint8Array({ maxLength: 120 }),
        fc.nat(9),
        (first, rest, at) => {
          const p = concat(counting(at), Uint8Array.of(first), rest, counting(9));
          survives(p, at, at + 1 + rest.length);
        },
      ),
      { numRuns: 3000 },
    );
  });

  /** Lets the packet's own length agree, so that what lies deeper is reached. */
  function setLength(p: Uint8Array, at: number, len: number): void {
    if (p[at]! >>> 4 === 4) ipv4.setTotalLen(p, at, len);
    else ipv6.setPayloadLen(p, at, Math.max(0, len - 40));
  }

  test.each([
    [
      'an option type at the very end',
      ipv4Packet({ protocol: 6, options: hex('01010107') }, hex('')),
    ],
    ['no room for a length', ipv6Packet(60, hex('3b00 01030000 0005'))],
    ['an extension header of one octet', ipv6Packet(60, hex('3b'))],
  ])('%s', (_what, p) => {
    survives(p, 0, p.length);
    expect(refusal(p)).toBeDefined();
  });

  test('real packets with some octets changed and an end cut off', () => {
    const change = fc.record({ at: fc.nat(110), value: fc.integer({ min: 0, max: 255 }) });
    fc.assert(
      fc.property(
        fc.constantFrom(...samples),
        fc.array(change, { maxLength: 4 }),
        fc.oneof(fc.constant(0), fc.nat(110)),
        fc.boolean(),
        (sample, changes, cut, mend) => {
          const p = concat(counting(3), sample, counting(3));
          for (const one of changes) if (one.at < sample.length) p[3 + one.at] = one.value;
          const len = Math.max(0, sample.length - cut);
          if (mend) setLength(p, 3, len);
          survives(p, 3, 3 + len);
        },
      ),
      { numRuns: 5000 },
    );
  });
});
