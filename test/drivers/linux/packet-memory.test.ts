import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { libc } from '../../../src/drivers/linux/libc.ts';
import { PacketMemory, type Region } from '../../../src/drivers/linux/packet-memory.ts';

const LEN = 262_144;

describe.skipIf(process.platform !== 'linux')('packet memory', () => {
  test('forms no address outside of it', () => {
    const memory = new PacketMemory(libc('a test'), LEN);
    expect(memory.address(0, LEN)).toBe(memory.base);
    expect(memory.address(LEN, 0)).toBe(memory.base + LEN);
    expect(memory.address(100, 28)).toBe(memory.base + 100);
    for (const [at, len] of [
      [-1, 1],
      [0, LEN + 1],
      [LEN, 1],
      [LEN - 3, 4],
      [10, -1],
      [Number.NaN, 1],
      [2 ** 53, 1],
    ] as const) {
      expect(() => memory.address(at, len)).toThrow('an address within the memory');
    }
  });

  test('native code and JavaScript see the same octets', () => {
    const c = libc('a test');
    const memory = new PacketMemory(c, LEN);
    memory.bytes[70_000] = 77;
    expect(new Uint8Array(c.koffi.view(BigInt(memory.address(70_000, 1)), 1))[0]).toBe(77);
    memory.words[25_000] = 0x01020304;
    expect([...memory.bytes.subarray(100_000, 100_004)]).toEqual([4, 3, 2, 1]);
  });

  test('regions do not overlap, come zeroed, and all come back', () => {
    const size = fc.integer({ min: 1, max: 50_000 });
    fc.assert(
      fc.property(fc.array(fc.tuple(size, fc.nat(20)), { maxLength: 30 }), (steps) => {
        const memory = new PacketMemory(libc('a test'), LEN);
        const all = memory.available;
        const taken: Region[] = [];
        for (const [len, back] of steps) {
          if (back < 8 && taken.length > 0) {
            memory.give(taken.splice(back % taken.length, 1)[0]!);
            continue;
          }
          if (len > memory.available) continue;
          const region = tryTake(memory, len);
          if (region === undefined) continue;
          expect(region.end - region.at).toBeGreaterThanOrEqual(len);
          expect(region.at % 64).toBe(0);
          expect(taken.every((one) => one.end <= region.at || one.at >= region.end)).toBe(true);
          expect(memory.bytes.subarray(region.at, region.end).some((octet) => octet !== 0)).toBe(
            false,
          );
          memory.bytes.fill(1, region.at, region.end);
          taken.push(region);
        }
        for (const region of taken) memory.give(region);
        expect(memory.available).toBe(all);
        expect(memory.take(all).end).toBe(LEN);
      }),
      { numRuns: 40 },
    );
  });

  test('what is not there is refused, and what is given back twice is our fault', () => {
    const memory = new PacketMemory(libc('a test'), LEN);
    expect(() => memory.take(LEN)).toThrow('no packet memory is left');
    const region = memory.take(1000);
    memory.give(region);
    expect(() => memory.give(region)).toThrow('given back once');
  });
});

/** Undefined when what is free lies in pieces. */
function tryTake(memory: PacketMemory, len: number): Region | undefined {
  try {
    return memory.take(len);
  } catch {
    return undefined;
  }
}
