import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { socketPath } from '../daemon/paths.ts';
import { policyJson, policyLine, saJson, saLine } from '../setkey/print-entry.ts';
import { formatMessage, hexDump } from '../setkey/print-message.ts';
import type { PrintContext } from '../setkey/print-parts.ts';
import { formatPolicyEntry, isSocketPolicy } from '../setkey/print-policy.ts';
import { formatSa, formatSaShort, SHORT_HEADER } from '../setkey/print-sa.ts';
import { request } from '../setkey/requests.ts';
import { version } from '../version.ts';
import { extension, type Message } from '../wire/pfkey-message.ts';
import { SA_STATE } from '../wire/pfkey-table.ts';
import { PfkeyClient, tryDecode } from './setkey-client.ts';
import { parseOptions, type SetkeyOptions, USAGE } from './setkey-options.ts';
import { askReason } from './setkey-reason.ts';
import { askSupported, dumpAll, runScript, type SessionIo, sendOne } from './setkey-session.ts';

/** The process around setkey, so that tests can be one too. */
export interface SetkeyWorld {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly pid: number;
}

/** Runs setkey and returns its exit code. */
export async function runSetkey(argv: readonly string[], world: SetkeyWorld): Promise<number> {
  let options: SetkeyOptions;
  try {
    options = parseOptions(argv);
  } catch (error) {
    world.err(`setkey: ${(error as Error).message}\n${USAGE}`);
    return 1;
  }
  if (options.mode === 'usage') {
    world.err(USAGE);
    return 1;
  }
  if (options.mode === 'help') world.out(USAGE);
  if (options.mode === 'version') world.out(`setkey of Testudo ${version}\n`);
  if (options.mode === 'help' || options.mode === 'version') return 0;
  const path = options.socket ?? socketPath(world.environment);
  try {
    return await runConnected(options, path, world);
  } catch (error) {
    world.err(`setkey: ${(error as Error).message}\n`);
    return 1;
  }
}

async function runConnected(
  options: SetkeyOptions,
  path: string,
  world: SetkeyWorld,
): Promise<number> {
  const needsHost = options.mode !== 'script' || !options.dryRun;
  const observe = (direction: 'sent' | 'received', octets: Uint8Array) => {
    if (options.mode === 'monitor') return;
    if (options.hex && direction === 'sent') world.out(hexDump(octets));
    const message = options.verbose ? tryDecode(octets) : undefined;
    if (message) world.err(`${direction} ${formatMessage(message)}`);
  };
  const client = needsHost ? await PfkeyClient.connect(path, world.pid, observe) : undefined;
  try {
    if (!client || options.mode === 'script') return await scripts(options, client, path, world);
    if (options.mode === 'monitor') return await monitor(options, client, world);
    if (options.mode === 'dump') return await dump(options, client, path, world);
    const flush = options.policies ? 'X_SPDFLUSH' : 'FLUSH';
    const fine = await sendOne(
      client,
      request(flush, 'unspec', []),
      '',
      ioOf(options, path, world),
    );
    return fine ? 0 : 1;
  } finally {
    client?.close();
  }
}

/**
 * -c always ends with 0, as the real tool does: it is an interactive shell. A file ends with 1 when
 * anything in it was wrong or refused.
 */
async function scripts(
  options: SetkeyOptions,
  client: PfkeyClient | undefined,
  path: string,
  world: SetkeyWorld,
): Promise<number> {
  const io = ioOf(options, path, world);
  const supported = client && (await askSupported(client));
  const session = { forwardToo: options.forwardToo, client };
  if (options.stdin) {
    for await (const text of chunks(world)) {
      const outcome = await runScript(text, 'stdin', supported, { ...session, isFile: false }, io);
      if (outcome.exit) break;
    }
  }
  let failed = false;
  for (const file of options.files) {
    const text = readFileSync(file, 'utf8');
    const outcome = await runScript(text, file, supported, { ...session, isFile: true }, io);
    failed ||= outcome.failed;
  }
  return failed ? 1 : 0;
}

