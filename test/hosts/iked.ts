import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DaemonHost, TESTUDO } from './daemon-host.ts';
import { Program } from './exec-host.ts';
import type { Lab } from './namespaces.ts';

/** One end of a tunnel: its place on the wire, and what is behind it. */
export interface Place {
  readonly wire: string;
  readonly net: string;
  readonly inner: string;
  readonly id: string;
}

export interface IkedOptions {
  readonly mode: 'active' | 'passive';
  readonly encapsulation?: 'tunnel' | 'transport';
  /** What is protected; networks if not given. */
  readonly between?: 'networks' | 'hosts';
  readonly lifetime?: string;
  /** `psk "…"`, or how certificates are to be used. */
  readonly auth?: string;
  readonly args?: readonly string[];
  /** A folder to be seen as /etc/iked. */
  readonly etc?: string;
}

export const PSK = 'psk "an example of a shared key"';

/** A host of ours with OpenIKED under `testudo exec`. */
export class IkedHost {
  readonly host: DaemonHost;
  readonly #lab: Lab;
  readonly #space: string;
  #iked: Program | undefined;
  #control = '';

  private constructor(lab: Lab, space: string, host: DaemonHost) {
    this.#lab = lab;
    this.#space = space;
    this.host = host;
  }

  static async start(lab: Lab, space: string, config = ''): Promise<IkedHost> {
    return new IkedHost(lab, space, await DaemonHost.start(lab, space, config));
  }

  /** Starts the daemon and waits until it is ready. */
  async run(mine: Place, peer: Place, options: IkedOptions): Promise<void> {
    const {
      mode,
      encapsulation = 'tunnel',
      between = 'networks',
      lifetime = '',
      auth = PSK,
    } = options;
    const file = join(this.#lab.dir, `iked-${mine.id}.conf`);
    const [from, to] = [mine, peer].map((one) => (between === 'hosts' ? one.wire : one.net));
    const line = [
      `ikev2 "peer" ${mode} ${encapsulation} esp from ${from} to ${to}`,
      `local ${mine.wire} peer ${peer.wire}`,
      `srcid ${mine.id} dstid ${peer.id} ${lifetime} ${auth}`,
    ];
    // It refuses files that others can read.
    writeFileSync(file, `set enforcesingleikesa\n${line.join(' ')}\n`, { mode: 0o600 });
    this.#control = join(this.#lab.dir, `iked-${mine.id}.sock`);
    const iked = ['iked', '-d', '-vv', '-f', file, '-s', this.#control, ...(options.args ?? [])];
    const exec = [TESTUDO, 'exec', '--socket', this.host.socket, '--', ...iked];
    const { etc } = options;
    const [command, args] =
      etc === undefined
        ? [process.execPath, exec]
        : ['unshare', ['-m', 'sh', '-c', MOUNT, 'sh', etc, process.execPath, ...exec]];
    this.#iked = new Program(this.#lab.spawn(this.#space, command as string, args as string[]));
    // The last of its settings: it has its sockets by then.
    await this.logs('stickyaddress');
  }

  /** What the daemon has printed. */
  get log(): string {
    return this.#iked!.stdout + this.#iked!.stderr;
  }

  async logs(text: string): Promise<void> {
    await until(`iked says "${text}"`, () => this.log.includes(text), this);
  }

  /** Waits for so many SAs that can be used. */
  async hasSas(count: number): Promise<void> {
    const isSo = async () => {
      const { sas, policies } = await this.host.status();
      // OpenIKED adds the policy for what comes in behind everything else.
      return sas.mature === count && (count === 0 || policies.in > 0);
    };
    await until(`${count} SAs`, isSo, this);
  }

  async hasPolicies(count: number): Promise<void> {
    const isSo = async () => {
      const { policies } = await this.host.status();
      return policies.in + policies.out + policies.fwd === count;
    };
    await until(`${count} policies`, isSo, this);
  }

  /** Tells the daemon to end, as a system that stops does. */
  async stop(): Promise<number | string | null> {
    const iked = this.#iked;
    if (iked === undefined) return null;
    iked.child.kill('SIGTERM');
    return iked.end();
  }

  /** Ends all processes of the daemon as a crash would: one that sees another end cleans up. */
  async crash(): Promise<void> {
    const [parent] = childrenOf(this.#iked!.child.pid!);
    const all = [parent!, ...childrenOf(parent!)];
    for (const pid of all) process.kill(pid, 'SIGSTOP');
    // The parent last: without it the kernel wakes the others, who are then an orphaned group.
    for (const pid of all.reverse()) process.kill(pid, 'SIGKILL');
    await this.#iked!.end();
  }

  /** Runs ikectl on the daemon, and returns what it prints. */
  control(command: string): string {
    return this.#lab.sh(this.#space, `ikectl -s ${this.#control} ${command}`);
  }

  async ended(): Promise<number | string | null> {
    return this.#iked!.end();
  }
}

function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? [] : text.split(' ').map(Number);
}

const MOUNT = 'mount --bind "$1" /etc/iked && shift && exec "$@"';
const WAIT_MS = 20_000;

/** Waits until it is so. Rejects with what the daemon has printed when that takes too long. */
export async function until(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  place?: { readonly log: string },
): Promise<void> {
  const end = performance.now() + WAIT_MS;
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`waiting for ${what}: ${place?.log}`);
    await sleep(100);
  }
}

/**
 * A folder like /etc/iked for each of two ends: a certificate and key of its own, and that of the
 * authority that signed both.
 */
export function makeCertificates(dir: string, ids: readonly string[]): Map<string, string> {
  const ca = join(dir, 'authority');
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  execFileSync('mkdir', ['-p', ca]);
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const root = ['-x509', '-keyout', `${ca}/key`, '-out', `${ca}/crt`, '-subj', '/CN=authority'];
  openssl('req', ...newKey, ...root, '-days', '2');
  return new Map(
    ids.map((id) => {
      const etc = join(dir, `etc-${id}`);
      const folders = ['ca', 'certs', 'crls', 'private', 'pubkeys'];
      const kinds = ['fqdn', 'ipv4', 'ipv6', 'ufqdn'].map((kind) => `pubkeys/${kind}`);
      execFileSync('mkdir', ['-p', ...[...folders, ...kinds].map((name) => join(etc, name))]);
      execFileSync('cp', [`${ca}/crt`, `${etc}/ca/ca.crt`]);
      const key = `${etc}/private/local.key`;
      const request = `${etc}/request`;
      openssl('req', ...newKey, '-keyout', key, '-out', request, '-subj', `/CN=${id}`);
      writeFileSync(`${etc}/names`, `subjectAltName=DNS:${id}\n`);
      const signer = ['-CA', `${ca}/crt`, '-CAkey', `${ca}/key`, '-CAcreateserial', '-days', '2'];
      const names = ['-extfile', `${etc}/names`];
      openssl(
        'x509',
        '-req',
        '-in',
        request,
        ...signer,
        ...names,
        '-out',
        `${etc}/certs/${id}.crt`,
      );
      // The process that signs has given its user up by then.
      execFileSync('sh', [
        '-c',
        `chmod 600 ${key}; openssl pkey -in ${key} -pubout > ${etc}/local.pub`,
      ]);
      return [id, etc] as const;
    }),
  );
}
