import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Libc, libc } from '../../../src/drivers/linux/libc.ts';
import { type NativeBlock, nativeBlock } from '../../../src/drivers/linux/native-memory.ts';
import {
  pausePackets,
  readArrived,
  type Watch,
  watchPackets,
} from '../../../src/drivers/linux/poll.ts';
import { openWake, wake } from '../../../src/drivers/linux/wake.ts';

describe.skipIf(process.platform !== 'linux')('descriptors that packets come by', () => {
  let c: Libc;
  let count: NativeBlock;
  let closing: (() => void)[] = [];

  beforeEach(() => {
    c = libc('a test');
    count = nativeBlock(c, 8);
  });

  afterEach(() => {
    pausePackets(false);
    for (const close of closing) close();
    closing = [];
  });

  /** One that says when it is read; packets come by `wake`, and are taken off if told so. */
  function source(onRead: () => void, isRead = true): { fd: number; watch: Watch } {
    const fd = openWake(c);
    const watch = watchPackets(c, fd, () => {
      // The event loop may come to what has been read already.
      if (!isRead || c.read(fd, count.base, 8) > 0) onRead();
    });
    closing.push(() => {
      watch.close();
      c.close(fd);
    });
    return { fd, watch };
  }

  async function turns(most: number, isDone: () => boolean): Promise<void> {
    for (let i = 0; i < most && !isDone(); i++) await turn();
  }

  test('what comes while one is read is read in the same turn of the event loop', async () => {
    const events: string[] = [];
    const b = source(() => events.push('b'));
    const a = source(() => {
      events.push('a');
      if (events.length < 4) wake(c, a.fd);
      wake(c, b.fd);
      setImmediate(() => events.push('turn'));
    });
    wake(c, a.fd);
    await turns(1000, () => events.includes('turn'));
    expect(events.slice(0, events.indexOf('turn'))).toEqual(['a', 'b', 'a', 'b', 'a', 'b']);
  });

  test('a flood leaves the event loop its turns', async () => {
    const events: string[] = [];
    const flood = source(() => {
      if (events.push('read') === 1) setImmediate(() => events.push('turn'));
    }, false);
    wake(c, flood.fd);
    await turns(1000, () => events.includes('turn'));
    expect(events.indexOf('turn')).toBeLessThanOrEqual(6);
  });

  test('one that is closed by another is not read any more', async () => {
    const events: string[] = [];
    const a = source(() => {
      events.push('a');
      b.watch.close();
    });
    const b = source(() => events.push('b'));
    const d = source(() => events.push('d'));
    for (const { fd } of [a, b, d]) wake(c, fd);
    readArrived(c);
    await turns(1000, () => events.includes('d'));
    expect(events).toEqual(['a', 'd']);
  });

  test('none is read while they are paused, and all afterwards', async () => {
    const events: string[] = [];
    const a = source(() => events.push('a'));
    pausePackets(true);
    const b = source(() => events.push('b'));
    for (const { fd } of [a, b]) wake(c, fd);
    readArrived(c);
    for (let i = 0; i < 20; i++) await turn();
    expect(events).toEqual([]);
    pausePackets(false);
    await turns(1000, () => events.length > 1);
    expect(events.sort()).toEqual(['a', 'b']);
  });
});
