import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { request } from '../../src/daemon/control-client.ts';
import { controlPath } from '../../src/daemon/paths.ts';
import type { Status } from '../../src/daemon/status.ts';
import type { Lab, Ran } from './namespaces.ts';

/** What `npm run build` makes of src/cli, seen from the sources and from what is built of them. */
const CLI = ['../../dist/src/cli/', '../../src/cli/']
  .map((path) => fileURLToPath(new URL(path, import.meta.url)))
  .find((path) => existsSync(join(path, 'testudo.js')));
export const TESTUDO = join(CLI ?? '', 'testudo.js');
export const SETKEY = join(CLI ?? '', 'setkey.js');

/** Runs the same tests over hosts of several threads. */
const WORKERS = process.env.TESTUDO_TEST_WORKERS;

/** `testudo up` in a namespace, with a setkey file, and our own tools asking it. */
export class DaemonHost {
  readonly lab: Lab;
  readonly space: string;
  readonly socket: string;
  readonly file: string;
  readonly child: ChildProcess;
  stdout = '';
  stderr = '';

  private constructor(lab: Lab, space: string, args: readonly string[], env: NodeJS.ProcessEnv) {
    this.lab = lab;
    this.space = space;
    this.socket = socketOf(lab, space);
    this.file = fileOf(lab, space);
    const command = [TESTUDO, 'up', ...upArgs(lab, space), ...args];
    this.child = lab.spawn(space, process.execPath, command, env);
    this.child.stdout!.on('data', (text) => {
      this.stdout += text;
    });
    this.child.stderr!.on('data', (text) => {
      this.stderr += text;
    });
  }

  /** Writes the setkey file and waits until the host says that it is ready. Rejects if it ends. */
  static async start(
    lab: Lab,
    space: string,
    config: string,
    args: readonly string[] = [],
    env: NodeJS.ProcessEnv = {},
  ): Promise<DaemonHost> {
    if (CLI === undefined) throw new Error('run "npm run build" first');
    writeFileSync(fileOf(lab, space), config);
    const host = new DaemonHost(lab, space, args, env);
    await host.says('testudo: ready');
    return host;
  }

  /** Waits for a text on standard output. */
  async says(text: string, times = 1): Promise<void> {
    while (this.stdout.split(text).length - 1 < times) {
      if (this.#hasEnded) throw new Error(`testudo up: ${this.stderr}`);
      await this.#more(this.child.stdout!);
    }
  }

  /** Waits for a text on standard error. */
  async complains(text: string, times = 1): Promise<void> {
    while (this.stderr.split(text).length - 1 < times) {
      if (this.#hasEnded) throw new Error(`testudo up ended: ${this.stderr}`);
      await this.#more(this.child.stderr!);
    }
  }

  /** What `testudo status --json` prints, asked without the program. */
  async status(): Promise<Status> {
    return (await request(controlPath(this.socket), 'status')) as Status;
  }

  /** A counter of `testudo status`. */
  async count(name: string): Promise<number> {
    const count = (await this.status()).packets[name];
    if (count === undefined) throw new Error(`there is no counter "${name}"`);
    return count;
  }

  async dropped(side: 'in' | 'out', reason: string): Promise<number> {
    const { drops } = await this.status();
    const row = drops.find((drop) => drop.side === side && drop.reason === reason);
    return row?.count ?? 0;
  }

  /** Runs setkey on this host; throws what it complains about. */
  setkey(statements: string): string {
    const { stdout, stderr, status } = this.tool(SETKEY, '-c', statements);
    if (status !== 0 || stderr !== '') throw new Error(stderr || `setkey: status ${status}`);
    return stdout;
  }

  tool(program: string, args: string, input = ''): Ran {
    const command = `${process.execPath} ${program} ${args}`;
    return this.lab.try(this.space, `TESTUDO_SOCKET=${this.socket} ${command}`, input);
  }

  /** Rewrites the file and has it read again, without waiting for the end. */
  reload(config: string): void {
    writeFileSync(this.file, config);
    process.kill(this.pid, 'SIGHUP');
  }

  /** Of the host itself; the child becomes it, since `ip netns exec` does not fork. */
  get pid(): number {
    return this.child.pid!;
  }

  /** Ends it in order. Resolves with its exit status. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (!this.#hasEnded) {
      const ended = once(this.child, 'close');
      this.child.kill(signal);
      await ended;
    }
    return this.child.exitCode;
  }

  /** Ends it as a crash would. */
  async kill(): Promise<void> {
    await this.stop('SIGKILL');
  }

  /** Until it has said more, or has ended. */
  #more(stream: Readable): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        stream.off('data', done);
        this.child.off('close', done);
        resolve();
      };
      stream.on('data', done);
      this.child.on('close', done);
    });
  }

  get #hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }
}

export function socketOf(lab: Lab, space: string): string {
  return join(lab.dir, space.slice(space.lastIndexOf('-') + 1), 'pfkey');
}

export function fileOf(lab: Lab, space: string): string {
  return join(lab.dir, `${space.slice(space.lastIndexOf('-') + 1)}.conf`);
}

export function upArgs(lab: Lab, space: string): string[] {
  const socket = socketOf(lab, space);
  const where = ['--file', fileOf(lab, space), '--socket', socket, '--state', `${socket}.state`];
  return WORKERS === undefined ? where : [...where, '--workers', WORKERS];
}

/**
 * What a host may change in its namespace, as text: rules, routes, devices, filters, reverse path
 * filters.
 */
export function machineState(lab: Lab, space: string): string {
  const commands = [
    'ip -4 rule; ip -6 rule',
    'ip -4 route show table all; ip -6 route show table all',
    'ip -o link | sed "s/ qlen .*//"; ip -o addr | sed "s/ valid_lft .*//"',
    'tc qdisc; for d in $(ls /sys/class/net); do tc filter show dev $d ingress; done',
    'grep . /proc/sys/net/ipv4/conf/*/rp_filter',
  ];
  return lab.try(space, commands.join('; ')).stdout;
}

export function readText(path: string): string {
  return readFileSync(path, 'utf8');
}
