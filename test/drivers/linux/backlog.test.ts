import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { address } from '../../../src/base/address.ts';
import {
  Backlog,
  WAITING_OCTETS_MAX,
  WAITING_PACKETS_MAX,
} from '../../../src/drivers/linux/backlog.ts';
import {
  AF_INET,
  AF_INET6,
  type Libc,
  libc,
  SOCK_DGRAM,
  SOCK_FLAGS,
} from '../../../src/drivers/linux/libc.ts';
import { RawSender } from '../../../src/drivers/linux/raw-sender.ts';
import { Refusals } from '../../../src/drivers/refusals.ts';
import * as ipv4 from '../../../src/wire/ipv4.ts';
import * as ipv6 from '../../../src/wire/ipv6.ts';
import { type Packet, type PacketSink, packetFrom } from '../../../src/wire/packet.ts';

const EAGAIN = 11;
const ENETDOWN = 100;
const HEADER_LEN = 64;

/**
 * A kernel whose sockets have room for so many packets, and fail for others with a reason. What it
 * takes is known by its order; the descriptors are real, and can always be written to.
 */
class Kernel {
  readonly taken: Record<number, number> = {};
  readonly calls: string[] = [];
  room = 0;
  /** Room that there is after one has been refused. */
  roomLater = 0;
  reason = EAGAIN;
  /** Where to count, by descriptor. */
  readonly c: Libc = {
    ...libc('a test'),
    errno: () => this.reason,
    sendmmsg: (fd, _messages, count) => {
      const sent = Math.min(count, this.room);
      this.calls.push(`${sent} of ${count}`);
      this.room = sent > 0 ? this.room - sent : this.roomLater;
      this.taken[fd] = (this.taken[fd] ?? 0) + sent;
      return sent > 0 ? sent : -1;
    },
  };
}

