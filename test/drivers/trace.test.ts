import { expect, test } from 'vitest';
import { memoryPair } from '../../src/drivers/memory.ts';
import { traceLink } from '../../src/drivers/trace.ts';
import { packetFrom } from '../../src/wire/packet.ts';

test('a traced link shows each packet with its direction, and passes it on', () => {
  const [a, b] = memoryPair({ delivery: 'queued' });
  const seen: string[] = [];
  const got: string[] = [];
  const link = traceLink(a, (direction, packet) => seen.push(`${direction} ${packet.copy()}`));
  link.receive((packets, count) => {
    for (let i = 0; i < count; i++) got.push(`${packets[i]!.copy()}`);
  });
  link.send([packetFrom(Uint8Array.of(1)), packetFrom(Uint8Array.of(2))], 1);
  expect(b.waiting).toBe(1);
  b.send([packetFrom(Uint8Array.of(3))], 1);
  a.flush();
  expect(seen).toEqual(['out 1', 'in 3']);
  expect(got).toEqual(['3']);
  link.close();
  link.send([packetFrom(Uint8Array.of(4))], 1);
  expect(link.refused).toBe(1);
});
