import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The network card of the guest: each Ethernet frame is one datagram of L2TPv3 (RFC 3931 §4.1.2) on
 * loopback.
 */
export interface Nic {
  readonly mac: string;
  /** UDP ports on 127.0.0.1: where the kernel listens, and where it sends to. */
  readonly kernelPort: number;
  readonly ourPort: number;
  /** L2TPv3 sessions of frames to the kernel, and from it. */
  readonly toKernel: number;
  readonly fromKernel: number;
}

export interface UmlOptions {
  /**
   * Run by the guest's root with bash; it may use whatever is beside it, and the programs of this
   * machine.
   */
  readonly script: string;
  /** None, if it is not given. */
  readonly nic?: Nic;
  /** Put into the guest's /share before it boots: name to contents. */
  readonly files: Readonly<Record<string, string>>;
}

/** A Linux kernel that runs as a program of ours, until `stop`. */
export interface Uml {
  /**
   * Resolves when the guest has made /share/`name`, to its contents; rejects when it ended before,
   * or took too long.
   */
  file(name: string): Promise<string>;
  /** Resolves to the exit status of the guest's script; -1: it was killed. */
  readonly ended: Promise<number>;
  /** Everything that the guest has printed. */
  output(): string;
  /** Kills what is left, and removes the files. */
  stop(): Promise<void>;
}

/** Twenty times what a boot takes. */
const FILE_LIMIT_MS = 60_000;

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** Fetches the kernel if it is not in the cache; returns what is missing if it cannot be had. */
export function missingUml(): string | undefined {
  const fetched = spawnSync('/bin/sh', [here('fetch.sh'), cacheFolder()], { encoding: 'utf8' });
  if (fetched.status === 0) return undefined;
  const said = fetched.stderr.trim().split('\n').at(-1);
  return `User Mode Linux: ${said || `${fetched.error?.message ?? 'fetch.sh failed'}`}`;
}

export function bootUml(options: UmlOptions): Uml {
  const share = mkdtempSync(join(tmpdir(), 'testudo-uml-'));
  for (const [name, text] of Object.entries(options.files)) writeFileSync(join(share, name), text);
  const { nic } = options;
  const transport = nic && [
    'vec0:transport=l2tpv3,udp=1,src=127.0.0.1,dst=127.0.0.1',
    `srcport=${nic.kernelPort},dstport=${nic.ourPort}`,
    `rx_session=${nic.toKernel},tx_session=${nic.fromKernel},mac=${nic.mac}`,
  ];
  const child = spawn(
    join(cacheFolder(), 'usr/bin/linux.uml'),
    [
      ...['mem=320M', 'root=/dev/root', 'rootfstype=hostfs', 'rootflags=/', 'ro', 'quiet'],
      ...['con=null', 'con0=null,fd:1', 'loglevel=2', `uml_dir=${share}/`],
      ...[`init=${here('init.sh')}`, `UML_FOLDER=${cacheFolder()}`],
      ...[`UML_SHARE=${share}`, `UML_SCRIPT=${options.script}`],
      ...(transport ? [transport.join(',')] : []),
    ],
    // A process group of its own: the guest's processes are processes of this machine, too.
    { detached: true, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  return running(child, share);
}

function running(child: ChildProcess, share: string): Uml {
  const said: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (data: Buffer) => said.push(data.toString()));
  }
  const ended = once(child, 'close').then(() => {
    const status = join(share, 'status');
    return existsSync(status) ? Number(readFileSync(status, 'utf8')) : -1;
  });
  const output = () => said.join('');
  let isOver = false;
  const atExit = () => killGroup(child);
  process.once('exit', atExit);
  const marked = ended.then(() => {
    isOver = true;
    process.off('exit', atExit);
  });
  return {
    ended,
    output,
    async file(name) {
      const path = join(share, name);
      const limitMs = performance.now() + FILE_LIMIT_MS;
      // Changes that the guest makes through hostfs are seen by looking; 20 ms is little beside a
      // boot of seconds.
      while (!existsSync(path)) {
        if (isOver || performance.now() > limitMs) {
          const how = isOver ? 'ended' : 'runs';
          throw new Error(`the guest ${how} and has not made ${name}:\n${output()}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      return readFileSync(path, 'utf8');
    },
    async stop() {
      if (!isOver) killGroup(child);
      await marked;
      rmSync(share, { recursive: true, force: true });
    },
  };
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (error) {
    // Nobody is left in the group: that is the usual end.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function cacheFolder(): string {
  const { TESTUDO_INTEROP_CACHE, XDG_CACHE_HOME } = process.env;
  const cache =
    TESTUDO_INTEROP_CACHE ?? join(XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'testudo-interop');
  return join(cache, 'uml');
}
