import { Command } from 'commander';
import { formatAddress } from '../base/address.ts';
import { errnoName } from '../base/errno.ts';
import { formatMessage } from '../setkey/print-message.ts';
import { request } from '../setkey/requests.ts';
import { toHex } from '../wire/bytes.ts';
import { type Extension, extension, type Message } from '../wire/pfkey-message.ts';
import { socketOption } from './options.ts';
import { PfkeyClient, tryDecode } from './setkey-client.ts';

export interface MonitorOptions {
  readonly json?: boolean;
  /** Asks for the keys of SAs that are added or changed, and shows them. */
  readonly keys?: boolean;
}

export interface MonitorWorld {
  readonly out: (text: string) => void;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly pid: number;
  /** Ends the monitor. */
  readonly signal: AbortSignal;
}

export function monitorCommand(): Command {
  return new Command('monitor')
    .description('every PF_KEY message between the host and programs, as it happens')
    .addOption(socketOption())
    .option('--json', 'one JSON object per line')
    .option('--keys', 'also the keys of SAs that are added or changed')
    .action(async ({ socket, ...options }: MonitorOptions & { readonly socket: string }) => {
      const stop = new AbortController();
      process.once('SIGINT', () => stop.abort());
      process.once('SIGTERM', () => stop.abort());
      // Whoever read it, such as head(1), has had enough.
      process.stdout.on('error', () => stop.abort());
      await monitor(socket, options, {
        out: (text) => void process.stdout.write(text),
        now: () => Date.now(),
        pid: process.pid,
        signal: stop.signal,
      });
    });
}

/**
 * Shows what the host sends to any program, each message once, through X_PROMISC of its socket.
 * Resolves when it is told to stop; rejects with Error when there is no host, or no longer.
 */
export async function monitor(
  socket: string,
  options: MonitorOptions,
  world: MonitorWorld,
): Promise<void> {
  const client = await PfkeyClient.connect(socket, world.pid, () => undefined);
  const stopped = new Promise<'stopped'>((resolve) => {
    if (world.signal.aborted) resolve('stopped');
    world.signal.addEventListener('abort', () => resolve('stopped'));
  });
  try {
    await client.request(request('X_PROMISC', 'promisc', []));
    await Promise.race([stopped, show(client, options, world)]);
  } finally {
    client.close();
  }
}

async function show(
  client: PfkeyClient,
  options: MonitorOptions,
  world: MonitorWorld,
): Promise<void> {
  const print = (message: Message) => {
    const shown = options.keys ? message : withoutKeys(message);
    world.out(options.json ? jsonLine(shown, world.now()) : text(shown, world.now()));
  };
  for await (const octets of client.messages()) {
    const outer = tryDecode(octets);
    const message = outer?.wrapped ? tryDecode(outer.wrapped) : undefined;
    if (message) {
      // Not what it has asked for itself.
      if (message.pid === world.pid) continue;
      print(message);
      if (options.keys) askForKeys(client, message);
    } else if (outer?.type === 'GET' && outer.pid === world.pid && outer.errno === 0) {
      print(outer);
    }
    // The others are what every program is told, and come as copies, too.
  }
}

/** Copies have no keys: they go to who asks for an SA, and to nobody else. */
function askForKeys(client: PfkeyClient, { type, satype, errno, extensions }: Message): void {
  if ((type !== 'ADD' && type !== 'UPDATE') || errno !== 0) return;
  const which = ['SA', 'ADDRESS_SRC', 'ADDRESS_DST'];
  client.send(
    request(
      'GET',
      satype,
      extensions.filter((one) => which.includes(one.type)),
    ),
  );
}

function withoutKeys(message: Message): Message {
  const extensions = message.extensions.filter((one) => !isKey(one));
  return { ...message, extensions };
}

function isKey({ type }: Extension): boolean {
  return type === 'KEY_AUTH' || type === 'KEY_ENCRYPT';
}

/** As `setkey -x`, and the keys. */
function text(message: Message, nowMs: number): string {
  const clock = new Date(nowMs).toTimeString().slice(0, 8);
  const keys = (['KEY_ENCRYPT', 'KEY_AUTH'] as const).flatMap((type) => {
    const found = extension(message, type);
    return found ? [`\t${type} 0x${toHex(found.key)}\n`] : [];
  });
  return `${clock}\n${formatMessage(message)}${keys.join('')}`;
}

function jsonLine(message: Message, nowMs: number): string {
  const { type, satype, errno, seq, pid, extensions } = message;
  const name = errno === 0 ? null : (errnoName(errno) ?? errno);
  const time = new Date(nowMs).toISOString();
  return `${JSON.stringify({ time, type, satype, errno: name, seq, pid, extensions }, plain)}\n`;
}

/** Addresses as people write them, octets in hexadecimal. */
function plain(_: string, value: unknown): unknown {
  if (value instanceof Uint8Array) return toHex(value);
  if (typeof value !== 'object' || value === null || !('family' in value)) return value;
  const { family, bytes } = value as { family: 4 | 6; bytes: unknown };
  return bytes instanceof Uint8Array ? formatAddress({ family, bytes }) : value;
}
