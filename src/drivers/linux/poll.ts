import type { Libc } from './libc.ts';

/**
 * Something that is being watched; `close` ends it, and must come before the descriptor is closed.
 */
export interface Watch {
  close(): void;
}

export interface EventWatch extends Watch {
  /** What to wait for from now on. */
  want(events: WatchedEvents): void;
}

export interface WatchedEvents {
  readonly readable: boolean;
  readonly writable: boolean;
}

/** Handles that are not referenced are collected, and then their callback never comes. */
const watched = new Set<object>();

/** How often in a row a descriptor may report an error before it counts as broken. */
const ERRORS_MAX = 16;

/**
 * Calls `onReady` from the event loop while the descriptor is readable, or what `want` says
 * (level-triggered). The only user of koffi's poll, which is undocumented: its callback gets
 * (status, events), whatever its types say. Ends the process, by an exception that nobody catches,
 * when `onReady` throws or the descriptor breaks: a TUN device that somebody has deleted.
 */
export function watch(c: Libc, fd: number, onReady: () => void): EventWatch {
  let events: WatchedEvents = { readable: true, writable: false };
  let errors = 0;
  const callback = (status: unknown): void => {
    errors = typeof status === 'number' && status < 0 ? errors + 1 : 0;
    try {
      // Also after an error: reading takes it off a socket.
      onReady();
      if (errors > ERRORS_MAX) throw new Error(`descriptor ${fd} cannot be read any more`);
    } catch (error) {
      // koffi would swallow it, and a host that goes on after a broken invariant leaks.
      setImmediate(() => {
        throw error;
      });
      return;
    }
    // libuv stops to watch after an error. Otherwise: koffi calls us outside of Node's callback
    // scope, and without a turn of Node's own, promises settled above would wait.
    setImmediate(errors > 0 ? restart : turn);
  };
  const handle = c.koffi.node.poll(fd, events, callback);
  const restart = (): void => {
    if (watched.has(handle)) handle.start(events, callback);
  };
  watched.add(handle);
  return {
    want(next): void {
      if (next.readable === events.readable && next.writable === events.writable) return;
      events = next;
      if (!watched.has(handle)) return;
      // libuv takes "nothing" for an invalid argument.
      if (next.readable || next.writable) handle.start(next, callback);
      else handle.stop();
    },
    close(): void {
      if (watched.delete(handle)) handle.close();
    },
  };
}

function turn(): void {}
