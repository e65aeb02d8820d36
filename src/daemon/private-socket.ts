import { lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';
import { KeyError } from '../base/error.ts';

/**
 * Puts a server on a Unix socket that only its owner can reach: who may connect may read and set
 * keys. The directory is made with mode 0700 if it is missing. Throws KeyError EBUSY when another
 * host answers there, EEXIST when something else than a socket has the name; a socket that nobody
 * answers on is what a crash leaves behind, and is removed.
 */
export async function listenPrivately(server: Server, path: string): Promise<void> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  await removeStale(path);
  try {
    await listen(server, path);
  } catch (error) {
    throw new KeyError('EACCES', `cannot listen on ${path}: ${messageOf(error)}`);
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // The socket is bound before `listen` returns, and must not be open to others for a moment.
    const umask = process.umask(0o177);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
    process.umask(umask);
  });
}

async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return;
  if (!found.isSocket()) {
    throw new KeyError('EEXIST', `${path} is there and is not a socket; it is left alone`);
  }
  const answer = await tryToConnect(path);
  if (answer === 'answered') {
    throw new KeyError('EBUSY', `a host is listening on ${path} already`);
  }
  if (answer !== 'ECONNREFUSED' && answer !== 'ENOENT') {
    throw new KeyError('EACCES', `cannot tell whether a host is listening on ${path}: ${answer}`);
  }
  try {
    unlinkSync(path);
  } catch (error) {
    throw new KeyError('EACCES', `cannot remove the old socket ${path}: ${messageOf(error)}`);
  }
}

function tryToConnect(path: string): Promise<string> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve('answered');
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