/** All of standard input; from a terminal, whatever ends with a semicolon. */
async function* chunks({ stdin, out }: SetkeyWorld): AsyncGenerator<string> {
  let text = '';
  if (!stdin.isTTY) {
    for await (const chunk of stdin.setEncoding('utf8')) text += chunk;
    yield text;
    return;
  }
  const lines = createInterface({ input: stdin, terminal: true, output: process.stdout });
  out('setkey> ');
  for await (const line of lines) {
    text += `${line}\n`;
    if (line.trimEnd().endsWith(';')) {
      yield text;
      text = '';
    }
    out('setkey> ');
  }
  if (text.trim() !== '') yield text;
}

async function dump(
  options: SetkeyOptions,
  client: PfkeyClient,
  path: string,
  world: SetkeyWorld,
): Promise<number> {
  if (options.loop && !options.policies) return await dumpForever(options, client, path, world);
  const io = ioOf(options, path, world);
  const json: Message[] = [];
  let hidden = 0;
  const each = (entry: Message) => {
    if (options.policies && options.hideSocketPolicies && isSocketPolicy(entry)) hidden++;
    else if (!options.policies && !options.all && isDead(entry)) return;
    else if (options.format === 'json') json.push(entry);
    else io.show(entry);
  };
  const message = request(options.policies ? 'X_SPDDUMP' : 'DUMP', 'unspec', []);
  const quiet = options.format === 'text' ? io : { ...io, out: () => {} };
  await dumpAll(client, message, '', quiet, each);
  if (options.format === 'json') {
    const entries = json.map((one) => (options.policies ? policyJson(one) : saJson(one)));
    world.out(`${JSON.stringify(entries, null, 2)}\n`);
  } else if (hidden > 0 && options.format === 'text') {
    world.out(`${hidden} per-socket policies not shown (filtered by -N)\n`);
  }
  return 0;
}

async function dumpForever(
  options: SetkeyOptions,
  client: PfkeyClient,
  path: string,
  world: SetkeyWorld,
): Promise<number> {
  const io = ioOf(options, path, world);
  world.out(SHORT_HEADER);
  for (;;) {
    await dumpAll(client, request('DUMP', 'unspec', []), '', io, (entry) => {
      if (options.all || !isDead(entry)) world.out(formatSaShort(entry, contextOf(options)));
    });
    await sleep(1000);
  }
}

async function monitor(
  options: SetkeyOptions,
  client: PfkeyClient,
  world: SetkeyWorld,
): Promise<number> {
  client.send(request('X_PROMISC', 'promisc', []));
  for await (const octets of client.messages()) {
    const message = tryDecode(octets);
    const seen = message?.wrapped ?? octets;
    const inner = message?.wrapped ? tryDecode(message.wrapped) : message;
    const now = Date.now();
    const clock = new Date(now).toTimeString().slice(0, 8);
    world.out(options.rawTime ? `${(now / 1000).toFixed(6)}\n` : `${clock}\n`);
    world.out(inner ? formatMessage(inner) : `${octets.length} octets that are no known message\n`);
    if (options.hex) world.out(hexDump(seen));
  }
  return 0;
}

function ioOf(options: SetkeyOptions, path: string, world: SetkeyWorld): SessionIo {
  return {
    out: world.out,
    err: world.err,
    reason: (seq) => askReason(path, world.pid, seq),
    show: (message) => world.out(entryText(message, options)),
  };
}

function entryText(message: Message, options: SetkeyOptions): string {
  const isPolicy = message.type.startsWith('X_SPD');
  if (options.format === 'json') {
    return `${JSON.stringify(isPolicy ? policyJson(message) : saJson(message))}\n`;
  }
  if (options.format === 'line') return isPolicy ? policyLine(message) : saLine(message);
  const context = contextOf(options);
  return isPolicy ? formatPolicyEntry(message, context) : formatSa(message, context);
}

function contextOf({ ports }: SetkeyOptions): PrintContext {
  return { now: Math.floor(Date.now() / 1000), time: localTime, ports };
}

/** ctime(3) without the weekday: `Nov 23 20:10:44 2026`. */
function localTime(seconds: number): string {
  const [, month, day, year, clock] = new Date(seconds * 1000).toString().split(' ');
  return `${month} ${day?.replace(/^0/, ' ')} ${clock} ${year}`;
}

function isDead(entry: Message): boolean {
  return extension(entry, 'SA')?.state === SA_STATE.dead;
}
