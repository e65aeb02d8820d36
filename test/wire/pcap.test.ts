import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { KeyError } from '../../src/base/error.ts';
import { fromHex } from '../../src/wire/bytes.ts';
import { readCapture } from '../../src/wire/capture.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import { ipAt, LINKTYPE } from '../../src/wire/linktype.ts';
import { isPcap, pcapHeader, pcapRecord, readPcap } from '../../src/wire/pcap.ts';
import { isPcapng, pcapngHeader, pcapngRecord, readPcapng } from '../../src/wire/pcapng.ts';
import { capture, installed, octetsOf, printed } from './captures.ts';
import { CAPTURED, concat, counting, hex, linuxFrames } from './octets.ts';

const cursor = new Cursor();
/** When tcpdump saw the first four packets of ethernet.pcap, by tshark. */
const TIMES = [1795500497.825861, 1795500497.825879, 1795500497.828039, 1795500497.828048];

const seconds = (wallMs: number): number => Math.round(wallMs * 1000) / 1e6;

describe('files of tcpdump and Wireshark', () => {
  test.each([
    ['ethernet.pcap', 8],
    ['ethernet-ns.pcap', 8],
    ['ethernet.pcapng', 8],
    ['ethernet-ns.pcapng', 8],
    ['secrets.pcapng', 8],
    ['sll.pcap', 4],
    ['sll2.pcap', 4],
    ['merged.pcapng', 16],
  ])('%s', (name, count) => {
    const packets = [...readCapture(capture(name))];
    expect(packets.length).toBe(count);
    expect(packets.map((one) => one.number)).toEqual(packets.map((_, i) => i + 1));
    for (const one of packets) {
      expect(decode(one.bytes, one.at, one.end, cursor)).toBeUndefined();
      expect([cursor.end, one.missing]).toEqual([one.end, 0]);
    }
    if (!name.startsWith('sll')) {
      expect(packets.slice(0, 4).map((one) => seconds(one.wallMs))).toEqual(TIMES);
      expect(octetsOf(packets[0]!)).toEqual(CAPTURED.echo6);
      expect(octetsOf(packets[2]!)).toEqual(CAPTURED.echo4);
      expect(octetsOf(packets[4]!)).toEqual(CAPTURED.syn4);
    }
  });

  test('packets that are cut say how much is missing', () => {
    const packets = [...readCapture(capture('cut.pcapng'))];
    expect(packets.map((one) => one.missing)).toEqual([13, 13, 0, 0, 14, 0, 34, 14]);
    const first = packets[0]!;
    expect(octetsOf(first)).toEqual(CAPTURED.echo6.slice(0, 46));
    expect(decode(first.bytes, first.at, first.end, cursor)).toBe('bad-total-length');
  });

  test('a file that is a part of a larger piece of memory', () => {
    for (const name of ['ethernet.pcap', 'ethernet.pcapng']) {
      const file = concat(counting(5), capture(name)).subarray(5);
      expect([...readCapture(file)].length).toBe(8);
    }
  });
});

/**
 * Swaps the byte order of the fields of a pcap file, as a host of the other kind would have written
 * it.
 */
function swapped(file: Uint8Array): Uint8Array {
  const out = file.slice();
  const swap = (at: number, len: number): void => {
    out.subarray(at, at + len).reverse();
  };
  for (const [at, len] of [
    [0, 4],
    [4, 2],
    [6, 2],
    [8, 4],
    [12, 4],
    [16, 4],
    [20, 4],
  ] as const)
    swap(at, len);
  for (let at = 24; at < file.length; ) {
    const len = new DataView(file.buffer).getUint32(at + 8, true);
    for (let i = 0; i < 16; i += 4) swap(at + i, 4);
    at += 16 + len;
  }
  return out;
}

