import { createSocket } from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { address } from '../../../src/base/address.ts';
import { Backlog } from '../../../src/drivers/linux/backlog.ts';
import { slotsAt } from '../../../src/drivers/linux/batch.ts';
import {
  AF_INET,
  type Libc,
  libc,
  SOCK_DGRAM,
  SOCK_FLAGS,
} from '../../../src/drivers/linux/libc.ts';
import { withBlock } from '../../../src/drivers/linux/native-memory.ts';
import { packetMemory, type Region } from '../../../src/drivers/linux/packet-memory.ts';
import { openUdpEncap } from '../../../src/drivers/linux/udp.ts';
import { UdpSender } from '../../../src/drivers/linux/udp-sender.ts';
import { prependUdp } from '../../../src/drivers/udp-packet.ts';
import * as checksum from '../../../src/wire/checksum.ts';
import * as ipv4 from '../../../src/wire/ipv4.ts';
import { PACKET_LEN_SMALL, type Packet, slotLen } from '../../../src/wire/packet.ts';
import { counting } from '../../wire/octets.ts';
import { cursorOf } from './segment-twin.ts';

const isLinux = process.platform === 'linux';
const EIO = 5;
const EAGAIN = 11;
const PORT = 47_501;
const LOOPBACK = { 4: address('127.0.0.1'), 6: address('::1') } as const;
const ONE_WIRE = { deviceOf: () => 1, forget: () => undefined };
const META = { trafficClass: 0x28, hopLimit: 9 };

interface Wanted {
  readonly len: number;
  readonly family?: 4 | 6;
  readonly from?: number;
  readonly to?: number;
  readonly hopLimit?: number;
}

/** Datagrams in slots of the packet memory, each with octets of its own. */
class Rows {
  readonly packets: Packet[];
  readonly #region: Region;

