import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { libc } from '../../../src/drivers/linux/libc.ts';
import { PacketMemory } from '../../../src/drivers/linux/packet-memory.ts';
import { PacketRing } from '../../../src/drivers/linux/packet-ring.ts';
import { type Packet, packetFrom } from '../../../src/wire/packet.ts';

const PACKETS_MAX = 8;
const OCTETS_MAX = 256;

/** A ring in a memory of its own, and the octets of what is in it, first in, first out. */
function ringIn(memory: PacketMemory) {
  const ring = new PacketRing(memory, PACKETS_MAX, OCTETS_MAX);
  const all: Packet[] = [];
  const octets = () => {
    const count = ring.peek(all, PACKETS_MAX);
    return all.slice(0, count).map((packet) => Buffer.from(packet.copy()).toString('hex'));
  };
  return { ring, octets };
}

const step = fc.oneof(
  fc.record({ push: fc.integer({ min: 1, max: 120 }) }),
  fc.record({ drop: fc.integer({ min: 0, max: PACKETS_MAX }) }),
);

describe.skipIf(process.platform !== 'linux')('a ring of packets', () => {
  test('keeps what it took, in order and octet for octet, like a list', () => {
    const memory = new PacketMemory(libc('a test'), 1 << 18);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { ring, octets } = ringIn(memory);
        const list: string[] = [];
        let number = 0;
        for (const one of steps) {
          if ('push' in one) {
            const data = new Uint8Array(one.push).fill(++number);
            const isTaken = ring.push(packetFrom(data));
            if (isTaken) list.push(Buffer.from(data).toString('hex'));
            else expect(list.length).toBeGreaterThan(0);
            if (list.length < PACKETS_MAX && list.join('').length / 2 + 240 <= OCTETS_MAX) {
              // What is lost at the end is less than the longest packet.
              expect(isTaken).toBe(true);
            }
          } else {
            const count = Math.min(one.drop, list.length);
            ring.drop(count);
            list.splice(0, count);
          }
          expect(octets()).toEqual(list);
          expect(ring.count).toBe(list.length);
        }
        ring.release();
      }),
      { numRuns: 300 },
    );
  });

  test('takes so many packets, or so many octets, and no more', () => {
    const { ring } = ringIn(new PacketMemory(libc('a test'), 1 << 18));
    const small = packetFrom(new Uint8Array(20));
    for (let i = 0; i < PACKETS_MAX; i++) expect(ring.push(small)).toBe(true);
    expect(ring.push(small)).toBe(false);
    ring.drop(PACKETS_MAX);
    const half = packetFrom(new Uint8Array(OCTETS_MAX / 2));
    expect([ring.push(half), ring.push(half), ring.push(small)]).toEqual([true, true, false]);
  });
});
