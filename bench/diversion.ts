import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { parseArgs } from 'node:util';
import { DaemonHost } from '../test/hosts/daemon-host.ts';
import { announceSkip, Lab, whyNoHosts } from '../test/hosts/namespaces.ts';
import { table } from './markdown.ts';
import { quantile } from './numbers.ts';

/**
 * What it costs that the machine follows the policies before a request is answered: X_SPDADD on a
 * host that is attached to a network namespace by TUN devices, one after the other and pipelined;
 * with few policies there and with many. Needs root.
 *
 *     node dist/bench/diversion.js [--count 100000] [--singles 500]
 *
 * Prints a Markdown table. Half of the machine's work here is the client's.
 */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '100000' },
    singles: { type: 'string', default: '500' },
  },
});
const COUNT = Number(values.count);
const SINGLES = Number(values.singles);

const [X_SPDADD, X_SPDDELETE, X_SPDFLUSH] = [14, 15, 19];
const [IN, OUT] = [1, 2];
const [AF_INET, AF_INET6] = [2, 10];

function extension(type: number, len: number): Buffer {
  const p = Buffer.alloc(len);
  p.writeUInt16LE(len / 8, 0);
  p.writeUInt16LE(type, 2);
  return p;
}

/** `sadb_address` of a host: number `i` of a network that no other part uses. */
function address(type: number, family: number, network: number, i: number): Buffer {
  const p = extension(type, family === AF_INET ? 24 : 40);
  p[5] = family === AF_INET ? 32 : 128;
  p[4] = 255;
  p.writeUInt16LE(family, 8);
  if (family === AF_INET) p.writeUInt32BE(((network << 24) | i) >>> 0, 12);
  else {
    p.set([0xfd, network], 16);
    p.writeUInt32BE(i, 28);
  }
  return p;
}

/** `sadb_x_policy` with one `sadb_x_ipsecrequest` as Linux has it: ESP, transport, require. */
function policy(direction: number): Buffer {
  const p = extension(18, 32);
  p.writeUInt16LE(2, 4);
  p[6] = direction;
  p.writeUInt16LE(16, 16);
  p.writeUInt16LE(50, 18);
  p.set([1, 2], 20);
  return p;
}

interface Batch {
  readonly type: number;
  readonly direction: number;
  readonly family: number;
  readonly first: number;
  readonly count: number;
}

function request({ type, direction, family }: Batch, i: number): Buffer {
  const [here, there] = [address(direction === OUT ? 5 : 6, family, 11, 1), direction === OUT];
  const peer = address(there ? 6 : 5, family, 12, i);
  const parts = type === X_SPDFLUSH ? [] : [here, peer, policy(direction)];
  const whole = Buffer.concat([Buffer.alloc(16), ...parts]);
  whole.set([2, type]);
  whole.writeUInt16LE(whole.length / 8, 4);
  whole.writeUInt32LE(i, 8);
  whole.writeUInt32LE(process.pid, 12);
  return whole;
}

/** Counts answers on a socket, and knows which was an error. */
class Answers {
  #rest: Buffer = Buffer.alloc(0);
  #seen = 0;
  #errno = 0;
  #wake: () => void = () => undefined;

  constructor(socket: Socket) {
    socket.on('data', (chunk) => this.#arrived(chunk));
  }

  async until(count: number): Promise<void> {
    while (this.#seen < count) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      if (this.#errno !== 0) throw new Error(`a request ended with error ${this.#errno}`);
    }
    this.#seen = 0;
  }

  #arrived(chunk: Buffer): void {
    const p = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    let at = 0;
    while (p.length - at >= 16) {
      const len = 8 * p.readUInt16LE(at + 4);
      if (p.length - at < len) break;
      this.#errno ||= p[at + 2]!;
      this.#seen++;
      at += len;
    }
    this.#rest = p.subarray(at);
    this.#wake();
  }
}

/** Milliseconds of each request, sent when the one before is answered. */
async function oneByOne(socket: Socket, answers: Answers, batch: Batch): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < batch.count; i++) {
    const octets = request(batch, batch.first + i);
    const began = performance.now();
    socket.write(octets);
    await answers.until(1);
    times.push(performance.now() - began);
  }
  return times;
}

