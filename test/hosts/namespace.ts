import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { CapturedPacket } from '../../src/wire/linktype.ts';
import { readPcap } from '../../src/wire/pcap.ts';

/** Why tests with network namespaces cannot run here, or undefined if they can. */
export function whyNoNamespaces(): string | undefined {
  if (process.platform !== 'linux') return 'not Linux';
  if (process.getuid?.() !== 0) return 'not root';
  if (!existsSync('/dev/net/tun')) return 'no /dev/net/tun';
  for (const tool of ['ip', 'tc', 'tcpdump', 'ping']) {
    if (spawnSync('sh', ['-c', `command -v ${tool}`]).status !== 0) return `no ${tool}`;
  }
  const name = `testudo-${process.pid}-probe`;
  if (spawnSync('ip', ['netns', 'add', name]).status !== 0) return 'no network namespaces';
  spawnSync('ip', ['netns', 'del', name]);
  return undefined;
}

let networks = 0;

/**
 * Two namespaces joined by a wire `w0` (10.1.0.1 and .2, 2001:db8:1::1 and ::2), and what runs in
 * them.
 */
export class Network {
  readonly a: string;
  readonly b: string;
  readonly dir: string;
  readonly #children: ChildProcess[] = [];

  constructor() {
    const name = `testudo-${process.pid}-${networks++}`;
    this.a = `${name}-a`;
    this.b = `${name}-b`;
    this.dir = mkdtempSync(join(tmpdir(), 'testudo-hosts-'));
    for (const ns of [this.a, this.b]) {
      ip(`netns add ${ns}`);
      ip(`-n ${ns} link set lo up`);
    }
    this.addWire('w0', 1);
    // The kernel may take a second to notice that the wire is plugged in.
    this.run(this.a, 'for i in {1..50}; do ping -n -c 1 -W 0.1 2001:db8:1::2 && break; done');
  }

  addWire(wire: string, net: number): void {
    ip(`-n ${this.a} link add ${wire} type veth peer name ${wire} netns ${this.b}`);
    for (const [ns, host] of [
      [this.a, 1],
      [this.b, 2],
    ] as const) {
      ip(`-n ${ns} addr add 10.${net}.0.${host}/24 dev ${wire}`);
      ip(`-n ${ns} addr add 2001:db8:${net}::${host}/64 dev ${wire} nodad`);
      ip(`-n ${ns} link set ${wire} up`);
    }
  }

  /** Runs a command in a namespace and returns its output and status. */
  run(ns: string, command: string): { text: string; status: number | null } {
    const ended = spawnSync('ip', ['netns', 'exec', ns, 'bash', '-c', command], {
      encoding: 'utf8',
    });
    return { text: ended.stdout + ended.stderr, status: ended.status };
  }

  /** How many of two echo requests were answered. */
  ping(ns: string, to: string, size = 56): number {
    const { text } = this.run(ns, `ping -n -c 2 -i 0.2 -W 0.4 -s ${size} ${to}`);
    // Without a route ping gives up before it counts.
    if (text.includes('No route to host')) return 0;
    return Number(/(\d+) received/.exec(text)?.[1] ?? Number.NaN);
  }

  spawn(ns: string, command: string, args: readonly string[]): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', ns, command, ...args]);
    this.#children.push(child);
    return child;
  }

  /** Captures what is on a wire until `stop`. */
  async capture(ns: string, wire: string): Promise<Capture> {
    const file = join(this.dir, `capture-${this.#children.length}`);
    const args = ['-i', wire, '-n', '--immediate-mode', '-U', '-Z', 'root', '-w', file];
    const child = this.spawn(ns, 'tcpdump', args);
    await once(child.stderr!, 'data');
    return {
      async stop() {
        child.kill('SIGINT');
        await once(child, 'exit');
        return [...readPcap(readFileSync(file))];
      },
    };
  }

  close(): void {
    for (const child of this.#children) child.kill('SIGKILL');
    for (const ns of [this.a, this.b]) spawnSync('ip', ['netns', 'del', ns]);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export interface Capture {
  stop(): Promise<CapturedPacket[]>;
}

const TOY = fileURLToPath(new URL('../../dist/test/hosts/toy-host.js', import.meta.url));

/** The toy host in a namespace. */
export class Toy {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #errors = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    child.stderr!.on('data', (text) => {
      this.#errors += text;
    });
  }

  /** Rejects with what the host printed when it could not attach. */
  static async start(network: Network, ns: string, options: object = {}): Promise<Toy> {
    if (!existsSync(TOY)) throw new Error('run "npm run build" first: the toy host is compiled');
    const stateFile = join(network.dir, `${ns}.json`);
    const all = { mark: 7557, mtu: 65535, wires: 'auto', rawIp: true, encapPort: 4500, stateFile };
    const child = network.spawn(ns, process.execPath, [
      TOY,
      JSON.stringify({ ...all, ...options }),
    ]);
    const toy = new Toy(child);
    await toy.#answer();
    return toy;
  }

  /** What `testudo down` does after a crash. */
  static async cleanUp(network: Network, ns: string): Promise<number | null> {
    const options = { cleanUp: true, stateFile: join(network.dir, `${ns}.json`) };
    const child = network.spawn(ns, process.execPath, [TOY, JSON.stringify(options)]);
    const [status] = await once(child, 'exit');
    return status;
  }

  async ask(command: object): Promise<unknown> {
    this.#child.stdin!.write(`${JSON.stringify(command)}\n`);
    const answer = await this.#answer();
    if ('error' in answer) throw new Error(String(answer.error));
    return answer.done;
  }

  async #answer(): Promise<{ done?: unknown; error?: unknown }> {
    const { value, done } = await this.#lines.next();
    if (!done) return JSON.parse(value);
    if (this.#child.exitCode === null) await once(this.#child, 'exit');
    throw new Error(this.#errors);
  }

  /** Ends it as a crash would. */
  async kill(): Promise<void> {
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }

  async close(): Promise<void> {
    const gone = once(this.#child, 'exit');
    await this.ask({ do: 'close' });
    await gone;
  }
}

function ip(args: string): void {
  execFileSync('ip', args.split(' '), { stdio: ['ignore', 'pipe', 'pipe'] });
}