  constructor(wanted: readonly Wanted[]) {
    const memory = packetMemory(libc('a test'));
    this.#region = memory.take(wanted.length * slotLen(PACKET_LEN_SMALL));
    this.packets = slotsAt(memory, this.#region.at, wanted.length, PACKET_LEN_SMALL);
    for (const [i, { len, family = 4, from = PORT, to = PORT, hopLimit }] of wanted.entries()) {
      const packet = this.packets[i]!;
      packet.load(counting(len + i).subarray(i));
      const meta = { ...META, ...(hopLimit === undefined ? {} : { hopLimit }) };
      const end = (port: number) => ({ address: LOOPBACK[family], port });
      prependUdp(packet, end(from), end(to), meta);
    }
  }

  release(): void {
    packetMemory(libc('a test')).give(this.#region);
  }
}

function many(count: number, wanted: Wanted): Wanted[] {
  return Array.from({ length: count }, () => wanted);
}

describe.skipIf(!isLinux)('rows of datagrams, sent', () => {
  let from: number;
  let to: number;
  let calls: number[];
  let failures: number[];
  let singles: Packet[];
  let sender: UdpSender;
  let backlog: Backlog;

  beforeEach(() => {
    const c = libc('a test');
    from = bound(c, PORT);
    to = bound(c, PORT + 1);
    calls = [];
    failures = [];
    singles = [];
    const kernel: Libc = {
      ...c,
      errno: () => failures.shift() ?? c.errno(),
      sendmmsg: (fd, messages, count, flags) => {
        calls.push(count);
        return failures.length > 0 ? -1 : c.sendmmsg(fd, messages, count, flags);
      },
    };
    backlog = new Backlog(c, ONE_WIRE);
    sender = new UdpSender(kernel, packetMemory(c), PORT, backlog);
    sender.add(4, from);
    backlog.sendBy((packets, count) => sender.send(packets, count, byRaw), byRaw);
  });

  afterEach(() => {
    const c = libc('a test');
    backlog.close();
    c.close(from);
    c.close(to);
    sender.release();
  });

  function byRaw(packets: readonly Packet[], count: number): void {
    singles.push(...packets.slice(0, count));
  }

  /** Sends, and says what came by the socket; what did not is in `singles`. */
  function send(wanted: readonly Wanted[]): string[] {
    const rows = new Rows(wanted);
    sender.send(rows.packets, wanted.length, byRaw);
    return received(rows);
  }

  function received(rows: Rows): string[] {
    const octets = drain(libc('a test'), to);
    const known = rows.packets.map((packet) =>
      hex(packet.bytes.subarray(packet.at + 28, packet.end)),
    );
    rows.release();
    return octets.map((one) => String(known.indexOf(one)));
  }

  const row = { len: 500, to: PORT + 1 };
  const order = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => String(from + i));

  test('go as one message, the last one shorter, and arrive in order', () => {
    expect(send([...many(9, row), { ...row, len: 77 }])).toEqual(order(0, 10));
    expect(calls).toEqual([1]);
    expect(singles.length).toBe(0);
  });

  test('several rows go in one call', () => {
    const wanted = [...many(4, row), ...many(5, { ...row, len: 300 }), ...many(3, row)];
    expect(send(wanted)).toEqual(order(0, 12));
    expect(calls).toEqual([3]);
  });

  test('are no longer than the kernel takes', () => {
    expect(send(many(64, { ...row, len: 1472 }))).toEqual(order(0, 64));
    expect(calls).toEqual([2]);
    expect(send(many(64, { ...row, len: 10 }))).toEqual(order(0, 64));
    expect(calls).toEqual([2, 1]);
  });

  test('what is no row goes by raw sockets, as it is and in its place', () => {
    const order: string[] = [];
    const rows = new Rows([
      { ...row, from: PORT + 7 },
      { ...row, to: PORT + 2 },
      ...many(2, row),
      { ...row, from: PORT + 7 },
    ]);
    sender.send(rows.packets, 5, (_, count) => {
      order.push(`raw ${count} after ${calls.length}`);
    });
    expect(order).toEqual(['raw 2 after 0', 'raw 1 after 1']);
    rows.release();
  });

  test.each([
    ['another port', { to: PORT + 2 }],
    ['another source port', { from: PORT + 7 }],
    ['another TTL', { hopLimit: 8 }],
    ['a longer one', { len: 501 }],
    ['another family', { family: 6 as const }],
  ])('%s is not of the row', (_, other) => {
    send([...many(3, row), { ...row, ...other }]);
    expect(singles.length).toBe(1);
  });

  test.each<[string, (p: Uint8Array, at: number) => void]>([
    ['a fragment', (p, at) => ipv4.setFragment(p, at, ipv4.FLAG_MF, 0)],
    ['options', (p, at) => ipv4.setHeaderLen(p, at, 24)],
    ['a length that lies', (p, at) => ipv4.setTotalLen(p, at, 100)],
    ['a UDP length that lies', (p, at) => p.fill(0, at + 24, at + 26)],
    ['another protocol', (p, at) => ipv4.setProtocol(p, at, 50)],
  ])('%s is not of the row', (_, spoil) => {
    const rows = new Rows(many(4, row));
    spoil(rows.packets[3]!.bytes, rows.packets[3]!.at);
    sender.send(rows.packets, 4, byRaw);
    expect(singles.map((one) => rows.packets.indexOf(one))).toEqual([3]);
    rows.release();
  });

  test('a path that refuses gets single packets at once, and no more rows', () => {
    failures = [EIO];
    expect(send([...many(3, { ...row, len: 300 }), ...many(2, row)])).toEqual(['3', '4']);
    expect(singles.length).toBe(3);
    calls = [];
    expect(send(many(3, row))).toEqual([]);
    expect(singles.length).toBe(6);
    expect(calls).toEqual([]);
    expect(backlog.refusals.total).toBe(0);
  });

  test('what the kernel has no room for waits, and goes in rows and in order', async () => {
    const wanted = [...many(4, row), ...many(5, { ...row, len: 300 }), ...many(3, row)];
    const rows = new Rows(wanted);
    failures = [EAGAIN];
    sender.send(rows.packets.slice(0, 9), 9, byRaw);
    expect(calls).toEqual([2]);
    // There is room again, but not for those that came later.
    sender.send(rows.packets.slice(9), 3, byRaw);
    expect(calls).toEqual([2]);
    expect(backlog.counts).toMatchObject({ waited: 12, waiting: 12 });
    for (let i = 0; i < 100 && backlog.counts.waiting > 0; i++) await sleep(1);
    expect(received(rows)).toEqual(order(0, 12));
    expect(calls).toEqual([2, 3]);
    expect(backlog.refusals.total).toBe(0);
  });

  test('rows that are sent singly do not overtake what waits', async () => {
    failures = [EAGAIN];
    const rows = new Rows([...many(3, row), ...many(2, { ...row, to: PORT + 2 })]);
    sender.send(rows.packets, 5, byRaw);
    expect(singles.length).toBe(0);
    failures = [EIO];
    for (let i = 0; i < 100 && backlog.counts.waiting > 0; i++) await sleep(1);
    // The first was refused as a row, and went with the others.
    expect(singles.map(({ len }) => len)).toEqual(rows.packets.slice(0, 3).map(({ len }) => len));
    rows.release();
  });

  test('a TTL that a socket cannot set goes by raw sockets', () => {
    expect(send(many(3, { ...row, hopLimit: 0 }))).toEqual([]);
    expect(singles.length).toBe(3);
  });
});

describe.skipIf(!isLinux || process.getuid?.() !== 0)(
  'rows of datagrams, through the kernel',
  () => {
    test.each([
      [4, 'auto'],
      [6, 'auto'],
      [4, 'off'],
      [6, 'off'],
    ] as const)('IPv%i, offload %s: come in as they went out', async (family, offload) => {
      const backlog = new Backlog(libc('a test'), ONE_WIRE);
      const all = { port: PORT, mark: 7557, backlog };
      const encap = openUdpEncap({ ...all, families: [family], offload });
      const lens = [...many(40, { len: 1200 }), ...many(3, { len: 90 }), { len: 7 }, { len: 1560 }];
      const rows = new Rows(lens.map((one) => ({ ...one, family })));
      const received: string[] = [];
      const wrong: number[] = [];
      try {
        encap.receive((packets, count) => {
          for (let i = 0; i < count; i++) {
            const octets = packets[i]!.copy();
            if (!checksum.transportChecksumOk(octets, cursorOf(octets))) wrong.push(i);
            received.push(hex(octets));
          }
        });
        const sent = rows.packets.map((packet) => hex(packet.copy()));
        const byOthers: Packet[] = [];
        const send = encap.sendBy((packets, count) => byOthers.push(...packets.slice(0, count)));
        send(rows.packets, lens.length);
        for (let i = 0; i < 100 && received.length < lens.length - byOthers.length; i++)
          await sleep(5);
        const single = offload === 'auto' ? 1 : lens.length;
        expect(byOthers.length).toBe(single);
        expect(received).toEqual(sent.slice(0, lens.length - single));
        expect(wrong).toEqual([]);
        expect(encap.refused).toBe(0);
        expect(encap.describe()).toMatch(
          offload === 'auto' ? /UDP_SEGMENT and UDP_GRO/ : /switched off/,
        );
      } finally {
        backlog.close();
        encap.close();
        rows.release();
      }
    });

    test('rows of other sizes than the last one, and single datagrams between them', async () => {
      const backlog = new Backlog(libc('a test'), ONE_WIRE);
      const encap = openUdpEncap({ port: PORT, mark: 7557, families: [4], backlog });
      const other = createSocket('udp4');
      const received: string[] = [];
      const until = async (count: number) => {
        for (let i = 0; i < 200 && received.length < count; i++) await sleep(5);
        expect(received).toHaveLength(count);
      };
      const send = encap.sendBy(() => expect.fail('a row goes as one message'));
      try {
        encap.receive((packets, count) => {
          for (let i = 0; i < count; i++) received.push(payloadOf(packets[i]!));
        });
        const sent: string[] = [];
        // What is sent in one go is there when it is read: the guess is right, wrong, right again.
        for (const go of [[1400], [1400, 1400], [1400, 'one', 1300, 1400, 'one'], ['one', 1300]]) {
          for (const len of go) {
            if (typeof len === 'string') {
              const octets = counting(700 + sent.length);
              sent.push(hex(octets));
              await new Promise((resolve) => other.send(octets, PORT, '127.0.0.1', resolve));
              continue;
            }
            const rows = new Rows([...many(30, { len }), { len: 55 }]);
            sent.push(...rows.packets.map(payloadOf));
            send(rows.packets, rows.packets.length);
            rows.release();
          }
          await until(sent.length);
        }
        expect(received).toEqual(sent);
        expect(encap.refused).toBe(0);
      } finally {
        backlog.close();
        encap.close();
        other.close();
      }
    });
  },
);

function payloadOf({ bytes, at, end }: Packet): string {
  return hex(bytes.subarray(at + 28, end));
}

function bound(c: Libc, port: number): number {
  const fd = c.socket(AF_INET, SOCK_DGRAM | SOCK_FLAGS, 0);
  withBlock(c, 64, (name) => {
    name.view.setUint16(0, AF_INET, true);
    name.view.setUint16(2, port, false);
    name.bytes.set(LOOPBACK[4].bytes, 4);
    expect(c.bind(fd, name.base, 16)).toBe(0);
  });
  return fd;
}

function drain(c: Libc, fd: number): string[] {
  const received: string[] = [];
  withBlock(c, 70_000, (block) => {
    for (;;) {
      const len = c.recv(fd, block.base, 70_000, 0);
      if (len < 0) return;
      received.push(hex(block.bytes.subarray(0, len)));
    }
  });
  return received;
}

function hex(octets: Uint8Array): string {
  return Buffer.from(octets).toString('hex');
}
