import { spawn } from 'node:child_process';
import { DUMP, message } from './pfkey-octets.ts';

/**
 * Reads a dump in pieces of 4 kB and sleeps after each: argv is the socket, the request and the
 * milliseconds. Prints how many entries came, how many SPIs, and whether they were counted down.
 */
const READER = `
const [path, request, ms] = process.argv.slice(1);
const socket = require('net').connect({ path, onread: { buffer: Buffer.alloc(4096), callback } });
const spis = new Set();
let rest = Buffer.alloc(0), seen = 0, next = -1, ordered = true;
function callback(size, chunk) {
  rest = Buffer.concat([rest, chunk.subarray(0, size)]);
  let at = 0;
  while (rest.length - at >= 16 && rest.length - at >= 8 * rest.readUInt16LE(at + 4)) {
    const seq = rest.readUInt32LE(at + 8);
    if (next >= 0 && seq !== next) ordered = false;
    next = seq - 1;
    seen++;
    spis.add(rest.readUInt32BE(at + 20));
    at += 8 * rest.readUInt16LE(at + 4);
    if (seq !== 0) continue;
    console.log(JSON.stringify({ seen, distinct: spis.size, ordered }));
    process.exit();
  }
  rest = Buffer.from(rest.subarray(at));
  socket.pause();
  setTimeout(() => socket.resume(), Number(ms));
  return true;
}
socket.write(Buffer.from(request, 'hex'));
`;

export interface Dumped {
  readonly seen: number;
  readonly distinct: number;
  readonly ordered: boolean;
}

/** DUMPs all SAs of a PF_KEY socket to such a reader, in a process of its own. */
export async function dumpSlowly(path: string, sleepMs: number): Promise<Dumped> {
  const args = ['-e', READER, path, message(DUMP, 1).toString('hex'), String(sleepMs)];
  const reader = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  for await (const chunk of reader.stdout) said += String(chunk);
  return JSON.parse(said) as Dumped;
}
