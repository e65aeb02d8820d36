import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Program } from './exec-host.ts';
import { type Place, until } from './iked.ts';
import type { Lab, Ran } from './namespaces.ts';

const CHARON = '/usr/lib/ipsec/charon';
const IN_USER_SPACE = '/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so';

export function whyNoCharon(): string | undefined {
  if (existsSync(CHARON) && existsSync(IN_USER_SPACE)) return undefined;
  if (process.env.CI === 'true') throw new Error('CI needs strongSwan with kernel-libipsec');
  return 'no strongSwan with kernel-libipsec';
}

export interface CharonOptions {
  readonly secret: string;
  /** As strongSwan writes them: `aes256-sha384`. */
  readonly ike: string;
  readonly esp: string;
}

/**
 * strongSwan's daemon with ESP of its own in user space, which is always in UDP: the whole other
 * side, made by others.
 */
export class Charon {
  readonly #lab: Lab;
  readonly #space: string;
  readonly #dir: string;
  readonly #daemon: Program;

  private constructor(lab: Lab, space: string, dir: string) {
    this.#lab = lab;
    this.#space = space;
    this.#dir = dir;
    // Two of them on a machine would use the same files below /run.
    const start = `STRONGSWAN_CONF=${dir}/strongswan.conf exec ${CHARON}`;
    const script = `mount -t tmpfs tmpfs /run && ${start}`;
    this.#daemon = new Program(lab.spawn(space, 'unshare', ['--mount', 'sh', '-c', script]));
  }

  /** Starts it and loads the connection, for which it then waits. */
  static async start(
    lab: Lab,
    space: string,
    mine: Place,
    peer: Place,
    options: CharonOptions,
  ): Promise<Charon> {
    const dir = join(lab.dir, `charon-${mine.id}`);
    mkdirSync(join(dir, 'swanctl'), { recursive: true });
    writeFileSync(join(dir, 'strongswan.conf'), daemonConfig(dir));
    writeFileSync(join(dir, 'swanctl/swanctl.conf'), connection(mine, peer, options), {
      mode: 0o600,
    });
    const charon = new Charon(lab, space, dir);
    const { stdout, stderr } = charon.#daemon;
    const place = { log: stdout + stderr };
    await until('charon', () => charon.swanctl('--stats').status === 0, place);
    const loaded = charon.swanctl('--load-all');
    if (loaded.status !== 0) throw new Error(loaded.stdout + loaded.stderr);
    return charon;
  }

  swanctl(command: string): Ran {
    const places = `SWANCTL_DIR=${this.#dir}/swanctl STRONGSWAN_CONF=${this.#dir}/strongswan.conf`;
    const uri = `unix://${this.#dir}/vici.sock`;
    return this.#lab.try(this.#space, `${places} swanctl ${command} --uri ${uri}`);
  }

  /** Packets that its SA has opened. */
  get opened(): number {
    const packets = /^ +in .* (\d+) packets/m.exec(this.swanctl('--list-sas').stdout)?.[1];
    return Number(packets ?? 0);
  }

  get pid(): number {
    return this.#daemon.child.pid!;
  }

  async stop(): Promise<void> {
    this.#daemon.child.kill('SIGTERM');
    await this.#daemon.end();
  }
}

function daemonConfig(dir: string): string {
  const plugins =
    'random nonce openssl aes sha1 sha2 hmac kdf gcm curve25519 pem pkcs1 pubkey x509 ' +
    'kernel-libipsec kernel-netlink socket-default vici';
  return `
charon {
  load = ${plugins}
  filelog { stderr { default = 1 } }
  plugins { vici { socket = unix://${dir}/vici.sock } }
}
swanctl { load = random openssl pem pkcs1 x509 }
`;
}

function connection(mine: Place, peer: Place, { secret, ike, esp }: CharonOptions): string {
  return `
connections {
  tunnel {
    version = 2
    local_addrs = ${mine.wire}
    remote_addrs = ${peer.wire}
    proposals = ${ike}
    encap = yes
    local { auth = psk
      id = ${mine.id} }
    remote { auth = psk
      id = ${peer.id} }
    children {
      net {
        local_ts = ${mine.net}
        remote_ts = ${peer.net}
        esp_proposals = ${esp}
        mode = tunnel } } }
}
secrets { ike-tunnel { secret = "${secret}" } }
`;
}