describe('pcap', () => {
  test('the other byte order, micro- and nanoseconds', () => {
    for (const name of ['ethernet.pcap', 'ethernet-ns.pcap']) {
      const file = capture(name);
      const packets = [...readPcap(swapped(file))];
      expect(packets.map(octetsOf)).toEqual([...readPcap(file)].map(octetsOf));
      expect(packets.slice(0, 4).map((one) => seconds(one.wallMs))).toEqual(TIMES);
    }
  });

  test('what is written is read', () => {
    const file = concat(
      pcapHeader(),
      pcapRecord(concat(counting(3), CAPTURED.echo4), 3, 42, 1795500497828.039),
      pcapRecord(CAPTURED.echo6, 0, 59, 0.999),
    );
    const packets = [...readPcap(file)];
    expect(packets.map(octetsOf)).toEqual([CAPTURED.echo4, CAPTURED.echo6]);
    expect(packets.map((one) => seconds(one.wallMs))).toEqual([1795500497.828039, 0.000999]);
    expect(isPcap(file)).toBe(true);
    expect(isPcapng(file)).toBe(false);
  });

  const whole = concat(pcapHeader(), pcapRecord(CAPTURED.echo4, 0, 39, 0));
  test.each([
    ['pcap file: no pcap header at its start', whole.slice(0, 23)],
    ['pcap file: no pcap header at its start', counting(40)],
    [
      "pcap file: record 2 at octet 79: the file ends within the record's header",
      concat(whole, counting(15)),
    ],
    ['pcap file: record 1 at octet 24: says 39 octets, but 38 are left', whole.slice(0, 78)],
    ['pcap file: version 3 is unknown, only 2 is', concat(hex('d4c3b2a1 0300'), whole.slice(6))],
    [
      'link type 105 is none of Ethernet, raw IP, Linux cooked and BSD loopback',
      concat(pcapHeader(105), pcapRecord(CAPTURED.echo4, 0, 39, 0)),
    ],
  ])('%s', (message, file) => {
    expect(() => [...readPcap(file)]).toThrow(message);
    expect(() => [...readPcap(file)]).toThrow(KeyError);
  });

  test('a file without packets', () => {
    expect([...readPcap(pcapHeader())]).toEqual([]);
  });
});

