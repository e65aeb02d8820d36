import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Capture } from './capture.ts';

/**
 * Why tests with real hosts cannot run here, or undefined if they can. Under CI=true nothing may be
 * missing: then it throws.
 */
export function whyNoHosts(...tools: readonly string[]): string | undefined {
  const why = missing(['ip', 'tc', 'tcpdump', 'ping', ...tools]);
  if (why !== undefined && process.env.CI === 'true') throw new Error(`CI needs it: ${why}`);
  return why;
}

/** Says on the console why a file of tests is skipped, since a silent skip looks like success. */
export function announceSkip(file: string, why: string | undefined): boolean {
  if (why !== undefined) console.log(`${file} skipped: ${why}`);
  return why !== undefined;
}

export function hasTool(tool: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${tool}`]).status === 0;
}

function missing(tools: readonly string[]): string | undefined {
  if (process.platform !== 'linux') return 'not Linux';
  if (process.getuid?.() !== 0) return 'not root';
  if (!existsSync('/dev/net/tun')) return 'no /dev/net/tun';
  const absent = tools.find((tool) => !hasTool(tool));
  if (absent !== undefined) return `no ${absent}`;
  const name = `testudo-${process.pid}-probe`;
  if (spawnSync('ip', ['netns', 'add', name]).status !== 0) return 'no network namespaces';
  spawnSync('ip', ['netns', 'del', name]);
  return undefined;
}

export interface Ran {
  readonly stdout: string;
  readonly stderr: string;
  readonly status: number | null;
}

let labs = 0;

/** Network namespaces, wires between them, and the programs that run in them. */
export class Lab {
  /** For sockets, files and captures; short, since a Unix socket's path may be 107 octets long. */
  readonly dir = mkdtempSync(join(tmpdir(), 'testudo-lab-'));
  readonly #name: string;
  readonly #spaces: string[] = [];
  readonly #children: ChildProcess[] = [];
  #captures = 0;

  /** The names of its namespaces begin with `prefix`. */
  constructor(prefix = 'testudo') {
    this.#name = `${prefix}-${process.pid}-${labs++}`;
  }

  /** Makes a namespace with its loopback device up, and returns its name. */
  space(name: string): string {
    const full = `${this.#name}-${name}`;
    execFileSync('ip', ['netns', 'add', full]);
    this.#spaces.push(full);
    this.sh(full, 'ip link set lo up');
    return full;
  }

  /**
   * Joins two namespaces by a pair of devices, and gives them addresses such as `10.9.0.1/24`. As
   * on a real wire there are no packets in it that are still to be cut into segments.
   */
  wire(a: End, b: End): void {
    const peer = ['peer', 'name', b.device, 'netns', b.space];
    execFileSync('ip', ['-n', a.space, 'link', 'add', a.device, 'type', 'veth', ...peer]);
    for (const { space, device, addresses } of [a, b]) {
      // Link-local addresses work at once: routers look for neighbours with them.
      this.sh(space, `sysctl -qw net.ipv6.conf.${device}.accept_dad=0`);
      this.sh(space, `ip link set ${device} gso_max_segs 1 up`);
      for (const address of addresses) {
        const nodad = address.includes(':') ? ' nodad' : '';
        this.sh(space, `ip addr add ${address} dev ${device}${nodad}`);
      }
    }
  }

  /** Runs shell commands in a namespace; throws when they fail. */
  sh(space: string, commands: string): string {
    const { stdout, stderr, status } = this.try(space, commands);
    if (status !== 0) throw new Error(`${commands}: ${stderr}`);
    return stdout;
  }

  try(space: string, commands: string, input = ''): Ran {
    return spawnSync('ip', ['netns', 'exec', space, 'bash', '-c', commands], {
      encoding: 'utf8',
      input,
    });
  }

  /** Starts a program in a namespace; it is killed with the lab. */
  spawn(
    space: string,
    command: string,
    args: readonly string[],
    env: NodeJS.ProcessEnv = {},
  ): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', space, command, ...args], {
      env: { ...process.env, ...env },
    });
    this.#children.push(child);
    return child;
  }

  /** The same, and waits for its end without blocking this process. */
  async run(space: string, command: string, args: readonly string[]): Promise<Ran> {
    const child = this.spawn(space, command, args);
    let stdout = '';
    let stderr = '';
    child.stdout!.on('data', (text) => {
      stdout += text;
    });
    child.stderr!.on('data', (text) => {
      stderr += text;
    });
    const [status] = (await once(child, 'close')) as [number | null];
    return { stdout, stderr, status };
  }

  /** Records what is on a device from now on. */
  async capture(space: string, device: string): Promise<Capture> {
    const file = join(this.dir, `capture-${this.#captures++}.pcap`);
    // A large ring of small slots, since the programs under test leave little time to empty it;
    // each packet goes to the file at once.
    const ring = ['--immediate-mode', '-s', '2048', '-B', '131072', '-U'];
    const args = ['-i', device, '-n', '-Z', 'root', ...ring, '-w', file];
    const child = this.spawn(space, 'tcpdump', args);
    return Capture.start(child, file);
  }

  /** How many of `count` echo requests were answered; each carries the pattern in hexadecimal. */
  ping(space: string, to: string, { count = 2, size = 56, pattern = '', waitS = 1 } = {}): number {
    // After the first answer ping waits for others only as long as the interval, whatever -W says.
    const data = pattern === '' ? '' : `-p ${pattern}`;
    const { stdout, stderr } = this.try(
      space,
      `ping -n -c ${count} -i 0.3 -W ${waitS} -s ${size} ${data} ${to}`,
    );
    const received = /(\d+) received/.exec(stdout)?.[1];
    if (received !== undefined) return Number(received);
    // Without a route ping gives up before it counts.
    if (/unreachable|No route|not permitted/i.test(stdout + stderr)) return 0;
    throw new Error(`ping ${to}: ${stdout}${stderr}`);
  }

  close(): void {
    for (const child of this.#children) child.kill('SIGKILL');
    for (const space of this.#spaces) spawnSync('ip', ['netns', 'del', space]);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export interface End {
  readonly space: string;
  readonly device: string;
  readonly addresses: readonly string[];
}
