import { chmodSync, closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import type { Address } from '../base/address.ts';
import type { LogLevel } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import type { Link } from '../drivers/link.ts';
import { searchLoops } from '../drivers/native/search-loops.ts';
import { type CryptoChoice, chooseCrypto } from '../drivers/native/tier.ts';
import { pcapLink } from '../drivers/pcap-link.ts';
import type { Endpoint } from '../drivers/udp-packet.ts';
import type { Settings } from '../engine/settings.ts';
import { defaultSettings } from '../engine/settings.ts';
import { version } from '../version.ts';
import type { HostAttachment } from './attach.ts';
import { attachTun, type TunOptions } from './attach-tun.ts';
import { attachUser, type UserAttachment } from './attach-user.ts';
import { applyConfig, ConfigError, type NameResolver, readConfig } from './config.ts';
import { ControlServer } from './control-server.ts';
import { Daemon } from './daemon.ts';
import { addExecCommand } from './exec-command.ts';
import { addExplainCommand } from './explain-command.ts';
import { openStateFolder } from './host-files.ts';
import { addNetstatCommand } from './netstat-command.ts';
import { startPfkeyServer } from './pfkey-server.ts';
import { addInetCommands, startServices } from './services.ts';
import { startThreads, type Threads } from './shards/threads.ts';
import { statusOf } from './status.ts';
import { addSysctlCommand, setVariable } from './sysctl-command.ts';
import { systemEnv } from './system-env.ts';
import { addTraceCommand, parseFilter, startTrace, traceText } from './trace-command.ts';
import { wiresharkTable } from './wireshark.ts';

export interface RunOptions {
  readonly file?: string;
  readonly socket: string;
  readonly controlSocket: string;
  readonly stateFolder: string;
  readonly resolve: NameResolver;
  readonly settings: Partial<Settings>;
  readonly defPolicy: 'discard' | 'none';
  /** Variables to begin with, as `name=value`. */
  readonly variables?: readonly string[];
  /** Packets to be explained on standard error, as `trace-command.ts` reads it. */
  readonly trace?: string;
  readonly tracePerSecond?: number;
  readonly allowLegacy: boolean;
  readonly crypto: CryptoChoice;
  readonly logLevel: LogLevel;
  /** Capture file of the wire. */
  readonly pcap?: string;
  /** Where Wireshark's table of keys is written, at every change. */
  readonly keyTable?: string;
  readonly attach: UserAttach | { readonly kind: 'tun'; readonly options: TunOptions };
  /** Called when packets flow and programs can connect. */
  readonly ready: (socket: string) => void;
}

export interface UserAttach {
  readonly kind: 'user';
  readonly addresses: readonly Address[];
  readonly endpoints: readonly Endpoint[];
  readonly services: readonly string[];
}

/** Things to undo at the end, the last one first. */
type Undo = (() => void | Promise<void>)[];

/**
 * Runs a host until SIGTERM, SIGINT or `testudo down`: reads the file and looks up its names, opens
 * the sockets for programs, applies the file, and only then touches the machine. Rejects, with
 * everything undone, when any of it fails.
 */
export async function runHost(options: RunOptions): Promise<void> {
  const env = systemEnv(options.logLevel);
  const control = new ControlServer(env.log);
  // The last to be undone: who waits for the end of a host waits for the end of this socket.
  const undo: Undo = [() => control.close()];
  try {
    const config =
      options.file === undefined ? undefined : await readConfig(options.file, options.resolve);
    const state = await openStateFolder(options.stateFolder, env);
    undo.push(() => state.close());
    const settings = { ...options.settings, ...defaultPolicy(options.defPolicy) };
    const { allowLegacy } = options;
    const crypto = chooseCrypto(options.crypto);
    const { sequences } = state;
    const search = searchLoops();
    const daemon = new Daemon({ env, settings, allowLegacy, crypto, search, sequences });
    undo.push(() => daemon.ended);
    undo.push(() => daemon.close());
    for (const assignment of options.variables ?? []) setVariable(daemon, assignment);
    const { stopped } = await openSockets(daemon, control, options, undo);
    if (config) applyConfig(daemon.keys, config);
    if (options.trace !== undefined) parseFilter(options.trace);
    await attachHost(daemon, options, undo);
    traceToStderr(daemon, options);
    if (options.keyTable !== undefined) keepKeyTable(daemon, options.keyTable, undo);
    handleHangup(daemon, options, undo);
    options.ready(options.socket);
    await stopped;
  } finally {
    await undoAll(undo);
  }
}

/** All of it even if a step fails, then throws what failed. */
async function undoAll(undo: Undo): Promise<void> {
  const errors: unknown[] = [];
  for (const step of undo.reverse()) {
    try {
      await step();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}

function defaultPolicy(defPolicy: 'discard' | 'none'): Pick<Settings, 'inet' | 'inet6'> {
  const { inet, inet6 } = defaultSettings();
  return { inet: { ...inet, defPolicy }, inet6: { ...inet6, defPolicy } };
}

/** PF_KEY and control sockets. `stopped` ends when the host is told to stop. */
async function openSockets(
  daemon: Daemon,
  control: ControlServer,
  options: RunOptions,
  undo: Undo,
): Promise<{ readonly stopped: Promise<void> }> {
  const { log } = daemon.env;
  const startedMs = daemon.env.clock.monotonicMs();
  let stop: () => void = () => {};
  const stopped = new Promise<void>((resolve) => {
    stop = resolve;
  });
  const server = await startPfkeyServer({ engine: daemon.keys, path: options.socket, log });
  undo.push(() => server.close());
  control.command('status', () => {
    if (!daemon.isAttached) throw new KeyError('EAGAIN', 'the host is starting or stopping');
    return statusOf(daemon, version, startedMs);
  });
  control.command('reason', ({ pid, seq }) => daemon.keys.reasonFor(Number(pid), Number(seq)));
  addNetstatCommand(control, daemon);
  addSysctlCommand(control, daemon);
  addExplainCommand(control, daemon);
  addTraceCommand(control, daemon);
  control.command('stop', () => setImmediate(stop) && undefined);
  undo.push(addExecCommand(control, daemon));
  await control.listen(options.controlSocket);
  // Until the very end: a second signal must not end the process half undone.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, stop);
  undo.unshift(() => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.removeListener(signal, stop);
  });
  daemon.control = control;
  // In an object, since a promise that is returned would be waited for.
  return { stopped };
}

async function attachHost(daemon: Daemon, options: RunOptions, undo: Undo): Promise<void> {
  const { attach } = options;
  if (attach.kind === 'tun') {
    const attachment = withCapture(attachTun(attach.options), options, daemon, undo);
    daemon.attach(attachment, await startWorkers(daemon, attachment, attach.options, options));
    return;
  }
  const attachment = await attachUser(attach.addresses, attach.endpoints);
  daemon.settings.encapsulationPorts = attachment.endpoints.map(({ port }) => port);
  startServices(attachment.inet, attach.services);
  daemon.attach(withCapture<UserAttachment>(attachment, options, daemon, undo));
  addInetCommands(daemon.control!, attachment.inet);
}

/** None where one thread does everything. */
async function startWorkers(
  daemon: Daemon,
  attachment: HostAttachment,
  links: TunOptions,
  { logLevel }: RunOptions,
): Promise<Threads | undefined> {
  const { workers: count = 1 } = links;
  if (count === 1) return undefined;
  const died = (why: string) => {
    daemon.env.log('error', why);
    // Half a host is none: what is diverted stays blocked.
    setImmediate(() => {
      throw new Error(why);
    });
  };
  try {
    return await startThreads({ count, links, crypto: daemon.crypto.name, logLevel, died });
  } catch (error) {
    attachment.close();
    throw error;
  }
}

function withCapture<A extends HostAttachment>(
  attachment: A,
  options: RunOptions,
  daemon: Daemon,
  undo: Undo,
): HostAttachment {
  if (options.pcap === undefined) return attachment;
  const fd = openSync(options.pcap, 'w', 0o600);
  let isOpen = true;
  undo.push(() => {
    isOpen = false;
    closeSync(fd);
  });
  // Packets go on until the host is detached, which comes later.
  const write = (octets: Uint8Array) => {
    if (isOpen) writeSync(fd, octets);
  };
  const wire: Link = pcapLink(attachment.wire, write, daemon.env.clock);
  return Object.create(attachment, { wire: { value: wire } }) as HostAttachment;
}

function traceToStderr(daemon: Daemon, { trace, tracePerSecond = 10 }: RunOptions): void {
  if (trace === undefined) return;
  startTrace(daemon, trace, tracePerSecond, (line) => {
    process.stderr.write(`testudo: ${traceText(line)}\n`);
  });
}

/** Whoever asked for it wants it to be right whenever they look. */
function keepKeyTable(daemon: Daemon, path: string, undo: Undo): void {
  let seen = 0;
  const write = () => {
    if (seen === daemon.sad.generation) return;
    seen = daemon.sad.generation;
    writeFileSync(path, wiresharkTable(daemon.sad.all()), { mode: 0o600 });
    chmodSync(path, 0o600);
  };
  write();
  const timer = setInterval(write, 500);
  undo.push(() => clearInterval(timer));
}

/** SIGHUP: the file is read again, and what it says replaces what it said, or nothing changes. */
function handleHangup(daemon: Daemon, options: RunOptions, undo: Undo): void {
  const { file } = options;
  const { log } = daemon.env;
  let isReading = false;
  let isStale = false;
  // One at a time, or an old version of the file could come in last; many signals are one more
  // reading.
  const reload = async () => {
    isStale = true;
    if (isReading) return;
    isReading = true;
    while (isStale) {
      isStale = false;
      await readAgain(daemon, options);
    }
    isReading = false;
  };
  const hangup = () => {
    if (file === undefined) log('warn', 'SIGHUP: there is no file to read again');
    else void reload();
  };
  process.on('SIGHUP', hangup);
  undo.push(() => void process.removeListener('SIGHUP', hangup));
}

async function readAgain(daemon: Daemon, options: RunOptions): Promise<void> {
  const file = options.file!;
  const { log } = daemon.env;
  try {
    const config = await readConfig(file, options.resolve);
    if (!daemon.isAttached) return;
    const { sas, policies } = daemon.reload(config);
    process.stdout.write(
      `testudo: ${file} read again: ` +
        `SAs ${sas.added} added, ${sas.kept} kept, ${sas.removed} removed; ` +
        `policies ${policies.added} added, ${policies.kept} kept, ${policies.removed} removed\n`,
    );
  } catch (error) {
    const lines = error instanceof ConfigError ? error.lines : [String(error)];
    for (const line of lines) log('error', line);
    log('error', `${file} has errors: nothing was changed`);
  }
}