describe('pcapng', () => {
  test('what is written is read, comments and all', () => {
    const file = concat(
      pcapngHeader(),
      pcapngRecord(CAPTURED.echo4, 0, 39, 1795500497828.039, 'no SA for this SPI'),
      pcapngRecord(CAPTURED.echo6, 0, 59, 1795500497828.04),
    );
    const packets = [...readPcapng(file)];
    expect(packets.map(octetsOf)).toEqual([CAPTURED.echo4, CAPTURED.echo6]);
    expect(packets.map((one) => seconds(one.wallMs))).toEqual([
      1795500497.828039, 1795500497.82804,
    ]);
    expect(isPcapng(file)).toBe(true);
  });

  const section = (magic: string): Uint8Array =>
    hex(`0a0d0d0a 0000001c ${magic} 00010000 ffffffff ffffffff 0000001c`);
  const bigSection = section('1a2b3c4d');
  /** Raw IP, snapshot length 30, 2^-10 s, 100 s later. */
  const bigInterface = hex(
    `00000001 0000002c 0065 0000 0000001e
      0009 0001 8a000000 000e 0008 0000000000000064 0000 0000 0000002c`,
  );

  test('big endian, ticks of a power of 2, an offset in time', () => {
    const packet = concat(
      hex('00000006 00000048 00000000 00000000 00000c00 00000027 00000027'),
      CAPTURED.echo4,
      hex('00 00000048'),
    );
    const [one] = [...readPcapng(concat(bigSection, bigInterface, packet))];
    expect(octetsOf(one!)).toEqual(CAPTURED.echo4);
    expect(one!.wallMs).toBe(103_000);
  });

  test('a simple block has the length that the interface cuts at, and no time', () => {
    const packet = concat(
      hex('00000003 00000030 00000027'),
      CAPTURED.echo4.slice(0, 30),
      hex('0000 00000030'),
    );
    const [one] = [...readPcapng(concat(bigSection, bigInterface, packet))];
    expect(octetsOf(one!)).toEqual(CAPTURED.echo4.slice(0, 30));
    expect([one!.wallMs, one!.missing]).toEqual([0, 9]);
  });

  test('an obsolete packet block, behind a block that nobody knows', () => {
    const unknown = hex('80001234 00000010 01020304 00000010');
    const packet = concat(
      hex('00000002 00000048 0000 0007 00000000 00000400 00000027 00000027'),
      CAPTURED.echo4,
      hex('00 00000048'),
    );
    const [one] = [...readPcapng(concat(bigSection, bigInterface, unknown, packet))];
    expect(octetsOf(one!)).toEqual(CAPTURED.echo4);
  });

  test('sections of both byte orders in one file, with interfaces of their own', () => {
    const little = concat(pcapngHeader(), pcapngRecord(CAPTURED.echo4, 0, 39, 5));
    const simple = concat(
      hex('00000003 00000030 00000027'),
      CAPTURED.echo4.slice(0, 30),
      hex('0000 00000030'),
    );
    const big = concat(bigSection, bigInterface, simple);
    const numbers = [...readPcapng(concat(big, little, big))].map((one) => one.number);
    expect(numbers).toEqual([1, 2, 3]);
    expect(() => [...readPcapng(concat(little, bigSection, simple))]).toThrow(
      'block 5 at octet 148: interface 0 is not described before',
    );
  });

  const record = pcapngRecord(CAPTURED.echo4, 0, 39, 5);
  const changed = (at: number, value: number): Uint8Array => {
    const file = concat(pcapngHeader(), record);
    file[at] = value;
    return file;
  };
  test.each([
    ['pcapng file: no section header at its start', counting(40)],
    ['block 1 at octet 0: the byte order magic of the section is wrong', section('1a2b3c4e')],
    ['block 1 at octet 0: version 2 is unknown, only 1 is', changed(12, 2)],
    ['block 2 at octet 28: its two lengths differ', changed(44, 24)],
    ['block 3 at octet 48: 5 is no possible block length', changed(52, 5)],
    ['block 3 at octet 48: 8 is no possible block length', changed(52, 8)],
    ['block 3 at octet 48: says 196 octets, but 72 are left', changed(52, 196)],
    ['block 3 at octet 48: says 41 octets, but has fewer', changed(68, 41)],
    ['block 3 at octet 48: interface 3 is not described before', changed(56, 3)],
    [
      'block 3 at octet 48: the file ends within a block header',
      concat(pcapngHeader(), record.slice(0, 11)),
    ],
    [
      'block 2 at octet 28: option 9 is longer than its block',
      concat(bigSection, hex('00000001 00000018 0065 0000 00000000 0009 0004 00000018')),
    ],
    [
      'block 2 at octet 28: too short',
      concat(bigSection, hex('00000001 00000010 00650000 00000010')),
    ],
    ['block 1 at octet 0: too short', hex('0a0d0d0a 00000010 1a2b3c4d 00000010')],
  ])('%s', (message, file) => {
    expect(() => [...readPcapng(file)]).toThrow(message);
    expect(() => [...readPcapng(file)]).toThrow(KeyError);
  });
});

test('neither kind of file', () => {
  expect(() => [...readCapture(hex(''))]).toThrow('neither pcap nor pcapng');
  expect(() => [...readCapture(counting(100))]).toThrow('neither pcap nor pcapng');
});

describe('link types', () => {
  const ip = CAPTURED.echo4;
  const mac = counting(12);
  test.each([
    ['Ethernet', LINKTYPE.ETHERNET, concat(mac, hex('0800'), ip), 14],
    ['Ethernet, IPv6', LINKTYPE.ETHERNET, concat(mac, hex('86dd'), CAPTURED.echo6), 14],
    ['one VLAN tag', LINKTYPE.ETHERNET, concat(mac, hex('8100 0005 0800'), ip), 18],
    ['two VLAN tags', LINKTYPE.ETHERNET, concat(mac, hex('88a8 0005 8100 0005 0800'), ip), 22],
    ['ARP', LINKTYPE.ETHERNET, concat(mac, hex('0806'), ip), -1],
    ['too short', LINKTYPE.ETHERNET, concat(mac, hex('08')), -1],
    ['nothing behind the tag', LINKTYPE.ETHERNET, concat(mac, hex('8100 0005')), -1],
    ['nothing behind the type', LINKTYPE.ETHERNET, concat(mac, hex('0800')), -1],
    ['raw', LINKTYPE.RAW, ip, 0],
    ['raw of old', 12, ip, 0],
    ['raw, neither version', LINKTYPE.RAW, hex('00'), -1],
    ['IPv4', LINKTYPE.IPV4, ip, 0],
    ['IPv6', LINKTYPE.IPV6, CAPTURED.echo6, 0],
    ['loopback, little endian', LINKTYPE.NULL, concat(hex('02000000'), ip), 4],
    ['loopback, big endian', LINKTYPE.NULL, concat(hex('0000001e'), CAPTURED.echo6), 4],
    ['loopback of OpenBSD', LINKTYPE.LOOP, concat(hex('00000018'), CAPTURED.echo6), 4],
    ['loopback, another family', LINKTYPE.NULL, concat(hex('07000000'), ip), -1],
  ])('%s', (_what, linktype, frame, at) => {
    expect(ipAt(linktype, concat(counting(2), frame), 2, 2 + frame.length)).toBe(
      at < 0 ? -1 : at + 2,
    );
  });
});

