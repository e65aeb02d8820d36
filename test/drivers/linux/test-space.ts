import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { libc } from '../../../src/drivers/linux/libc.ts';
import { type Netlink, openNetlink } from '../../../src/drivers/linux/netlink.ts';

const CLONE_NEWNET = 0x4000_0000;
let spaces = 0;

/** A network namespace, and netlink sockets of this process in it. */
export class TestSpace {
  readonly name = `testudo-nl-${process.pid}-${spaces++}`;
  readonly #open: Netlink[] = [];

  constructor() {
    execFileSync('ip', ['netns', 'add', this.name]);
    this.sh('ip link set lo up');
  }

  /** A wire with both ends here: `w0` and `w1`, up, and 10.1.0.1/24 and fd01::1/64 on the first. */
  addWire(): void {
    this.sh('ip link add w0 type veth peer name w1; ip link set w0 up; ip link set w1 up');
    this.sh('ip addr add 10.1.0.1/24 dev w0; ip addr add fd01::1/64 dev w0 nodad');
  }

  /** Throws when it fails. */
  sh(commands: string): string {
    const args = ['netns', 'exec', this.name, 'bash', '-c', commands];
    const { status, stdout, stderr } = spawnSync('ip', args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`${commands}: ${stderr}`);
    return stdout;
  }

  netlink(): Netlink {
    const netlink = this.inside(() => openNetlink(libc('a test')));
    this.#open.push(netlink);
    return netlink;
  }

  /** Sockets that are opened in `act` belong to the namespace. */
  inside<T>(act: () => T): T {
    const c = libc('a test');
    const setns = c.koffi.load(null).func('int setns(int fd, int type)') as unknown as (
      fd: number,
      type: number,
    ) => number;
    const [here, there] = [openSync('/proc/thread-self/ns/net', 'r'), this.#file()];
    try {
      if (setns(there, CLONE_NEWNET) < 0) throw new Error('setns');
      return act();
    } finally {
      setns(here, CLONE_NEWNET);
      closeSync(here);
      closeSync(there);
    }
  }

  close(): void {
    for (const netlink of this.#open) netlink.close();
    execFileSync('ip', ['netns', 'del', this.name]);
  }

  #file(): number {
    return openSync(`/run/netns/${this.name}`, 'r');
  }
}
