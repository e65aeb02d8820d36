import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ADD, DELETE, FLUSH, GET, GETSPI, message, request } from './pfkey-octets.ts';

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

const REQUESTS = { ADD, GET, DELETE, GETSPI } as const;

/** Sends all requests as fast as the socket takes them; seconds until the last answer is there. */
async function ask(socket: Socket, type: number, count: number): Promise<number> {
  const make = (i: number) => (type === FLUSH ? message(FLUSH, 0) : request(type, i));
  const chunks: Buffer[] = [];
  for (let at = 0; at < count; at += 500) {
    const some = Array.from({ length: Math.min(500, count - at) }, (_, i) => make(at + i));
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
await ask(socket, ADD, 1000);
await ask(socket, FLUSH, 1);
for (let round = 0; round < ROUNDS; round++) {
  const before = residentKilobytes(host);
  for (const [name, type] of Object.entries(REQUESTS)) {
    seconds[name] ??= [];
    busy[name] ??= [];
    const spent = processorSeconds(host);
    seconds[name].push(await ask(socket, type, COUNT));
    busy[name].push(processorSeconds(host) - spent);
    if (name === 'ADD' && round === 0)
      bytesPerSa = ((residentKilobytes(host) - before) * 1024) / COUNT;
  }
  await ask(socket, FLUSH, 1);
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