test('files with octets changed are read or refused with EINVAL, and never leave the file', () => {
  const names = ['ethernet.pcap', 'sll2.pcap', 'merged.pcapng', 'ethernet-ns.pcapng'] as const;
  const change = fc.record({ at: fc.nat(1000), value: fc.integer({ min: 0, max: 255 }) });
  fc.assert(
    fc.property(
      fc.constantFrom(...names),
      fc.array(change, { maxLength: 3 }),
      fc.nat(300),
      (name, changes, cut) => {
        const file = capture(name);
        for (const { at, value } of changes) if (at < file.length) file[at] = value;
        const part = file.subarray(0, file.length - (cut > 200 ? cut : 0));
        try {
          for (const one of readCapture(part)) {
            expect(one.end).toBeLessThanOrEqual(part.length);
            expect(one.at).toBeLessThan(one.end);
            expect(Number.isFinite(one.wallMs)).toBe(true);
          }
        } catch (error) {
          if (!(error instanceof KeyError)) throw error;
        }
      },
    ),
    { numRuns: 300 },
  );
});

describe('what other programs read in our files', () => {
  const frames = linuxFrames()
    .slice(0, 40)
    .map((one) => fromHex(one.frame).slice(14));
  const times = frames.map((_, i) => 1795500497123.456 + i);
  const pcap = concat(pcapHeader(), ...frames.map((p, i) => pcapRecord(p, 0, p.length, times[i]!)));
  const pcapng = concat(
    pcapngHeader(),
    ...frames.map((p, i) => pcapngRecord(p, 0, p.length, times[i]!, `frame ${i}`)),
  );
  const tshark = installed('tshark');
  const fields = [
    'frame.time_epoch',
    'frame.len',
    'ip.src',
    'esp.spi',
    '_ws.malformed',
    'frame.comment',
  ];
  const wanted = linuxFrames()
    .slice(0, 40)
    .map((one, i) => {
      const time = (1795500497.123456 + i / 1000).toFixed(6);
      const spi = `0x${one.spi.toString(16).padStart(8, '0')}`;
      return [time, `${frames[i]!.length}`, one.src, one.proto === 'esp' ? spi : '', ''];
    });

  test.skipIf(!tshark).each([
    ['pcap', pcap, ''],
    ['pcapng', pcapng, 'frame '],
  ])('tshark: %s', (_name, file, comment) => {
    const args = ['-n', '-r', 'FILE', '-T', 'fields', ...fields.flatMap((field) => ['-e', field])];
    const lines = printed('tshark', args, file).split('\n').slice(0, -1);
    const rows = lines.map((line) => line.split('\t'));
    const shown = rows.map(([time, ...rest]) => [Number(time).toFixed(6), ...rest]);
    expect(shown).toEqual(wanted.map((row, i) => [...row, comment === '' ? '' : `${comment}${i}`]));
  });

  test.skipIf(!installed('tcpdump'))('tcpdump: pcap', () => {
    const lines = printed('tcpdump', ['-nn', '-tt', '-r', 'FILE'], pcap).trimEnd().split('\n');
    expect(lines.length).toBe(40);
    expect(lines[3]).toMatch(
      /^1795500497\.126456 IP 10\.1\.0\.4 > 10\.2\.0\.4: ESP\(spi=0x00010004,seq=0x1\)/,
    );
  });
});
