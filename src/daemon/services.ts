import { formatAddress, parseAddress } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import type { Inet } from '../inet/inet.ts';
import type { ControlArgs, ControlServer, ControlStream } from './control-server.ts';

/** RFC 862. */
const ECHO_PORT = 7;
const DATAGRAM_MAX = 65_000;
const COUNT_MAX = 1_000_000;
/** Datagrams under way at a time, so that socket buffers hold them. */
const WINDOW = 32;

/**
 * The services of inetd that a host in user space offers to its peers: echo, and an end for what is
 * to be thrown away.
 */
export function startServices(inet: Inet, names: readonly string[]): void {
  for (const name of names) {
    if (name !== 'echo') throw new Error(`there is no service "${name}"; there is echo`);
    const socket = inet.openUdp(ECHO_PORT, (data, from, port) => socket.send(data, from, port));
  }
}

/** One answer of `ping`. */
export interface PingLine {
  readonly seq: number;
  readonly octets: number;
  readonly from: string;
  readonly hopLimit: number;
  readonly milliseconds: number;
}

export interface PingResult {
  readonly sent: number;
  readonly received: number;
}

export interface EchoResult extends PingResult {
  readonly octets: number;
  readonly corrupted: number;
  readonly milliseconds: number;
}

/** Commands that use the sockets of a host in user space. */
export function addInetCommands(control: ControlServer, inet: Inet): void {
  control.command('ping', (args, stream) => ping(inet, args, stream));
  control.command('udp-echo', (args) => udpEcho(inet, args));
}

async function ping(inet: Inet, args: ControlArgs, stream: ControlStream): Promise<PingResult> {
  const to = addressArg(args);
  const count = numberArg(args, 'count', 1, COUNT_MAX, 4);
  const size = numberArg(args, 'size', 0, DATAGRAM_MAX, 56);
  const intervalMs = numberArg(args, 'intervalMs', 1, 60_000, 1000);
  const timeoutMs = numberArg(args, 'timeoutMs', 1, 60_000, 1000);
  const sentAt = new Map<number, number>();
  let received = 0;
  let done: () => void = () => {};
  const socket = inet.openEcho((seq, data, from, hopLimit) => {
    const at = sentAt.get(seq);
    if (at === undefined) return;
    sentAt.delete(seq);
    received++;
    const milliseconds = performance.now() - at;
    const line: PingLine = {
      seq,
      octets: data.length,
      from: formatAddress(from),
      hopLimit,
      milliseconds,
    };
    stream.send(line);
    if (received === count) done();
  });
  try {
    for (let i = 1; i <= count && !stream.signal.aborted; i++) {
      const all = new Promise<void>((resolve) => {
        done = resolve;
      });
      sentAt.set(i & 0xffff, performance.now());
      socket.send(i & 0xffff, pattern(size, i), to);
      await Promise.race([all, sleep(i === count ? timeoutMs : intervalMs, stream.signal)]);
    }
  } finally {
    socket.close();
  }
  return { sent: count, received };
}

/**
 * Sends numbered datagrams to the echo service of a peer and compares what comes back octet for
 * octet.
 */
async function udpEcho(inet: Inet, args: ControlArgs): Promise<EchoResult> {
  const to = addressArg(args);
  const count = numberArg(args, 'count', 1, COUNT_MAX, 1000);
  const size = numberArg(args, 'size', 4, DATAGRAM_MAX, 1024);
  const timeoutMs = numberArg(args, 'timeoutMs', 1, 60_000, 1000);
  let received = 0;
  let corrupted = 0;
  let wake: () => void = () => {};
  const socket = inet.openUdp(0, (data) => {
    const number = new DataView(data.buffer, data.byteOffset, data.byteLength).getUint32(0);
    if (!isSame(data, pattern(size, number))) corrupted++;
    received++;
    wake();
  });
  const began = performance.now();
  let sent = 0;
  try {
    while (received < count) {
      while (sent < count && sent - received < WINDOW) {
        sent++;
        socket.send(pattern(size, sent), to, ECHO_PORT);
      }
      const before = received;
      const more = new Promise<void>((resolve) => {
        wake = resolve;
      });
      await Promise.race([more, sleep(timeoutMs, undefined)]);
      // What is lost stays lost: UDP.
      if (received === before) break;
    }
  } finally {
    socket.close();
  }
  const milliseconds = performance.now() - began;
  return { sent, received, corrupted, octets: received * size, milliseconds };
}

/** Octets that tell which datagram they are, and have no two the same. */
function pattern(size: number, number: number): Uint8Array {
  const octets = new Uint8Array(size);
  for (let i = 0; i < size; i++) octets[i] = (i + number) & 255;
  if (size >= 4) new DataView(octets.buffer).setUint32(0, number);
  return octets;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((octet, i) => octet === b[i]);
}

function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

function addressArg(args: ControlArgs): NonNullable<ReturnType<typeof parseAddress>> {
  const parsed = typeof args.to === 'string' ? parseAddress(args.to) : undefined;
  if (!parsed)
    throw new KeyError(
      'EINVAL',
      `"to" must be an IPv4 or IPv6 address, not ${JSON.stringify(args.to)}`,
    );
  return parsed;
}

function numberArg(
  args: ControlArgs,
  name: string,
  min: number,
  max: number,
  usual: number,
): number {
  const value = args[name] ?? usual;
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max)
    return value;
  throw new KeyError('EINVAL', `"${name}" must be a whole number from ${min} to ${max}`);
}
