import type { Libc } from './libc.ts';

/** Something that is being watched; `close` ends it, and must come before the descriptor is closed. */
export interface Watch {
  close(): void;
}

/** Handles that are not referenced are collected, and then their callback never comes. */
const watched = new Set<object>();

/**
 * Calls `onReadable` from the event loop while the descriptor is readable (level-triggered). The only user of koffi's poll,
 * which is undocumented: its callback gets (status, events), whatever its types say.
 */
export function watch(c: Libc, fd: number, onReadable: () => void): Watch {
  const handle = c.koffi.node.poll(fd, { readable: true }, () => {
    try {
      onReadable();
    } catch (error) {
      // koffi would swallow it, and a host that goes on after a broken invariant leaks: end the process as usual.
      setImmediate(() => {
        throw error;
      });
      return;
    }
    // koffi calls us outside of Node's callback scope; without a turn of Node's own, promises settled above would wait.
    setImmediate(turn);
  });
  watched.add(handle);
  return {
    close(): void {
      if (watched.delete(handle)) handle.close();
    },
  };
}

function turn(): void {}
