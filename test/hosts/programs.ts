import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Lab } from './namespaces.ts';

/** Runs the programs of `traffic.ts` in namespaces. */
const TRAFFIC = fileURLToPath(new URL('../../dist/test/hosts/traffic.js', import.meta.url));

/** What all traffic carries, also that of ping: see `PATTERN`. */
export const MARKER = 'TESTUDO-CLEARTXT';
/** For ping's -p. */
export const PATTERN = Buffer.from(MARKER, 'latin1').toString('hex');

export interface Served {
  readonly child: ChildProcess;
  /** JSON objects that it has printed. */
  readonly lines: Record<string, unknown>[];
}

/** Starts a program and waits until it is ready. */
export async function serve(lab: Lab, space: string, ...args: readonly string[]): Promise<Served> {
  const child = lab.spawn(space, process.execPath, [TRAFFIC, ...args]);
  const lines: Record<string, unknown>[] = [];
  let text = '';
  let ready: () => void = () => {};
  const isReady = new Promise<void>((resolve, reject) => {
    ready = resolve;
    child.once('close', () => reject(new Error(`${args.join(' ')}: ended: ${text}`)));
  });
  // After it was ready, nobody waits for the end.
  isReady.catch(() => {});
  child.stdout!.on('data', (chunk) => {
    text += chunk;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      const line = text.slice(0, end);
      text = text.slice(end + 1);
      if (line === 'ready') ready();
      else lines.push(JSON.parse(line));
    }
  });
  child.stderr!.on('data', (chunk) => {
    text += chunk;
  });
  await isReady;
  return { child, lines };
}

/** Waits until it has printed an object more, and returns that; rejects if it ends before. */
export async function nextLine({ child, lines }: Served): Promise<Record<string, unknown>> {
  const count = lines.length;
  while (lines.length === count) {
    if (child.exitCode !== null) throw new Error('it has ended without a word');
    await Promise.race([once(child.stdout!, 'data'), once(child, 'close')]);
  }
  return lines[count]!;
}

export async function stop({ child }: Served): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'close');
  child.kill('SIGKILL');
  await ended;
}

/** Runs a program to its end, and returns the object that it prints. */
export async function client(lab: Lab, space: string, ...args: readonly string[]) {
  const { stdout, stderr } = await lab.run(space, process.execPath, [TRAFFIC, ...args]);
  if (stdout === '') throw new Error(`${args.join(' ')}: ${stderr}`);
  return JSON.parse(stdout);
}

export interface TcpResult {
  readonly sent: string;
  readonly received: string;
  readonly octets: number;
  readonly megabits: number;
}

/** Sends octets by TCP; both hashes are SHA-256. */
export async function tcp(
  lab: Lab,
  from: string,
  to: string,
  address: string,
  octets: number,
): Promise<TcpResult> {
  const server = await serve(lab, to, 'tcp-sink', '5001');
  try {
    const result = await client(lab, from, 'tcp-source', address, '5001', String(octets));
    if (result.error) throw new Error(`TCP to ${address}: ${result.error}`);
    const { sha256, megabits, answer } = result;
    return { sent: sha256, received: answer.sha256, octets: answer.octets, megabits };
  } finally {
    await stop(server);
  }
}

/** Sends `count` datagrams, of the sizes in turn, and waits for the answer to each. */
export async function udp(
  lab: Lab,
  from: string,
  to: string,
  address: string,
  count: number,
  sizes: readonly number[],
): Promise<{ received: number; wrong: number; sent: number; lost: number }> {
  const server = await serve(lab, to, 'udp-sink', '5002', String(count));
  try {
    const args = ['udp-source', address, '5002', String(count), sizes.join(',')];
    const { sent, lost } = await client(lab, from, ...args);
    const [line] = server.lines;
    return { sent, lost, received: Number(line?.received), wrong: Number(line?.wrong) };
  } finally {
    await stop(server);
  }
}
