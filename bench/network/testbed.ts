import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { occurrences } from '../../test/hosts/capture.ts';
import { Lab } from '../../test/hosts/namespaces.ts';
import { MARKER, PATTERN } from '../../test/hosts/programs.ts';

/** One of the two machines: its namespace, its address on the wire, and the one behind it. */
export interface Site {
  readonly space: string;
  readonly wire: string;
  readonly inner: string;
  /** The network that `inner` is of. */
  readonly net: string;
}

/** The inner packets of every tunnel are no longer than this. */
export const INNER_MTU = 1400;

/** The device at both ends of the wire. */
const WIRE = 'w';
/** Of segments in a packet that is still to be cut: the kernel's default. */
const SEGMENTS_USUAL = 65_535;
/** How long a tunnel may take to come up. */
const READY_MS = 15_000;

/** All that are open, so that nothing outlives the program. */
const open = new Set<Testbed>();

/** Removes what is left of all testbeds when the program is told to stop. */
export function closeAllOnSignal(): void {
  for (const [signal, status] of [['SIGINT', 130] as const, ['SIGTERM', 143] as const]) {
    process.on(signal, () => {
      for (const bed of open) bed.close();
      process.exit(status);
    });
  }
}

/**
 * Two network namespaces joined by a pair of devices.
 *
 *     a 10.97.0.1 ———— wire ———— 10.97.0.2 b
 *       10.98.1.1      (lo)      10.98.2.1        what tunnels protect
 */
export class Testbed {
  readonly lab = new Lab('testudo-bench');
  readonly a: Site;
  readonly b: Site;
  /** What happens now, for whoever finds that it does not end. */
  doing = 'is set up';
  readonly #atEnd: (() => void)[] = [];

  constructor() {
    open.add(this);
    try {
      this.a = this.#site('a', '10.97.0.1', '10.98.1');
      this.b = this.#site('b', '10.97.0.2', '10.98.2');
      this.#join();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get sites(): readonly [Site, Site] {
    return [this.a, this.b];
  }

  other(site: Site): Site {
    return site === this.a ? this.b : this.a;
  }

  /**
   * Lets nothing above 1500 octets onto the wire, as a network card does, and lets receivers put
   * segments and datagrams together again, as a driver does. A pair of devices otherwise hands over
   * whole trains that no wire could carry; and it lets receivers put together only what comes from
   * a device that leaves no segmentation of TCP to it (`veth_skb_is_eligible_for_gro` in Linux).
   */
  limitWire(): void {
    for (const { space } of this.sites) {
      this.lab.sh(space, `ethtool -K ${WIRE} tso off tx-udp-segmentation off gro on`);
    }
  }

  /** Gives both sites their inner addresses, for tunnels without a device that has them. */
  addInner(): void {
    for (const { space, inner } of this.sites) this.lab.sh(space, `ip addr add ${inner}/32 dev lo`);
  }

  /** Starts a program that writes nothing of interest. */
  spawn(site: Site, command: string, args: readonly string[], env = {}): ChildProcess {
    const child = this.lab.spawn(site.space, command, args, env);
    child.stdout!.resume();
    return child;
  }

  /** Has `run` run when the bed is closed, and before its namespaces go. */
  atEnd(run: () => void): void {
    this.#atEnd.push(run);
  }

  /** Waits until `to` answers. Throws when it does not. */
  async ready(from: string, to: string): Promise<void> {
    const command = `ping -n -c 1 -W 1 -I ${from} ${to}`;
    await this.until(this.a, command, READY_MS, `no answer from ${to}`);
  }

  /** Waits until a command succeeds there. Throws `otherwise` when it does not in time. */
  async until({ space }: Site, command: string, ms: number, otherwise: string): Promise<void> {
    const endMs = Date.now() + ms;
    while (this.lab.try(space, command).status !== 0) {
      if (Date.now() > endMs) throw new Error(`${otherwise} within ${ms / 1000} s`);
      await sleep(50);
    }
  }

  /**
   * Throws unless pings are answered and nothing of what they carry is to be seen on the wire: a
   * tunnel that lets packets pass beside it would be very fast.
   */
  async prove(from: string, to: string): Promise<void> {
    const capture = await this.lab.capture(this.a.space, WIRE);
    const { status } = this.lab.try(
      this.a.space,
      `ping -n -c 3 -i 0.05 -W 1 -s 64 -p ${PATTERN} -I ${from} ${to}`,
    );
    const wire = await capture.stop();
    if (status !== 0) throw new Error(`pings to ${to} are not answered`);
    if (wire.packets.length + wire.clear.length < 6)
      throw new Error(`pings to ${to} do not cross the wire`);
    if (occurrences(wire, MARKER) > 0) {
      throw new Error(`pings to ${to} are on the wire in the clear`);
    }
  }

  close(): void {
    if (!open.delete(this)) return;
    for (const run of this.#atEnd) run();
    this.lab.close();
  }

  #join(): void {
    const end = ({ space, wire }: Site) => ({ space, device: WIRE, addresses: [`${wire}/24`] });
    this.lab.wire(end(this.a), end(this.b));
    // Tests look at single packets; here devices have what they come with.
    for (const { space } of this.sites) {
      this.lab.sh(space, `ip link set ${WIRE} gso_max_segs ${SEGMENTS_USUAL}`);
    }
  }

  #site(name: string, wire: string, net: string): Site {
    const space = this.lab.space(name);
    return { space, wire, inner: `${net}.1`, net: `${net}.0/24` };
  }
}
