import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fromHex } from '../../src/wire/bytes.ts';
import { dissect, hexDump } from '../../src/wire/dissect.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import {
  CAPTURED,
  concat,
  counting,
  fragmentHeader,
  hex,
  ipv4Packet,
  ipv6Packet,
  linuxFrames,
  scapyPackets,
  udp,
} from './octets.ts';

const frame = (id: number): Uint8Array => {
  const found = linuxFrames().find((one) => one.id === id);
  if (found === undefined) throw new Error(`no frame ${id}`);
  return fromHex(found.frame).slice(14);
};
const first = (wanted: (one: ReturnType<typeof linuxFrames>[number]) => boolean): Uint8Array =>
  frame(linuxFrames().find(wanted)!.id);

const tooBig6 = ipv6Packet(58, hex('0200 0000 00000500'), counting(4));
const esp = hex('00001001 00000007');

describe('one line', () => {
  test.each([
    ['IP 127.0.0.1 > 127.0.0.1: ICMP echo request, id 6414, seq 1, length 19', CAPTURED.echo4],
    ['IP 127.0.0.1 > 127.0.0.1: ICMP echo reply, id 6414, seq 1, length 19', CAPTURED.echoReply4],
    ['IP6 ::1 > ::1: ICMP6 echo request, id 6412, seq 1, length 19', CAPTURED.echo6],
    [
      'IP 127.0.0.1.59158 > 127.0.0.1.9: Flags [S], seq 943707142, win 65495, length 0',
      CAPTURED.syn4,
    ],
    [
      'IP 127.0.0.1.9 > 127.0.0.1.59158: Flags [R.], seq 0, ack 943707143, win 0, length 0',
      CAPTURED.reset4,
    ],
    [
      'IP 10.0.0.1 > 10.0.0.2: ESP spi 0x00001001 seq 7, length 12',
      ipv4Packet({ protocol: 50 }, concat(esp, counting(4))),
    ],
    [
      'IP 10.0.0.1.1000 > 10.0.0.2.2000: UDP, length 5',
      ipv4Packet({ protocol: 17 }, udp(counting(5))),
    ],
    ['IP6 2001:db8::1 > 2001:db8::2: ICMP6 packet too big, mtu 1280, length 12', tooBig6],
    [
      'IP 10.0.0.1 > 10.0.0.2: ICMP unreachable - need to fragment, mtu 1400, length 8',
      ipv4Packet({ protocol: 1 }, hex('0304 0000 0000 0578')),
    ],
    [
      'IP 10.0.0.1 > 10.0.0.2: ICMP unreachable, code 3, length 8',
      ipv4Packet({ protocol: 1 }, hex('0303 0000 0000 0000')),
    ],
    [
      'IP 10.0.0.1.1000 > 10.0.0.2.2000: UDP, length 72 (fragment of 0x00001234 at 0, more follow)',
      ipv4Packet({ protocol: 17, flags: ipv4.FLAG_MF }, udp(counting(72)).slice(0, 40)),
    ],
    [
      'IP6 2001:db8::1 > 2001:db8::2: UDP, length 9 (fragment of 0x0000000a at 1448)',
      ipv6Packet(44, fragmentHeader(17, 1448, 0, 10), counting(9)),
    ],
    [
      'IP 10.0.0.1 > 10.0.0.2: IP6 ::1 > ::1: ICMP6 echo request, id 6412, seq 1, length 19',
      ipv4Packet({ protocol: 41 }, CAPTURED.echo6),
    ],
    [
      'IP 10.0.0.1 > 10.0.0.2: AH spi 0x00000010 seq 3: 1000 > 2000 UDP, length 1',
      ipv4Packet(
        { protocol: 51 },
        concat(hex('11040000 00000010 00000003 000000000000000000000000'), udp(counting(1))),
      ),
    ],
    ['IP 10.0.0.1 > 10.0.0.2: protocol 253, length 3', ipv4Packet({ protocol: 253 }, counting(3))],
    ['IP 10.0.0.1 > 10.0.0.2: TCP, cut off, length 3', ipv4Packet({ protocol: 6 }, counting(3))],
    [
      'IP 10.0.0.1.1000 > 10.0.0.2.2000: UDP, bad length 3',
      ipv4Packet({ protocol: 17 }, hex('03e8 07d0 0003 0000')),
    ],
    ['IP, unreadable: IP version is neither 4 nor 6, length 2', hex('5500')],
    ['IP, unreadable: shorter than its headers say, length 0', hex('')],
  ])('%s', (line, p) => {
    expect(dissect(p)).toBe(line);
  });

  test('ESP in UDP, IKE and keep-alives, when told the port', () => {
    const between = (data: Uint8Array): string => {
      const datagram = udp(data);
      datagram.set(hex('1194 1194'));
      return dissect(ipv4Packet({ protocol: 17 }, datagram), 0, undefined, {
        natPort: 4500,
      }).replace(/^.*: UDP-/, 'UDP-');
    };
    expect(between(concat(esp, counting(4)))).toBe(
      'UDP-encap: ESP spi 0x00001001 seq 7, length 12',
    );
    expect(between(hex('00000000 0102'))).toBe('UDP-encap: IKE, length 2');
    expect(between(hex('ff'))).toBe('UDP-encap: NAT keep-alive');
    expect(between(hex('fe'))).toBe('UDP-encap: ESP, cut off, length 1');
    const p = ipv4Packet({ protocol: 17 }, udp(concat(esp, counting(4))));
    expect(dissect(p, 0, undefined, { natPort: 4500 })).toBe(
      'IP 10.0.0.1.1000 > 10.0.0.2.2000: UDP, length 12',
    );
  });

  test('packets of Linux', () => {
    expect(dissect(frame(0))).toBe('IP 10.1.0.0 > 10.2.0.0: ESP spi 0x00010000 seq 1, length 44');
    expect(dissect(first((one) => one.proto === 'ah' && one.mode === 'tunnel'))).toMatch(
      /^IP 10\.\S+ > 10\.\S+: AH spi 0x\S+ seq 1: IP \S+\.6000 > \S+\.5000: UDP, length \d+$/,
    );
    for (const one of linuxFrames()) {
      const p = fromHex(one.frame);
      const line = dissect(p, 14, p.length, { natPort: 4500 });
      const spi = `0x${one.spi.toString(16).padStart(8, '0')}`;
      expect(line).toContain(
        `${one.proto === 'esp' ? 'ESP' : 'AH'} spi ${spi} seq ${one.esn ? one.id + 1 : 1}`,
      );
      expect(line.startsWith(`${one.outer === 4 ? 'IP' : 'IP6'} ${one.src}`)).toBe(true);
    }
  });
});

