import { describe, expect, test } from 'vitest';
import { memoryPair } from '../../src/drivers/memory.ts';
import type { PacketSink } from '../../src/wire/packet.ts';
import { packetFrom } from '../../src/wire/packet.ts';

function packet(...octets: number[]) {
  return packetFrom(Uint8Array.from(octets));
}

function recorder(): { seen: number[][]; sink: PacketSink } {
  const seen: number[][] = [];
  return {
    seen,
    sink: (packets, count) => {
      for (let i = 0; i < count; i++) seen.push([...packets[i]!.copy()]);
    },
  };
}

describe('a wire in memory', () => {
  test('delivers at once, in order, only the first `count` packets, both ways', () => {
    const [a, b] = memoryPair();
    const atA = recorder();
    const atB = recorder();
    a.receive(atA.sink);
    b.receive(atB.sink);
    a.send([packet(1), packet(2), packet(3)], 2);
    b.send([packet(9)], 1);
    expect(atB.seen).toEqual([[1], [2]]);
    expect(atA.seen).toEqual([[9]]);
  });

  test('hands over copies', () => {
    const [a, b] = memoryPair();
    const sent = packet(1, 2, 3);
    let checked = 0;
    b.receive((packets, count) => {
      expect(count).toBe(1);
      const got = packets[0]!;
      got.bytes[got.at] = 99;
      checked++;
    });
    a.send([sent], 1);
    expect(checked).toBe(1);
    expect([...sent.copy()]).toEqual([1, 2, 3]);
  });

  test('keeps what arrives before there is a handler, up to its bound', () => {
    const [a, b] = memoryPair({ queueMax: 3 });
    for (let i = 0; i < 5; i++) a.send([packet(i)], 1);
    expect(a.refused).toBe(2);
    expect(b.waiting).toBe(3);
    const atB = recorder();
    b.receive(atB.sink);
    expect(atB.seen).toEqual([[0], [1], [2]]);
  });

  test('queued: delivers only on flush, and one round at a time', () => {
    const [a, b] = memoryPair({ delivery: 'queued' });
    const atA = recorder();
    a.receive(atA.sink);
    b.receive((packets, count) => b.send(packets, count));
    a.send([packet(1)], 1);
    expect(a.waiting + b.waiting).toBe(1);
    expect(b.flush()).toBe(1);
    expect(atA.seen).toEqual([]);
    expect(a.flush()).toBe(1);
    expect(atA.seen).toEqual([[1]]);
    expect(a.flush()).toBe(0);
  });

  test('answers to answers need no stack and do not overwrite what is being read', () => {
    const [a, b] = memoryPair();
    let turns = 0;
    const bounce =
      (link: typeof a): PacketSink =>
      (packets, count) => {
        const before = packets[0]!.copy();
        if (++turns < 10_000) link.send(packets, count);
        expect(packets[0]!.copy()).toEqual(before);
      };
    a.receive(bounce(a));
    b.receive(bounce(b));
    a.send([packet(7, 7)], 1);
    expect(turns).toBe(10_000);
  });

  test('more than one batch arrives whole', () => {
    const [a, b] = memoryPair({ delivery: 'queued' });
    const atB = recorder();
    b.receive(atB.sink);
    for (let i = 0; i < 150; i++) a.send([packet(i)], 1);
    expect(b.flush()).toBe(150);
    expect(atB.seen.map(([first]) => first)).toEqual(Array.from({ length: 150 }, (_, i) => i));
  });

  test('a closed end refuses and delivers nothing more', () => {
    const [a, b] = memoryPair();
    const atB = recorder();
    b.receive(atB.sink);
    b.close();
    a.send([packet(1)], 1);
    expect(a.refused).toBe(1);
    a.close();
    a.send([packet(1)], 1);
    expect(a.refused).toBe(2);
    expect(atB.seen).toEqual([]);
  });
});
