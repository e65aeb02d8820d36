import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { request } from '../daemon/control-client.ts';
import { type ExecLine, networkNamespace } from '../daemon/exec-command.ts';
import { controlPath } from '../daemon/paths.ts';
import { findProgram, whyNotPreloadable } from './exec-program.ts';
import { socketOption } from './options.ts';

interface ExecOptions {
  readonly socket: string;
  readonly library?: string;
}

const LIBRARY = 'native/build/libtestudo_pfkey.so';
/** Signals that end or tell something, which a program expects from whoever started it. */
const FORWARDED = ['SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGCONT'] as const;
/** How long a program may take to notice by itself that its host is gone. */
const LAST_WORDS_MS = 2000;

export function execCommand(): Command {
  return new Command('exec')
    .description(
      'run an unmodified program that expects IPsec of its kernel, with this host for that: an IKE ' +
        'daemon, or one whose sockets have policies of their own',
    )
    .argument('<program>', 'what to run')
    .argument('[arguments...]', 'its arguments, behind --')
    .addOption(socketOption())
    .option('--library <file>', 'what is preloaded, if not the one built on installation')
    .passThroughOptions()
    .action(exec);
}

async function exec(program: string, args: string[], options: ExecOptions): Promise<void> {
  if (process.platform !== 'linux') throw new Error('programs can be run so on Linux only');
  const library = findLibrary(options.library);
  const path = findProgram(program, process.env.PATH ?? '');
  const why = whyNotPreloadable(path);
  if (why !== undefined) throw new Error(`${path}: ${why}`);
  const session = await openSession(options.socket);
  const child = spawn(path, args, {
    stdio: 'inherit',
    argv0: program,
    env: {
      ...process.env,
      LD_PRELOAD: [process.env.LD_PRELOAD, library].filter(Boolean).join(':'),
      TESTUDO_EXEC: `${session.name}:${session.token}`,
    },
  });
  const ended = follow(child);
  const outcome = await Promise.race([ended, session.lost]);
  if (outcome === 'lost') {
    process.stderr.write('testudo exec: the host has gone away\n');
    await endProgram(child, ended);
    process.exitCode = 1;
  } else {
    endLike(outcome);
  }
  session.close();
}

interface Session extends ExecLine {
  /** Resolves when the host has gone away. */
  readonly lost: Promise<'lost'>;
  close(): void;
}

/** Throws KeyError when there is no host, and Error when programs here cannot reach it. */
async function openSession(socket: string): Promise<Session> {
  const abort = new AbortController();
  let opened: (line: ExecLine) => void = () => {};
  const line = new Promise<ExecLine>((resolve) => {
    opened = resolve;
  });
  const going = request(
    controlPath(socket),
    'exec',
    {},
    {
      timeoutMs: 0,
      onLine: (value) => opened(value as ExecLine),
      signal: abort.signal,
    },
  );
  const lost = going.then(
    () => 'lost' as const,
    () => 'lost' as const,
  );
  // `going` ends first only by an error, which is then thrown.
  await Promise.race([line, going]);
  const session = await line;
  if (session.netns !== networkNamespace()) {
    abort.abort();
    throw new Error(`the host on ${socket} is in another network namespace; run the program there`);
  }
  return { ...session, lost, close: () => abort.abort() };
}

function findLibrary(given: string | undefined): string {
  // From the sources and from what is built.
  const places = [`../../${LIBRARY}`, `../../../${LIBRARY}`].map((place) =>
    fileURLToPath(new URL(place, import.meta.url)),
  );
  const found = (given === undefined ? places : [resolve(given)]).find((file) => existsSync(file));
  if (found === undefined) {
    throw new Error(
      given === undefined
        ? 'the preload library is not built: install a C compiler and run "npm rebuild testudo"'
        : `there is no ${given}`,
    );
  }
  // Either separates two libraries in LD_PRELOAD, and cannot be quoted.
  if (/[ :]/.test(found)) {
    throw new Error(`${found}: a path with a space or colon cannot be preloaded; see --library`);
  }
  return found;
}

type Outcome = { readonly status: number } | { readonly signal: NodeJS.Signals };

/** Passes signals on until the program ends. Rejects when it cannot be started. */
function follow(child: ChildProcess): Promise<Outcome> {
  const handlers = FORWARDED.map((signal) => [signal, () => void child.kill(signal)] as const);
  // A terminal sends it to the program too.
  const interrupted = () => process.stdin.isTTY || child.kill('SIGINT');
  process.on('SIGINT', interrupted);
  for (const [signal, handler] of handlers) process.on(signal, handler);
  return new Promise<Outcome>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (status, signal) =>
      resolve(signal === null ? { status: status ?? 1 } : { signal }),
    );
  }).finally(() => {
    process.removeListener('SIGINT', interrupted);
    for (const [signal, handler] of handlers) process.removeListener(signal, handler);
  });
}

/** A program whose kernel has stopped may do what it likes, but many never look at errors again. */
async function endProgram(child: ChildProcess, ended: Promise<Outcome>): Promise<void> {
  const timer = setTimeout(() => child.kill('SIGTERM'), LAST_WORDS_MS);
  await ended;
  clearTimeout(timer);
}

/** Ends this process as the program ended, so that whoever waits sees no difference. */
function endLike(outcome: Outcome): void {
  if ('status' in outcome) {
    process.exitCode = outcome.status;
    return;
  }
  process.exitCode = 128 + constants.signals[outcome.signal];
  process.kill(process.pid, outcome.signal);
}