/** Seconds for all of them, sent as fast as the socket takes them. */
async function pipelined(socket: Socket, answers: Answers, batch: Batch): Promise<number> {
  const all = Array.from({ length: batch.count }, (_, i) => request(batch, batch.first + i));
  const began = performance.now();
  for (let at = 0; at < all.length; at += 500) {
    if (!socket.write(Buffer.concat(all.slice(at, at + 500)))) await once(socket, 'drain');
  }
  await answers.until(batch.count);
  return (performance.now() - began) / 1000;
}

/** Seconds that a process has spent on a processor, in the kernel and out of it. */
function processorSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function measure(socket: Socket, pid: number): Promise<void> {
  const answers = new Answers(socket);
  const rows: string[][] = [];
  const busyFrom = (before: number, count: number) =>
    `${((1000 * (processorSeconds(pid) - before)) / count).toFixed(3)} ms`;
  const single = async (what: string, batch: Omit<Batch, 'count'>) => {
    const before = processorSeconds(pid);
    const times = await oneByOne(socket, answers, { ...batch, count: SINGLES });
    const [median, most] = [quantile(times, 0.5), quantile(times, 0.99)];
    const busy = busyFrom(before, SINGLES);
    rows.push([what, `${median.toFixed(3)} ms`, `${most.toFixed(3)} ms`, busy]);
  };
  const many = async (what: string, batch: Omit<Batch, 'count'>) => {
    const before = processorSeconds(pid);
    const seconds = await pipelined(socket, answers, { ...batch, count: COUNT });
    const each = `${((seconds * 1000) / COUNT).toFixed(3)} ms`;
    rows.push([what, each, `${seconds.toFixed(2)} s all`, busyFrom(before, COUNT)]);
  };
  const v4 = { family: AF_INET, direction: OUT, first: 0 };
  const v6 = { ...v4, family: AF_INET6 };
  const far = 1 << 22;
  await single('warming up', { ...v4, type: X_SPDADD, first: 2 * far });
  rows.pop();
  await single('add, out, IPv4, few there', { ...v4, type: X_SPDADD, first: far });
  await single('add, out, IPv6, few there', { ...v6, type: X_SPDADD, first: far });
  await single('delete, out, IPv4, few there', { ...v4, type: X_SPDDELETE, first: far });
  await single('add, in, IPv4', { ...v4, type: X_SPDADD, direction: IN, first: far });
  await many('add, out, IPv4, pipelined', { ...v4, type: X_SPDADD });
  await single('add, out, IPv4, many there', { ...v4, type: X_SPDADD, first: far });
  await many('add, out, IPv6, pipelined', { ...v6, type: X_SPDADD });
  await many('add, in, IPv4, pipelined', { ...v4, type: X_SPDADD, direction: IN });
  await many('delete, out, IPv4, pipelined', { ...v4, type: X_SPDDELETE });
  const flush = { ...v4, type: X_SPDFLUSH, count: 1 };
  const seconds = await pipelined(socket, answers, flush);
  rows.push(['flush of all that is left', '', `${seconds.toFixed(2)} s all`, '']);
  process.stdout.write(
    `${table(['request', 'median or mean', '99 % or all', 'processor, host'], rows)}\n`,
  );
}

const why = whyNoHosts();
if (announceSkip('diversion.ts', why)) process.exit(1);
const lab = new Lab();
try {
  const space = lab.space('a');
  lab.wire(
    { space, device: 'w0', addresses: ['11.0.0.1/24', '10.9.0.1/24', 'fd0b::1/64'] },
    { space: lab.space('b'), device: 'w0', addresses: ['10.9.0.2/24', 'fd0b::2/64'] },
  );
  lab.sh(space, 'ip route add default via 10.9.0.2; ip -6 route add default via fd0b::2');
  const host = await DaemonHost.start(lab, space, '');
  const socket = connect(host.socket);
  await once(socket, 'connect');
  await measure(socket, host.pid);
  socket.destroy();
  const began = performance.now();
  await host.stop();
  process.stdout.write(`\nStopped in ${((performance.now() - began) / 1000).toFixed(2)} s.\n`);
} finally {
  lab.close();
}
