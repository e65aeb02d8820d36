import type { Libc } from './libc.ts';
import { type NativeBlock, nativeBlock } from './native-memory.ts';

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
    const wantsSome = events.readable || events.writable;
    if (wantsSome && watched.has(handle)) handle.start(events, callback);
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

/**
 * As `watch`, for a descriptor that packets come by: `onReady` reads what one turn allows. What has
 * come by any of them meanwhile is read in the same turn of the event loop, whose own way to us
 * costs as much as a dozen packets.
 */
export function watchPackets(c: Libc, fd: number, onReady: () => void): Watch {
  const watching = watch(c, fd, () => {
    onReady();
    readMore(c, ROUNDS_MORE);
  });
  const reader: PacketReader = { fd, read: onReady, watching };
  readers = [...readers, reader];
  if (isPaused) watching.want(NOTHING);
  return {
    close(): void {
      readers = readers.filter((other) => other !== reader);
      watching.close();
    },
  };
}

interface PacketReader {
  readonly fd: number;
  readonly read: () => void;
  readonly watching: EventWatch;
}

/** A new array with each change. */
let readers: readonly PacketReader[] = [];
export const NOTHING: WatchedEvents = { readable: false, writable: false };
const PACKETS: WatchedEvents = { readable: true, writable: false };
let isPaused = false;

/** Whether this thread reads no packets until it is told otherwise: the kernel keeps them. */
export function pausePackets(paused: boolean): void {
  isPaused = paused;
  for (const { watching } of readers) watching.want(paused ? NOTHING : PACKETS);
}

/** struct pollfd: the descriptor, what is asked, what is so. */
const POLLFD_LEN = 8;
const POLLFD_MAX = 64;
const POLLIN = 1;
/** As many batches of each descriptor: when more has arrived, the host is behind anyway. */
const ROUNDS_MAX = 64;
/** Within a turn of the event loop, which has to look after requests and timers as well. */
const ROUNDS_MORE = 4;
let pollfds: NativeBlock | undefined;
/** Whose descriptors are in there, out of which. */
let polled: readonly PacketReader[] = [];
let polledOf = polled;

/**
 * Calls who reads packets, as the event loop will, until all that have arrived by now are read: for
 * whoever is about to change what becomes of packets. Must not be called by a reader of packets.
 */
export function readArrived(c: Libc): void {
  readMore(c, ROUNDS_MAX);
}

function readMore(c: Libc, rounds: number): void {
  for (let round = 0; round < rounds && !isPaused; round++) {
    const { view, base } = askAll(c);
    const [all, now] = [readers, polled];
    if (now.length === 0 || c.poll(base, now.length, 0) <= 0) return;
    let isAny = false;
    // Whoever is handed packets may close links.
    for (let i = 0; i < now.length && all === readers; i++) {
      if ((view.getUint16(POLLFD_LEN * i + 6, true) & POLLIN) === 0) continue;
      isAny = true;
      now[i]!.read();
    }
    if (!isAny) return;
  }
}

/** The first `POLLFD_MAX` readers: others wait for the event loop. */
function askAll(c: Libc): NativeBlock {
  pollfds ??= nativeBlock(c, POLLFD_LEN * POLLFD_MAX);
  if (polledOf === readers) return pollfds;
  polledOf = readers;
  polled = readers.slice(0, POLLFD_MAX);
  for (const [i, { fd }] of polled.entries()) {
    pollfds.view.setInt32(POLLFD_LEN * i, fd, true);
    pollfds.view.setUint32(POLLFD_LEN * i + 4, POLLIN, true);
  }
  return pollfds;
}

function turn(): void {}
