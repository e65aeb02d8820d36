import { type ChildProcess, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parsePolicy } from '../../src/spd/set-policy.ts';
import { toHex } from '../../src/wire/bytes.ts';
import { encodeExtension } from '../../src/wire/pfkey-encode.ts';
import { type DaemonHost, TESTUDO } from './daemon-host.ts';
import type { Preload } from './exec-host.ts';
import type { Lab } from './namespaces.ts';

const SOURCE = fileURLToPath(new URL('socket_program.c', import.meta.url));

/** Compiles the program of these tests, and returns its path. */
export function buildSocketProgram(folder: string): string {
  const program = join(folder, 'socket_program');
  execFileSync('cc', ['-Wall', '-Wextra', '-Werror', '-o', program, SOURCE]);
  return program;
}

/** The octets of a policy as ipsec_set_policy(3) makes them, in hexadecimal. */
export function policyHex(text: string): string {
  return toHex(encodeExtension(parsePolicy(text), 'linux'));
}

export interface SocketProgramOptions {
  /** Runs under `testudo exec` of this host; alone if not given. */
  readonly host?: DaemonHost;
  /** Before the program: such as `setpriv …`. */
  readonly before?: readonly string[];
  readonly preload?: Preload | undefined;
}

/** The C program, told what to do line by line. */
export class SocketProgram {
  readonly child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #stderr = '';

  constructor(lab: Lab, space: string, program: string, options: SocketProgramOptions = {}) {
    const { host, before = [], preload } = options;
    const library = preload ? ['--library', preload.library] : [];
    const exec = host
      ? [process.execPath, TESTUDO, 'exec', '--socket', host.socket, ...library]
      : [];
    const [command, ...args] = [...exec, ...(host ? ['--'] : []), ...before, program];
    this.child = lab.spawn(space, command!, args, preload?.env ?? {});
    this.child.stderr!.on('data', (text) => {
      this.#stderr += text;
    });
    this.#lines = createInterface({ input: this.child.stdout! })[Symbol.asyncIterator]();
  }

  /** Does one command, and returns its answer. */
  async do(command: string): Promise<string> {
    this.child.stdin!.write(`${command}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${command}: it has ended: ${this.#stderr}`);
    return value as string;
  }

  /** Several commands that must all work. */
  async all(...commands: readonly string[]): Promise<void> {
    for (const command of commands) {
      const answer = await this.do(command);
      if (answer !== 'ok') throw new Error(`${command}: ${answer}`);
    }
  }

  /** A socket with a policy in each direction that is given. */
  async open(name: string, kind: string, ...policies: readonly string[]): Promise<void> {
    await this.all(`socket ${name} ${kind}`);
    for (const policy of policies) await this.all(`option ${name} ${policyHex(policy)}`);
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, 'close');
    this.child.stdin!.end();
    await ended;
  }
}
