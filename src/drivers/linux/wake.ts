import { failure, type Libc, O_CLOEXEC, O_NONBLOCK } from './libc.ts';
import { type NativeBlock, nativeBlock } from './native-memory.ts';
import { type Watch, watch } from './poll.ts';

/** A descriptor that one thread writes to, and that wakes the event loop of another (eventfd). */
export function openWake(c: Libc): number {
  const fd = c.eventfd(0, O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) throw failure(c, 'eventfd');
  return fd;
}

let one: NativeBlock | undefined;

/** Wakes the thread that watches; once, however often it is called before that has happened. */
export function wake(c: Libc, fd: number): void {
  if (one === undefined) {
    one = nativeBlock(c, 8);
    one.view.setUint32(0, 1, true);
  }
  c.write(fd, one.base, 8);
}

/** Calls `onWake` from the event loop of this thread. */
export function watchWake(c: Libc, fd: number, onWake: () => void): Watch {
  const count = nativeBlock(c, 8);
  return watch(c, fd, () => {
    c.read(fd, count.base, 8);
    onWake();
  });
}
