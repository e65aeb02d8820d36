import { describe, expect, test } from 'vitest';
import type { Faults } from '../../src/drivers/fault.ts';
import { faultLink, REORDER_MAX } from '../../src/drivers/fault.ts';
import { memoryPair } from '../../src/drivers/memory.ts';
import { seededRandom } from '../../src/drivers/seeded-random.ts';
import { packetFrom } from '../../src/wire/packet.ts';

function run(faults: Faults, sent: number, seed = 1) {
  const [a, b] = memoryPair();
  const link = faultLink(a, seededRandom(seed), faults);
  const seen: Uint8Array[] = [];
  b.receive((packets, count) => {
    for (let i = 0; i < count; i++) seen.push(packets[i]!.copy());
  });
  for (let i = 0; i < sent; i++) link.send([packetFrom(numbered(i))], 1);
  return { link, seen, numbers: () => seen.map((octets) => (octets[0]! << 8) | octets[1]!) };
}

function numbered(i: number): Uint8Array {
  return Uint8Array.of(i >> 8, i, 0, 0);
}

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i);

describe('a link with faults', () => {
  test('without faults changes nothing', () => {
    expect(run({}, 500).numbers()).toEqual(upTo(500));
  });

  test('loses about as many as told, and counts them', () => {
    const { link, seen } = run({ loss: 0.25 }, 2000);
    expect(seen.length + link.counts.lost).toBe(2000);
    expect(link.counts.lost).toBeGreaterThan(400);
    expect(link.counts.lost).toBeLessThan(600);
  });

  test('the same seed does the same, another seed something else', () => {
    const faults = { loss: 0.2, duplicate: 0.2, reorder: 0.2 };
    expect(run(faults, 300, 5).numbers()).toEqual(run(faults, 300, 5).numbers());
    expect(run(faults, 300, 5).numbers()).not.toEqual(run(faults, 300, 6).numbers());
  });

  test('duplicates', () => {
    const { link, numbers } = run({ duplicate: 1 }, 3);
    expect(numbers()).toEqual([0, 0, 1, 1, 2, 2]);
    expect(link.counts.duplicated).toBe(3);
  });

  test('reorders within its bound and gives everything back when healed', () => {
    const { link, numbers } = run({ reorder: 0.5 }, 1000);
    link.setFaults({});
    const order = numbers();
    expect(order).not.toEqual(upTo(1000));
    expect([...order].sort((a, b) => a - b)).toEqual(upTo(1000));
    for (const [place, number] of order.entries()) {
      expect(Math.abs(place - number)).toBeLessThanOrEqual(2 * REORDER_MAX);
    }
  });

  test('flips exactly one bit, and not in the packet it borrowed', () => {
    const [a, b] = memoryPair();
    const link = faultLink(a, seededRandom(3), { corrupt: 1 });
    let flipped = 0;
    b.receive((packets) => {
      for (const octet of packets[0]!.copy()) flipped += octet.toString(2).split('1').length - 1;
    });
    const sent = packetFrom(new Uint8Array(40));
    link.send([sent], 1);
    expect(flipped).toBe(1);
    expect([...sent.copy()].every((octet) => octet === 0)).toBe(true);
  });

  test('truncates', () => {
    const { link, seen } = run({ truncate: 1 }, 200);
    expect(link.counts.truncated).toBe(200);
    expect(seen.length).toBe(200);
    expect(seen.every((octets) => octets.length < 4)).toBe(true);
    expect(new Set(seen.map((octets) => octets.length))).toEqual(new Set([0, 1, 2, 3]));
  });
});
