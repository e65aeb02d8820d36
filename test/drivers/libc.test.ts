import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { failure, libc, O_NONBLOCK, O_RDWR } from '../../src/drivers/linux/libc.ts';
import { nativeBlock, setWord, unpin } from '../../src/drivers/linux/native-memory.ts';
import { watch } from '../../src/drivers/linux/poll.ts';

describe.skipIf(process.platform !== 'linux')('libc', () => {
  test('says why a call failed', () => {
    const c = libc('a test');
    expect(c.open('/does/not/exist', O_RDWR)).toBe(-1);
    expect(failure(c, 'open it').message).toBe('open it: No such file or directory');
  });

  test('reads into memory whose address it was given', () => {
    const c = libc('a test');
    const dir = mkdtempSync(join(tmpdir(), 'testudo-libc-'));
    writeFileSync(join(dir, 'file'), 'hello');
    const fd = c.open(join(dir, 'file'), O_RDWR);
    const block = nativeBlock(c, 64);
    expect(c.read(fd, block.base + 3, 60)).toBe(5);
    expect(new TextDecoder().decode(block.bytes.subarray(3, 8))).toBe('hello');
    expect(c.close(fd)).toBe(0);
    unpin(block.bytes);
    rmSync(dir, { recursive: true });
  });

  test('words of 64 bits are exact', () => {
    const view = new DataView(new ArrayBuffer(8));
    setWord(view, 0, 0x7fff_89ab_cdef);
    expect(view.getBigUint64(0, true)).toBe(0x7fff_89ab_cdefn);
  });

  test('a watched descriptor calls back while there is something to read, and not after close', async () => {
    const c = libc('a test');
    const dir = mkdtempSync(join(tmpdir(), 'testudo-libc-'));
    const fifo = join(dir, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const fd = c.open(fifo, O_RDWR | O_NONBLOCK);
    const block = nativeBlock(c, 64);
    let calls = 0;
    let wake: () => void = () => {};
    const watching = watch(c, fd, () => {
      calls++;
      // One octet a call: level-triggered, so it is called for each.
      c.read(fd, block.base, 1);
      if (calls === 3) wake();
    });
    // A promise that is settled by the callback must go on without other events.
    const third = new Promise<void>((resolve) => {
      wake = resolve;
    });
    writeFileSync(fifo, 'abc');
    await third;
    watching.close();
    writeFileSync(fifo, 'def');
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    expect(calls).toBe(3);
    c.close(fd);
    unpin(block.bytes);
    rmSync(dir, { recursive: true });
  });
});
