import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fromHex, setU16, u16, viewOf } from '../../src/wire/bytes.ts';
import * as checksum from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import {
  CAPTURED,
  concat,
  counting,
  hex,
  ipv4Packet,
  ipv6Packet,
  linuxFrames,
  scapyPackets,
} from './octets.ts';

const cursor = new Cursor();

function load(p: Uint8Array, at = 0): void {
  expect(decode(p, at, p.length, cursor)).toBeUndefined();
}

/** RFC 1071 §4.1 as it stands there, one word at a time. */
function plain(p: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < p.length; i += 2) {
    sum += p[i]! * 256 + (p[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return 0xffff - sum;
}

describe('the sum', () => {
  test('the example of RFC 1071 §3', () => {
    const p = hex('0001 f203 f4f5 f6f7');
    expect(checksum.finish(checksum.add(p, 0, 8, 0))).toBe(~0xddf2 & 0xffff);
  });

  test('agrees with one word at a time, for any length and place', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(5), (octets, before) => {
        const p = concat(counting(before), octets, hex('ffffff'));
        const value = checksum.finish(checksum.add(p, before, before + octets.length, 0));
        // 0 and 0xffff are the same number in one's complement; only all zeros sum to 0.
        expect(value).toBe(plain(octets));
      }),
    );
  });

  test('does not overflow on 64 kB of ones, several times', () => {
    const p = new Uint8Array(65_536).fill(255);
    let sum = 0;
    for (let i = 0; i < 40; i++) sum = checksum.add(p, 0, p.length, sum);
    expect(checksum.finish(sum)).toBe(0);
    expect(checksum.finish(sum + 0x1234)).toBe(~0x1234 & 0xffff);
  });
});

describe('what others computed', () => {
  test('IPv4 headers of Linux', () => {
    for (const one of linuxFrames()) {
      if (one.outer !== 4) continue;
      const frame = fromHex(one.frame);
      expect(ipv4.checksumOk(viewOf(frame), 14)).toBe(true);
      const before = ipv4.headerChecksum(frame, 14);
      ipv4.updateChecksum(frame, 14);
      expect(ipv4.headerChecksum(frame, 14)).toBe(before);
      frame[22]! ^= 1;
      expect(ipv4.checksumOk(viewOf(frame), 14)).toBe(false);
    }
  });

  test('UDP over IPv4 and IPv6, of scapy', () => {
    const families = new Set<number>();
    for (const p of scapyPackets()) {
      load(p);
      families.add(cursor.family);
      expect(checksum.transportChecksumOk(p, cursor)).toBe(true);
      const before = u16(p, cursor.upperAt + 6);
      setU16(p, cursor.upperAt + 6, 0x5555);
      expect(checksum.transportChecksumOk(p, cursor)).toBe(false);
      checksum.updateTransportChecksum(p, cursor);
      expect(u16(p, cursor.upperAt + 6)).toBe(before);
    }
    expect(families).toEqual(new Set([4, 6]));
  });

  test('UDP that carries ESP, of Linux: none over IPv4, right over IPv6', () => {
    let seen = 0;
    for (const one of linuxFrames().filter((frame) => frame.encap)) {
      const frame = fromHex(one.frame);
      load(frame, 14);
      seen++;
      const sent = u16(frame, cursor.upperAt + 6);
      if (cursor.family === 4) expect(sent).toBe(0);
      else expect(sent).toBe(checksum.transportChecksum(frame, cursor));
      expect(checksum.transportChecksumOk(frame, cursor)).toBe(true);
    }
    expect(seen).toBe(20);
  });

  test.each(['echo6', 'echo4', 'echoReply4', 'reset4'] as const)('%s of Linux', (name) => {
    const p = CAPTURED[name].slice();
    load(p);
    expect(checksum.transportChecksumOk(p, cursor)).toBe(true);
    const before = p.slice();
    checksum.updateTransportChecksum(p, cursor);
    expect(p).toEqual(before);
    p[p.length - 1]! ^= 4;
    expect(checksum.transportChecksumOk(p, cursor)).toBe(false);
  });

  test('a TCP checksum that was left to the network card', () => {
    load(CAPTURED.syn4);
    expect(checksum.transportChecksumOk(CAPTURED.syn4, cursor)).toBe(false);
  });
});

