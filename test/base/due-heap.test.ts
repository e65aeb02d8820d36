import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Due, DueHeap } from '../../src/base/due-heap.ts';

function things(count: number): Due[] {
  return Array.from({ length: count }, () => ({ heapAt: -1 }));
}

const COUNT = 24;
const due = fc.oneof(fc.nat({ max: 50 }), fc.constant(Infinity));
const operation = fc.record({ at: fc.nat({ max: COUNT - 1 }), due, drop: fc.boolean() });

test('gives the earliest, as a search through all does, whatever is set, changed and taken out', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 120 }), (operations) => {
      const all = things(COUNT);
      const heap = new DueHeap<Due>();
      const dues = new Map<Due, number>();
      for (const { at, due: dueMs, drop } of operations) {
        const item = all[at]!;
        if (drop) heap.delete(item);
        else heap.set(item, dueMs);
        if (drop || dueMs === Infinity) dues.delete(item);
        else dues.set(item, dueMs);
        expect(heap.nextMs).toBe(Math.min(Infinity, ...dues.values()));
        if (dues.size > 0) expect(dues.get(heap.first!)).toBe(heap.nextMs);
        else expect(heap.first).toBeUndefined();
      }
      const order: number[] = [];
      for (let first = heap.first; first; first = heap.first) {
        order.push(heap.nextMs);
        heap.delete(first);
      }
      expect(order).toEqual([...dues.values()].sort((a, b) => a - b));
      expect(all.every((item) => item.heapAt === -1)).toBe(true);
    }),
  );
});
