import { describe, expect, test } from 'vitest';
import { LeaseDesk, ShardLeases } from '../../../src/daemon/shards/leases.ts';
import { Mailbox } from '../../../src/daemon/shards/mailbox.ts';
import { memorySequences, type SequenceStore } from '../../../src/sad/sequence.ts';

const MATERIAL = [Uint8Array.of(1, 2, 3), new Uint8Array(0), Uint8Array.of(4)];

/** A shard and the main one; who waits has the other do its work. */
function desk(store: SequenceStore) {
  const memory = new SharedArrayBuffer(Mailbox.len);
  const main = new LeaseDesk(new Mailbox(memory, 0), store);
  let waits = 0;
  const leases = new ShardLeases(
    new Mailbox(memory, 0),
    () => {},
    () => {
      waits++;
      main.serve();
    },
  );
  return { leases, main, memory, waited: () => waits };
}

describe('sequence numbers of another shard', () => {
  test('are those of the store, for the same keys', () => {
    const store = memorySequences();
    const { leases } = desk(store);
    const lease = leases.lease(MATERIAL);
    expect(lease.start).toBe(1);
    expect(lease.extend(2)).toBeGreaterThan(1);
    lease.release(77);
    expect(store.lease(MATERIAL).start).toBe(77);
    expect(leases.lease(MATERIAL).start).toBe(77);
    expect(leases.lease([...MATERIAL, Uint8Array.of(0)]).start).toBe(1);
  });

  test('are never beyond what was written down, and asked for before they are needed', () => {
    const written: number[] = [];
    const store: SequenceStore = {
      lease: () => ({
        start: 1,
        extend: (needed) => {
          written.push(needed + 2 ** 17);
          return written.at(-1)!;
        },
        release: () => {},
      }),
    };
    const { leases, main, waited } = desk(store);
    const lease = leases.lease(MATERIAL);
    let limit = lease.start;
    for (let next = 2; next < 1_000_000; next += 1000) {
      if (next <= limit) continue;
      limit = lease.extend(next);
      expect(limit).toBeGreaterThanOrEqual(next);
      expect(limit).toBeLessThanOrEqual(written.at(-1)!);
      // The main shard gets round to it some time.
      main.serve();
    }
    // The lease itself, and the first numbers.
    expect(waited()).toBe(2);
    expect(written.length).toBeGreaterThan(5);
  });

  test('are not more than there are while nobody answers', () => {
    const { leases } = desk(memorySequences());
    const lease = leases.lease(MATERIAL);
    const granted = 2 + 65_536;
    expect(lease.extend(2)).toBeLessThan(granted);
    expect(lease.extend(granted - 5)).toBe(granted);
    // What was asked for ahead is not there.
    expect(lease.extend(granted)).toBe(granted);
  });

  test('that could not be written down are not given out', () => {
    const store: SequenceStore = {
      lease: () => ({ start: 9, extend: () => -1, release: () => {} }),
    };
    const lease = desk(store).leases.lease(MATERIAL);
    expect(lease.extend(10)).toBe(-1);
    expect(lease.extend(10)).toBe(-1);
  });

  test('one asks ahead while another needs some now', () => {
    const { leases, main } = desk(memorySequences());
    const [one, other] = [leases.lease(MATERIAL), leases.lease([Uint8Array.of(9)])];
    const limit = one.extend(2);
    expect(one.extend(limit)).toBeGreaterThan(limit);
    expect(other.extend(2)).toBeGreaterThan(2);
    main.serve();
    expect(one.extend(70_000)).toBeGreaterThanOrEqual(70_000);
  });

  test('what keys there were in a question is zeroed', () => {
    const { leases, memory } = desk(memorySequences());
    leases.lease([new Uint8Array(32).fill(0xab)]);
    expect(new Uint8Array(memory).includes(0xab)).toBe(false);
  });
});
