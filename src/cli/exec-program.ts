import { accessSync, closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** As execvp(3) finds it. Throws an Error when there is no such program. */
export function findProgram(name: string, searchPath: string): string {
  const places = name.includes('/')
    ? [name]
    : searchPath.split(delimiter).map((folder) => join(folder || '.', name));
  const found = places.find((place) => isProgram(place));
  if (found === undefined) throw new Error(`there is no program "${name}"`);
  return found;
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

const HEAD_LEN = 4096;
const ELF_MAGIC = 0x7f45_4c46;
const SETUID = 0o4000;
const SETGID = 0o2000;
const PT_INTERP = 3;

/**
 * Why the dynamic linker would not load our library into a program, as a sentence, or undefined if
 * it will. A script says whose program it is; that one is looked at.
 */
export function whyNotPreloadable(path: string): string | undefined {
  const { mode, uid, gid } = statSync(path);
  const changesUser = (mode & SETUID) !== 0 && uid !== process.getuid?.();
  const changesGroup = (mode & SETGID) !== 0 && gid !== process.getgid?.();
  if (changesUser || changesGroup) {
    return 'it is set-user-ID or set-group-ID, and the dynamic linker preloads nothing into those';
  }
  const head = readHead(path);
  if (head.length >= 4 && head.readUInt32BE(0) === ELF_MAGIC) return whyNotElf(head);
  const script = /^#!\s*(\S+)/.exec(head.toString('latin1'))?.[1];
  if (script === undefined) return undefined;
  const next = isProgram(script) ? readHead(script) : Buffer.alloc(0);
  const isElf = next.length >= 4 && next.readUInt32BE(0) === ELF_MAGIC;
  const why = isElf ? whyNotElf(next) : undefined;
  return why && `${script}: ${why}`;
}

/**
 *     0 magic   4 class: 2 is 64 bits   5 data: 1 is little-endian
 *     32 where the program headers are   54 length of each   56 how many; each begins with its type
 */
function whyNotElf(head: Buffer): string | undefined {
  const is64 = process.arch !== 'arm' && process.arch !== 'ia32';
  if (head.length < 64 || head[4] !== (is64 ? 2 : 1)) {
    return 'it is built for another word size than Node.js and the preload library';
  }
  if (!is64 || head[5] !== 1) return undefined;
  const at = Number(head.readBigUInt64LE(32));
  const len = head.readUInt16LE(54);
  const count = head.readUInt16LE(56);
  for (let i = 0; i < count && at + i * len + 4 <= head.length; i++) {
    if (head.readUInt32LE(at + i * len) === PT_INTERP) return undefined;
  }
  return 'it is linked statically, so nothing can be preloaded into it';
}

function readHead(path: string): Buffer {
  const head = Buffer.alloc(HEAD_LEN);
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    // It may be run without being read.
    return head.subarray(0, 0);
  }
  try {
    return head.subarray(0, readSync(fd, head));
  } finally {
    closeSync(fd);
  }
}
