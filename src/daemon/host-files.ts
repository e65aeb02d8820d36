import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Env } from '../base/env.ts';
import { openSequenceFile, type SequenceFile } from './sequence-file.ts';

/** The folder of what outlives a host, held by one host at a time. */
export interface StateFolder {
  readonly sequences: SequenceFile;
  close(): void;
}

/** Opens the folder, private to its owner. Throws when another host holds it: two hosts must not count for themselves. */
export function openStateFolder(folder: string, env: Env): StateFolder {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const lock = join(folder, 'lock');
  takeLock(lock, folder);
  try {
    const sequences = openSequenceFile(join(folder, 'sequences'), env.random, env.log);
    return {
      sequences,
      close() {
        sequences.close();
        rmSync(lock, { force: true });
      },
    };
  } catch (error) {
    rmSync(lock, { force: true });
    throw error;
  }
}

function takeLock(lock: string, folder: string): void {
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      const fd = openSync(lock, 'wx', 0o600);
      writeSync(fd, String(process.pid));
      closeSync(fd);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const holder = Number(readFileSync(lock, 'utf8'));
      if (isAlive(holder)) {
        throw new Error(
          `${folder} is in use by the host with pid ${holder}; give this one another --state`,
        );
      }
      rmSync(lock, { force: true });
    }
  }
  throw new Error(`${lock} cannot be taken`);
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0 || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