describe('the transport checksum', () => {
  test('UDP that sums to 0 is sent as 0xffff (RFC 768)', () => {
    const p = ipv4Packet({ protocol: 17 }, hex('03e8 07d0 000a 0000 0000'));
    load(p);
    const sum = checksum.transportChecksum(p, cursor);
    setU16(p, 28, sum);
    load(p);
    expect(checksum.transportChecksum(p, cursor)).toBe(0xffff);
    checksum.updateTransportChecksum(p, cursor);
    expect(checksum.transportChecksumOk(p, cursor)).toBe(true);
  });

  test('UDP without a checksum is right over IPv4 and wrong over IPv6', () => {
    const datagram = hex('03e8 07d0 000a 0000 0102');
    load(ipv4Packet({ protocol: 17 }, datagram));
    expect(checksum.transportChecksumOk(ipv4Packet({ protocol: 17 }, datagram), cursor)).toBe(true);
    load(ipv6Packet(17, datagram));
    expect(checksum.transportChecksumOk(ipv6Packet(17, datagram), cursor)).toBe(false);
  });

  test('fragments, and what is too short, have none', () => {
    const fragment = ipv4Packet({ protocol: 6, flags: ipv4.FLAG_MF }, counting(24));
    load(fragment);
    expect(checksum.transportChecksum(fragment, cursor)).toBe(-1);
    const short = ipv4Packet({ protocol: 6 }, counting(17));
    load(short);
    expect(checksum.transportChecksum(short, cursor)).toBe(-1);
    const before = short.slice();
    checksum.updateTransportChecksum(short, cursor);
    expect(short).toEqual(before);
    const other = ipv4Packet({ protocol: 132 }, counting(17));
    load(other);
    expect(checksum.transportChecksum(other, cursor)).toBe(-1);
  });

  test('with segments left, the final destination is in the sum (RFC 8200 §8.1)', () => {
    const datagram = hex('03e8 07d0 0008 0000');
    const routed = ipv6Packet(
      43,
      hex('1102 0001 00000000 20010db8000000000000000000000009'),
      datagram,
    );
    const arrived = ipv6Packet(17, datagram);
    arrived.set(hex('20010db8000000000000000000000009'), ipv6.DST_AT);
    load(arrived);
    const wanted = checksum.transportChecksum(arrived, cursor);
    load(routed);
    expect(checksum.transportChecksum(routed, cursor)).toBe(wanted);
  });
});

describe('a change', () => {
  test('of addresses is the same for all checksums between them (RFC 1624)', () => {
    const port = fc.integer({ min: 0, max: 0xffff });
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 4, maxLength: 40 }),
        port,
        fc.boolean(),
        (data, id, isUdp) => {
          const upper = concat(new Uint8Array(isUdp ? 8 : 20), data);
          if (isUdp) setU16(upper, 4, upper.length);
          const packet = ipv4Packet({ protocol: isUdp ? 17 : 6, id }, upper);
          load(packet);
          checksum.updateTransportChecksum(packet, cursor);
          const field = 20 + checksum.fieldAt(cursor.protocol);
          const before = u16(packet, field);
          packet.set([192, 0, 2, id & 255], ipv4.SRC_AT);
          const right = checksum.transportChecksum(packet, cursor);
          const by = checksum.difference(before, right);
          checksum.change(packet, 20, cursor.protocol, by);
          expect(u16(packet, field)).toBe(right);
        },
      ),
    );
  });

  test('of UDP never makes the checksum that says that there is none, nor adds one', () => {
    const packet = ipv4Packet({ protocol: 17 }, concat(hex('0000000000080001'), hex('00000000')));
    checksum.change(packet, 20, 17, 0xfffe);
    expect(u16(packet, 26)).toBe(0xffff);
    setU16(packet, 26, 0);
    checksum.change(packet, 20, 17, 5);
    expect(u16(packet, 26)).toBe(0);
  });
});