test('packets within packets end somewhere', () => {
  let p = CAPTURED.echo4;
  for (let i = 0; i < 20; i++) p = ipv4Packet({ protocol: 4 }, p);
  expect(dissect(p).split('IP ').length).toBeLessThan(12);
});

test('never throws, whatever it reads', () => {
  const samples = [...scapyPackets().slice(0, 4), CAPTURED.syn4, CAPTURED.echo6, tooBig6, frame(0)];
  const change = fc.record({ at: fc.nat(80), value: fc.integer({ min: 0, max: 255 }) });
  fc.assert(
    fc.property(
      fc.constantFrom(...samples),
      fc.array(change, { maxLength: 4 }),
      fc.nat(60),
      (sample, changes, cut) => {
        const p = sample.slice();
        for (const { at, value } of changes) if (at < p.length) p[at] = value;
        if (cut > 40 && p.length > 60) {
          const len = p.length - cut;
          if (p[0] === 0x45) ipv4.setTotalLen(p, 0, len);
          else if (p[0] === 0x60 && len >= 40) ipv6.setPayloadLen(p, 0, len - 40);
        }
        const line = dissect(p, 0, p.length, { natPort: 4500 });
        expect(line).not.toMatch(/undefined|NaN|\n/);
      },
    ),
    { numRuns: 1000 },
  );
});

test('hexadecimal dump', () => {
  expect(hexDump(concat(counting(3), CAPTURED.echo4), 3)).toBe(
    [
      "0x0000:  4500 0027 1272 4000 4001 2a62 7f00 0001  E..'.r@.@.*b....",
      '0x0010:  7f00 0001 0800 c0d7 190e 0001 0001 0203  ................',
      '0x0020:  0405 0607 0809 0a                        .......',
    ].join('\n'),
  );
  expect(hexDump(hex(''))).toBe('');
});
