import { describe, expect, test } from 'vitest';
import { Ledger } from '../../../src/daemon/shards/ledger.ts';
import { Rig, sa } from '../../engine/rig.ts';

describe('the ledger', () => {
  const [owner, reader] = [new Ledger(), new Ledger()];
  const rig = new Rig();
  const chunk = Ledger.chunk();
  for (const one of [owner, reader]) one.add(chunk);

  function pair(slot: number, spi: number) {
    const both = [spi, spi + 1].map((of) => {
      return rig.sad.add(sa({ spi: of, src: '10.0.0.1', dst: '10.0.0.2' }), 'mature');
    });
    for (const one of both) one.slot = slot;
    both[1]!.keeper = reader;
    return both as [(typeof both)[0], (typeof both)[0]];
  }

  test('shows others what the owner has counted', () => {
    const [own, seen] = pair(0, 0x1000);
    expect(seen.usage).toMatchObject({ packets: 0, bytes: 0, firstUseMs: -1 });
    rig.sad.account(own, 3, 2 ** 40);
    own.takeSeq(7);
    own.replay.commit(99);
    owner.publish(own);
    expect(seen.usage).toEqual(own.usage);
    expect(seen.sentSeq).toBe(7);
    expect(seen.replayTop).toBe(99);
    expect(seen.firstUseWallMs).toBe(own.firstUseWallMs);
    expect(() => seen.takeSeq(1)).toThrow('owner');
    // Whoever looks without knowing more takes everything up to the top as seen.
    expect([seen.replay.check(99), seen.replay.check(98), seen.replay.check(100)]).toEqual([
      -1, -1, 100,
    ]);
  });

  test('keeps SAs apart, also at its end', () => {
    const [first] = pair(owner.capacity - 2, 0x2000);
    const [last, seen] = pair(owner.capacity - 1, 0x3000);
    rig.sad.account(first, 1, 1);
    rig.sad.account(last, 2, 2);
    owner.publish(first);
    owner.publish(last);
    expect(seen.usage.packets).toBe(2);
    expect(() => pair(owner.capacity, 0x4000)[1].usage).toThrow();
  });

  test('a dead SA keeps its numbers when its entry is that of another one', () => {
    const [own, seen] = pair(5, 0x5000);
    rig.sad.account(own, 4, 44);
    owner.publish(own);
    seen.keeper = reader.last(seen);
    reader.clear(5);
    expect(pair(5, 0x6000)[1].usage.packets).toBe(0);
    expect(seen.usage).toMatchObject({ packets: 4, bytes: 44 });
  });
});
