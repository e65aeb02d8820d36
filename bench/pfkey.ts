import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

/**
 * ADD, GETSPI, GET and DELETE per second over the PF_KEY socket of a host that is a process of its
 * own, asked by a client that has nothing but octets and does not wait for an answer before it asks
 * again; and the memory of the host per idle SA.
 *
 *     npm run build && node dist/bench/pfkey.js --count 200000
 *
 * Prints a Markdown table. Half of the machine's work here is the client's.
 */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '200000' },
    rounds: { type: 'string', default: '3' },
  },
});
const COUNT = Number(values.count);
const ROUNDS = Number(values.rounds);

const [GETSPI, ADD, DELETE, GET, FLUSH] = [1, 3, 4, 5, 9];
const ESP = 3;
const SPI_FIRST = 0x1000;

function message(type: number, seq: number, ...parts: Buffer[]): Buffer {
  const head = Buffer.alloc(16);
  const all = Buffer.concat([head, ...parts]);
  all.set([2, type, 0, ESP]);
  all.writeUInt16LE(all.length / 8, 4);
  all.writeUInt32LE(seq, 8);
  all.writeUInt32LE(process.pid, 12);
  return all;
}

function extension(type: number, len: number): Buffer {
  const p = Buffer.alloc(len);
  p.writeUInt16LE(len / 8, 0);
  p.writeUInt16LE(type, 2);
  return p;
}

/** `sadb_sa` with a replay window of 64, AES-GCM with an ICV of 16 octets. */
function sa(spi: number): Buffer {
  const p = extension(1, 16);
  p.writeUInt32BE(spi, 4);
  p.set([64, 1, 0, 20], 8);
  return p;
}

/** `sadb_address` with a `sockaddr_in`; a gateway's peers are as many as its SAs. */
function address(type: number, number: number): Buffer {
  const p = extension(type, 24);
  p[5] = 32;
  p.writeUInt16LE(2, 8);
  p.writeUInt32BE(0x0a00_0000 + number, 12);
  return p;
}

function ends(i: number): Buffer[] {
  return [address(5, i + 2), address(6, 1)];
}

function key(i: number): Buffer {
  const p = extension(9, 32);
  p.writeUInt16LE(160, 4);
  for (let at = 8; at < 28; at++) p[at] = (at * 37 + i) & 255;
  return p;
}

const REQUESTS: Readonly<Record<string, (i: number) => Buffer>> = {
  ADD: (i) => message(ADD, i, sa(SPI_FIRST + i), ...ends(i), key(i)),
  GET: (i) => message(GET, i, sa(SPI_FIRST + i), ...ends(i)),
  DELETE: (i) => message(DELETE, i, sa(SPI_FIRST + i), ...ends(i)),
  GETSPI: (i) => message(GETSPI, i, ...ends(i)),
};

/** Sends all requests as fast as the socket takes them; seconds until the last answer is there. */
async function ask(socket: Socket, request: (i: number) => Buffer, count: number): Promise<number> {
  const chunks: Buffer[] = [];
  for (let at = 0; at < count; at += 500) {
    const some = Array.from({ length: Math.min(500, count - at) }, (_, i) => request(at + i));
    chunks.push(Buffer.concat(some));
  }
  const answers = countAnswers(socket, count);
  const began = performance.now();
  for (const chunk of chunks) if (!socket.write(chunk)) await once(socket, 'drain');
  await answers;
  return (performance.now() - began) / 1000;
}

/** Resolves when so many answers have come; rejects when one of them is an error. */
function countAnswers(socket: Socket, count: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let rest: Buffer = Buffer.alloc(0);
    let seen = 0;
    const arrived = (chunk: Buffer) => {
      const p = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
      let at = 0;
      while (p.length - at >= 16) {
        const len = 8 * p.readUInt16LE(at + 4);
        if (p.length - at < len) break;
        if (p[at + 2] !== 0) reject(new Error(`errno ${p[at + 2]} to message ${p[at + 1]}`));
        seen++;
        at += len;
      }
      rest = p.subarray(at);
      if (seen < count) return;
      socket.off('data', arrived);
      resolve();
    };
    socket.on('data', arrived);
  });
}

/** Seconds that the process has spent on a processor, in the kernel and out of it. */
function processorSeconds(child: ChildProcess): number {
  const stat = readFileSync(`/proc/${child.pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function residentKilobytes(child: ChildProcess): number {
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]);
}

async function startHost(folder: string): Promise<ChildProcess> {
  const main = fileURLToPath(new URL('../src/cli/testudo.js', import.meta.url));
  const args = ['up', '--user', '--listen', '127.0.0.1:0', '--address', '10.99.0.1'];
  const where = ['--socket', join(folder, 'pfkey'), '--state', join(folder, 'state')];
  const child = spawn(process.execPath, [main, ...args, ...where], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout!, 'data');
  return child;
}

const folder = mkdtempSync(join(tmpdir(), 'testudo-bench-'));
const host = await startHost(folder);
const socket = connect(join(folder, 'pfkey'));
await once(socket, 'connect');
const seconds: Record<string, number[]> = {};
const busy: Record<string, number[]> = {};
let bytesPerSa = 0;
await ask(socket, REQUESTS.ADD!, 1000);
await ask(socket, () => message(FLUSH, 0), 1);
for (let round = 0; round < ROUNDS; round++) {
  const before = residentKilobytes(host);
  for (const name of ['ADD', 'GET', 'DELETE', 'GETSPI']) {
    seconds[name] ??= [];
    busy[name] ??= [];
    const spent = processorSeconds(host);
    seconds[name].push(await ask(socket, REQUESTS[name]!, COUNT));
    busy[name].push(processorSeconds(host) - spent);
    if (name === 'ADD' && round === 0)
      bytesPerSa = ((residentKilobytes(host) - before) * 1024) / COUNT;
  }
  await ask(socket, () => message(FLUSH, 0), 1);
}
const median = (values: readonly number[]) =>
  [...values].sort((a, b) => a - b)[values.length >> 1]!;
console.log(`| request (${COUNT}, pipelined) | per second, median of ${ROUNDS} | spread | host |`);
console.log('|---|---|---|---|');
for (const [name, times] of Object.entries(seconds)) {
  const rates = times.map((one) => Math.round(COUNT / one));
  const microseconds = ((1e6 * median(busy[name]!)) / COUNT).toFixed(1);
  const spread = `${Math.min(...rates)}-${Math.max(...rates)}`;
  console.log(`| ${name} | ${median(rates)} | ${spread} | ${microseconds} µs of CPU each |`);
}
console.log(
  `\nResident memory of the host: ${Math.round(bytesPerSa)} octets per SA that was added.`,
);
socket.destroy();
host.kill('SIGTERM');
await once(host, 'exit');
rmSync(folder, { recursive: true });
