import { mkdirSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import type { Env } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import { listenPrivately } from './private-socket.ts';
import { openSequenceFile, type SequenceFile } from './sequence-file.ts';

/** The folder of what outlives a host, held by one host at a time. */
export interface StateFolder {
  readonly sequences: SequenceFile;
  close(): Promise<void>;
}

/**
 * Opens the folder, private to its owner. Throws when another host holds it: two hosts must not
 * count for themselves.
 *
 * Who holds it listens on a socket in it. A file with a process number would outlive a crash or a
 * power failure, and then keep the host from starting once another process has that number; it
 * would also say nothing to a host in another container that shares the folder.
 */
export async function openStateFolder(folder: string, env: Env): Promise<StateFolder> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const lock = await takeLock(folder);
  try {
    const sequences = openSequenceFile(join(folder, 'sequences'), env.random, env.log);
    return {
      sequences,
      close() {
        sequences.close();
        return release(lock);
      },
    };
  } catch (error) {
    await release(lock);
    throw error;
  }
}

async function takeLock(folder: string): Promise<Server> {
  const lock = createServer((socket) => socket.destroy());
  try {
    await listenPrivately(lock, join(folder, 'lock'));
  } catch (error) {
    if (!(error instanceof KeyError && error.errno === 'EBUSY')) throw error;
    throw new Error(`${folder} is in use by another host; give this one another --state`);
  }
  return lock;
}

/** Also removes the socket. */
function release(lock: Server): Promise<void> {
  return new Promise((resolve) => lock.close(() => resolve()));
}
