import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TESTUDO } from './daemon-host.ts';
import { hasTool } from './namespaces.ts';

export const LIBRARY = fileURLToPath(
  new URL('../../native/build/libtestudo_pfkey.so', import.meta.url),
);
const BUILD = fileURLToPath(new URL('../../native/build.mjs', import.meta.url));
const PROGRAM = fileURLToPath(new URL('pfkey_program.py', import.meta.url));

/** Why programs cannot be run under `testudo exec` here, or undefined if they can. */
export function whyNoExec(): string | undefined {
  const why = missing();
  if (why !== undefined && process.env.CI === 'true') throw new Error(`CI needs it: ${why}`);
  return why;
}

function missing(): string | undefined {
  if (process.platform !== 'linux') return 'not Linux';
  if (!hasTool('python3')) return 'no python3';
  spawnSync(process.execPath, [BUILD]);
  return existsSync(LIBRARY) ? undefined : 'no C compiler';
}

/** The library built with sanitizers, and what must be loaded before it; undefined without them. */
export function buildSanitized(folder: string): Preload | undefined {
  const library = join(folder, 'sanitized.so');
  if (spawnSync(process.execPath, [BUILD, '--sanitize', library]).status !== 0) return undefined;
  const { stdout } = spawnSync('cc', ['-print-file-name=libasan.so'], { encoding: 'utf8' });
  const first = stdout.trim();
  if (!existsSync(first)) return undefined;
  // Python itself leaks at its end.
  return { library, env: { LD_PRELOAD: first, ASAN_OPTIONS: 'detect_leaks=0' } };
}

export interface Preload {
  readonly library: string;
  readonly env: Readonly<Record<string, string>>;
}

/** A program that runs, or has run, under `testudo exec`. */
export class Program {
  readonly child: ChildProcess;
  stdout = '';
  stderr = '';
  #hasClosed = false;

  constructor(child: ChildProcess) {
    this.child = child;
    child.once('close', () => {
      this.#hasClosed = true;
    });
    child.stdout!.on('data', (text) => {
      this.stdout += text;
    });
    child.stderr!.on('data', (text) => {
      this.stderr += text;
    });
  }

  /** The objects that it has printed. */
  get said(): Record<string, unknown>[] {
    return this.stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** Waits until it has printed so many objects, and returns the last of them. */
  async says(count = 1): Promise<Record<string, unknown>> {
    while (this.stdout.split('\n').length - 1 < count) {
      if (this.#hasClosed) throw new Error(`it has ended: ${this.stderr}`);
      await Promise.race([once(this.child.stdout!, 'data'), once(this.child, 'close')]);
    }
    return this.said[count - 1]!;
  }

  /** Its exit status, or the signal that ended it. */
  async end(): Promise<number | string | null> {
    if (!this.#hasClosed) await once(this.child, 'close');
    return this.child.exitCode ?? this.child.signalCode;
  }
}

/** A host in user space, which needs no privilege. */
export class UserHost {
  readonly dir = mkdtempSync(join(tmpdir(), 'testudo-exec-'));
  readonly socket = join(this.dir, 'pfkey');
  readonly child: ChildProcess;
  readonly #programs: ChildProcess[] = [];

  private constructor() {
    const options = ['--listen', '127.0.0.1:0', '--address', '10.7.0.1', '--socket', this.socket];
    this.child = spawn(process.execPath, [
      TESTUDO,
      'up',
      '--user',
      ...options,
      '--state',
      join(this.dir, 'state'),
    ]);
  }

  static async start(): Promise<UserHost> {
    const host = new UserHost();
    const program = new Program(host.child);
    while (!program.stdout.includes('ready')) {
      if (host.child.exitCode !== null) {
        await host.close();
        throw new Error(program.stderr);
      }
      await Promise.race([once(host.child.stdout!, 'data'), once(host.child, 'close')]);
    }
    return host;
  }

  /** `testudo exec` with arguments of its own. */
  exec(args: readonly string[], env: Readonly<Record<string, string>> = {}): Program {
    const options = { env: { ...process.env, TESTUDO_SOCKET: this.socket, ...env } };
    const child = spawn(process.execPath, [TESTUDO, 'exec', ...args], options);
    this.#programs.push(child);
    return new Program(child);
  }

  /** A role of the program of these tests. */
  role(args: readonly string[], preload?: Preload): Program {
    const library = preload ? ['--library', preload.library] : [];
    return this.exec([...library, '--', 'python3', PROGRAM, ...args], preload?.env);
  }

  /** Runs a role to its end. Throws what it complains about. */
  async ask(args: readonly string[], preload?: Preload): Promise<Record<string, unknown>> {
    const program = this.role(args, preload);
    const status = await program.end();
    if (status !== 0) throw new Error(`status ${status}: ${program.stdout}${program.stderr}`);
    return program.said[0]!;
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    if (this.child.exitCode === null && this.child.signalCode === null) {
      await once(this.child, 'close');
    }
  }

  async close(): Promise<void> {
    for (const child of this.#programs) child.kill('SIGKILL');
    await this.kill();
    rmSync(this.dir, { recursive: true, force: true });
  }
}
