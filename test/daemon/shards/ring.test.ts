import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RingReader, RingWriter, ringMemory } from '../../../src/daemon/shards/ring.ts';

type Step =
  | { readonly kind: 'write'; readonly len: number }
  | { readonly kind: 'publish' }
  | { readonly kind: 'read'; readonly most: number };

const STEP: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('write' as const), len: fc.integer({ min: 8, max: 120 }) }),
  fc.record({ kind: fc.constant('write' as const), len: fc.integer({ min: 8, max: 40 }) }),
  fc.record({ kind: fc.constant('publish' as const) }),
  fc.record({ kind: fc.constant('read' as const), most: fc.integer({ min: 0, max: 9 }) }),
);

function write(ring: RingWriter, len: number, number: number): boolean {
  const at = ring.reserve(len);
  if (at < 0) return false;
  ring.words[at / 4 + 1] = number;
  for (let i = 8; i < len; i++) ring.bytes[at + i] = number + i;
  return true;
}

/** The number of the next record, if it is whole; -1: there is none. */
function read(ring: RingReader, len: (number: number) => number): number {
  const at = ring.next();
  if (at < 0) return -1;
  const number = ring.words[at / 4 + 1]!;
  for (let i = 8; i < len(number); i++) expect(ring.bytes[at + i]).toBe((number + i) & 255);
  return number;
}

describe('a ring', () => {
  test('is a queue: in order, whole, nothing lost, nothing before it is published', () => {
    fc.assert(
      fc.property(fc.array(STEP, { maxLength: 300 }), (steps) => {
        const memory = ringMemory(512);
        const [writer, reader] = [new RingWriter(memory), new RingReader(memory)];
        const lens: number[] = [];
        const queue: number[] = [];
        let published = 0;
        for (const step of steps) {
          if (step.kind === 'write') {
            if (!write(writer, step.len, lens.length)) continue;
            queue.push(lens.length);
            lens.push(step.len);
          } else if (step.kind === 'publish') {
            writer.publish();
            expect(writer.isPending).toBe(false);
            published = lens.length;
          } else {
            expect(reader.look()).toBe(queue.length > 0 && queue[0]! < published);
            for (let i = 0; i < step.most && (queue[0] ?? published) < published; i++) {
              expect(read(reader, (number) => lens[number]!)).toBe(queue.shift());
            }
            if ((queue[0] ?? published) >= published) expect(reader.next()).toBe(-1);
            reader.release();
          }
        }
      }),
      { numRuns: 200 },
    );
  });

  test('has room for what its length says, and is full then', () => {
    const memory = ringMemory(256);
    const [writer, reader] = [new RingWriter(memory), new RingReader(memory)];
    for (let round = 0; round < 40; round++) {
      for (let i = 0; i < 8; i++) expect(write(writer, 32, i)).toBe(true);
      expect(writer.reserve(8)).toBe(-1);
      writer.publish();
      expect(reader.look()).toBe(true);
      for (let i = 0; i < 8; i++) expect(read(reader, () => 32)).toBe(i);
      // Until it says so, the reader still has what it was shown.
      expect(writer.reserve(8)).toBe(-1);
      reader.release();
    }
  });

  test('gives room back record by record', () => {
    const memory = ringMemory(64);
    const [writer, reader] = [new RingWriter(memory), new RingReader(memory)];
    write(writer, 32, 1);
    write(writer, 32, 2);
    writer.publish();
    reader.look();
    reader.next();
    reader.next();
    reader.releaseOthers();
    expect(write(writer, 32, 3)).toBe(true);
    expect(writer.reserve(8)).toBe(-1);
  });

  test('counts past 2^32', () => {
    const memory = ringMemory(64);
    const control = new Int32Array(memory);
    control[0] = -32;
    control[16] = -32;
    const [writer, reader] = [new RingWriter(memory), new RingReader(memory)];
    for (let i = 0; i < 8; i++) {
      expect(write(writer, 24, i)).toBe(true);
      writer.publish();
      expect(reader.look()).toBe(true);
      expect(read(reader, () => 24)).toBe(i);
      reader.release();
    }
  });
});