describe.skipIf(process.platform !== 'linux')('packets that wait for the wire', () => {
  let kernel: Kernel;
  let backlog: Backlog;
  let sender: RawSender;
  let pauses: boolean[];
  let refusals: Refusals;
  let fds: Record<4 | 6, number>;
  let beside: Packet[];
  let forgotten: number;

  beforeEach(() => {
    kernel = new Kernel();
    forgotten = 0;
    // The TTL stands for the device.
    const deviceOf = ({ bytes, at }: Packet) => bytes[at + 8]!;
    backlog = new Backlog(kernel.c, { deviceOf, forget: () => forgotten++ });
    refusals = new Refusals();
    sender = new RawSender(kernel.c, refusals, backlog);
    const open = (domain: number) => kernel.c.socket(domain, SOCK_DGRAM | SOCK_FLAGS, 0);
    fds = { 4: open(AF_INET), 6: open(AF_INET6) };
    for (const family of [4, 6] as const) sender.add(family, fds[family]);
    beside = [];
    backlog.sendBy(
      (packets, count) => sender.send(packets, count),
      (packets, count) => beside.push(...packets.slice(0, count)),
    );
    pauses = [];
    backlog.pauses({ pause: (isPaused) => pauses.push(isPaused) });
  });

  afterEach(() => {
    backlog.close();
    sender.close();
  });

  const send = (packets: readonly Packet[]) => sender.send(packets, packets.length);

  function sendWaitingBy(send: PacketSink): void {
    backlog.sendBy(send, (packets, count) => beside.push(...packets.slice(0, count)));
  }

  async function drained(): Promise<void> {
    for (let i = 0; i < 200 && backlog.counts.waiting > 0; i++) await sleep(1);
    expect(backlog.counts.waiting).toBe(0);
  }

  test('the rest of a batch goes when there is room, and the local side waits for it', async () => {
    kernel.room = 3;
    send(packets(10));
    expect(backlog.counts).toEqual({ waited: 7, waiting: 7, pauses: 1, full: 0 });
    expect(pauses).toEqual([true]);
    kernel.room = 100;
    // It does not overtake.
    send(packets(2));
    expect(kernel.taken[fds[4]]).toBe(3);
    await drained();
    expect(kernel.calls).toEqual(['3 of 10', '0 of 7', '9 of 9']);
    expect(pauses).toEqual([true, false]);
    expect([refusals.total, backlog.refusals.total]).toEqual([0, 0]);
  });

  test('what leaves by another wire goes beside, and lets the local side go on', async () => {
    kernel.room = 1;
    send(packets(3));
    expect(pauses).toEqual([true]);
    const [slow, other] = [packet(70, 4), packet(71, 4, 9)];
    send([slow, other, slow]);
    expect(beside).toEqual([other]);
    expect(pauses).toEqual([true, false]);
    kernel.room = 100;
    await drained();
    expect(kernel.taken[fds[4]]).toBe(5);
    // The other wire counts as in use for a while.
    kernel.room = 0;
    send(packets(2));
    expect(backlog.counts).toMatchObject({ waiting: 2, pauses: 1 });
    expect(pauses).toEqual([true, false]);
  });

  test('after a pause it looks for packets that another wire has waited for', async () => {
    send(packets(1));
    expect(backlog.isLooking).toBe(false);
    kernel.room = 100;
    await drained();
    expect([pauses, backlog.isLooking]).toEqual([[true, false], true]);
    backlog.look(packets(3), 3);
    expect(backlog.isLooking).toBe(true);
    backlog.look([packet(70, 4), packet(70, 4, 9)], 2);
    expect(backlog.isLooking).toBe(false);
    kernel.room = 0;
    send(packets(2));
    expect(pauses).toEqual([true, false]);
  });

  test('it does not look for ever', async () => {
    send(packets(1));
    kernel.room = 10_000;
    await drained();
    for (let i = 0; i < 100 && backlog.isLooking; i++) backlog.look(packets(50), 50);
    expect(backlog.isLooking).toBe(false);
    kernel.room = 0;
    send(packets(2));
    expect(pauses).toEqual([true, false, true]);
  });

  test('both families of a wire wait, each for its own socket', async () => {
    for (const some of [packets(3), packets(2, 100, 6), packets(1)]) send(some);
    expect(backlog.counts.waiting).toBe(6);
    kernel.room = 3;
    kernel.roomLater = 100;
    await drained();
    expect(kernel.taken).toEqual({ [fds[4]]: 4, [fds[6]]: 2 });
    // Each turn sends packets of one family.
    expect(kernel.calls).toEqual(['0 of 3', '3 of 3', '0 of 2', '2 of 2', '1 of 1']);
    expect(forgotten).toBeGreaterThan(0);
  });

  test('goes in pieces, as room comes, each packet once and in order', async () => {
    const seen: number[] = [];
    sendWaitingBy((waiting, count) => {
      const before = kernel.taken[fds[4]] ?? 0;
      sender.send(waiting, count);
      const now = (kernel.taken[fds[4]] ?? 0) - before;
      seen.push(...waiting.slice(0, now).map((packet) => packet.len));
    });
    kernel.roomLater = 7;
    send(packets(300, 100));
    await drained();
    expect(seen).toEqual(Array.from({ length: 300 }, (_, i) => 100 + i));
  });

  test('an error that is none of room drops its packet, and the rest goes on', async () => {
    send(packets(4));
    kernel.reason = ENETDOWN;
    await drained();
    expect(refusals.byReason).toEqual(new Map([['Network is down', 4]]));
    expect(pauses).toEqual([true, false]);
  });

  test('is bounded in packets; what has no room is counted', () => {
    send(packets(WAITING_PACKETS_MAX + 5));
    expect(backlog.counts).toMatchObject({ waited: WAITING_PACKETS_MAX, full: 5 });
    expect(backlog.refusals.byReason).toEqual(new Map([['EAGAIN', 5]]));
  });

  test('is bounded in octets', () => {
    const len = 60_000;
    const fit = Math.floor(WAITING_OCTETS_MAX / len);
    send(Array.from({ length: fit + 2 }, () => packet(len, 4)));
    expect(backlog.counts).toMatchObject({ waiting: fit, full: 2 });
  });

  test('a socket that says there is room and has none is not asked for ever', async () => {
    send(packets(3));
    await drained();
    expect(backlog.refusals.byReason).toEqual(new Map([['EAGAIN', 3]]));
    expect(kernel.calls.length).toBeLessThan(100);
    expect(pauses).toEqual([true, false]);
  });

  test('what waits at the end is given to the kernel once, and the rest is counted', () => {
    send(packets(9));
    kernel.room = 6;
    backlog.close();
    expect(kernel.taken[fds[4]]).toBe(6);
    expect(backlog.refusals.byReason).toEqual(new Map([['closed', 3]]));
    expect(pauses).toEqual([true, false]);
    backlog.close();
    expect(backlog.refusals.total).toBe(3);
  });

  test('who comes later waits at once', () => {
    send(packets(1));
    const later: boolean[] = [];
    backlog.pauses({ pause: (isPaused) => later.push(isPaused) });
    expect(later).toEqual([true]);
  });

  test('names and places are those of the copies, not of what was borrowed', async () => {
    const vector: Uint8Array[] = [];
    const borrowed = packets(2);
    send(borrowed);
    for (const one of borrowed) one.bytes.fill(0);
    kernel.room = 10;
    sendWaitingBy((waiting, count) => {
      for (let i = 0; i < count; i++) vector.push(waiting[i]!.copy());
      sender.send(waiting, count);
    });
    await drained();
    expect(vector.map((octets) => [octets.length, octets[0]! >> 4])).toEqual([
      [HEADER_LEN, 4],
      [HEADER_LEN + 1, 4],
    ]);
  });
});

/** Each an octet longer than the one before it. */
function packets(count: number, len = HEADER_LEN, family: 4 | 6 = 4): Packet[] {
  return Array.from({ length: count }, (_, i) => packet(len + i, family));
}

/** `device`: the index of the one that it leaves by. */
function packet(len: number, family: 4 | 6, device = 2): Packet {
  const p = new Uint8Array(len);
  if (family === 4) {
    p[0] = 0x45;
    ipv4.setTotalLen(p, 0, len);
    ipv4.setTtl(p, 0, device);
    p.set(address('127.0.0.1').bytes, ipv4.DST_AT);
  } else {
    p[0] = 0x60;
    p[8] = device;
    p.set(address('::1').bytes, ipv6.DST_AT);
  }
  return packetFrom(p);
}
