import type { Instruction } from './bpf.ts';
import type { InDiversions } from './diversion.ts';
import { ingressDevices, removeFilter, removeIngress } from './ingress.ts';
import { EEXIST, ENODEV, type Netlink } from './netlink.ts';
import { addIngress, replaceFilter } from './netlink-filter.ts';
import { type Network, reversePathFilter, setReversePathFilter, type Wire } from './network.ts';
import { compileFilter, isSameProgram, type SocketPort } from './redirect-filter.ts';
import { loadState, removeState, type State, saveState } from './state-file.ts';

export interface WiresOptions {
  readonly netlink: Netlink;
  readonly network: Network;
  readonly wires: readonly string[] | 'auto';
  readonly filterPref: number;
  readonly stateFile: string;
  readonly encapPort?: number | undefined;
}

interface PresentWire {
  readonly wire: Wire;
  /** What the kernel runs there; `none`: nothing of ours; `unknown`: whatever it is, set it. */
  program: readonly Instruction[] | 'none' | 'unknown';
}

/** What we change on the devices that packets come and go by, and how it is undone. */
export class Wires {
  readonly #options: WiresOptions;
  readonly #state: State;
  /**
   * Whether an earlier process has left its changes, which may be all that blocks clear packets
   * now.
   */
  readonly tookOver: boolean;
  /** UDP ports that programs have bound, whose ESP is redirected. */
  sharedPorts: readonly number[] = [];
  /** Where sockets of a device of their own take clear packets. */
  socketPorts: readonly SocketPort[] = [];
  /** By name. */
  #present = new Map<string, PresentWire>();
  #mtu: number | undefined;

  /** Takes over what an earlier process has left, if it has. */
  constructor(options: WiresOptions) {
    this.#options = options;
    this.#state = loadState(options.stateFile);
    this.tookOver = this.#state.size > 0;
  }

  /** The smallest MTU of all wires that are up, or undefined without a wire. */
  get mtu(): number | undefined {
    return this.#mtu;
  }

  /**
   * Looks which devices the network has, and loosens their reverse path filter: a strict one (RFC
   * 3704 §2.2) drops all ESP, whose source is routed to the TUN. Also those that are down: when one
   * comes up, packets may be faster than we are. Returns whether one of them has no filter yet.
   */
  find(): boolean {
    const found = new Map<string, PresentWire>();
    let isNew = false;
    for (const wire of this.#options.network.wires(this.#options.wires)) {
      const known = this.#present.get(wire.name);
      const isSame = known?.wire.index === wire.index;
      if (known && !isSame) this.#state.delete(wire.name);
      const isAlike = isSame && known.wire.linkHeaderLen === wire.linkHeaderLen;
      found.set(wire.name, { wire, program: isAlike ? known.program : 'unknown' });
      isNew ||= !isAlike;
    }
    this.#present = found;
    const mtus = [...found.values()].flatMap(({ wire }) => (wire.up ? [wire.mtu] : []));
    this.#mtu = mtus.length === 0 ? undefined : Math.min(...mtus);
    if (isNew) this.#loosen();
    return isNew;
  }

  /**
   * Redirects clear packets to a device, by its index, on all wires as the diversion says. Throws
   * an Error when a wire could not follow, after all others have.
   */
  setFilters(diversion: InDiversions, target: number): void {
    const { encapPort } = this.#options;
    const { sharedPorts, socketPorts } = this;
    const programs = new Map<number, readonly Instruction[] | 'none'>();
    const stale: [PresentWire, readonly Instruction[]][] = [];
    for (const present of this.#present.values()) {
      const { linkHeaderLen, index } = present.wire;
      const options = { linkHeaderLen, encapPort, sharedPorts, socketPorts };
      const program = programs.get(linkHeaderLen) ?? compileFilter(diversion, options) ?? 'none';
      programs.set(linkHeaderLen, program);
      if (isSame(present.program, program)) continue;
      if (program === 'none') {
        removeFilter(this.#options.netlink, index, this.#pref);
        present.program = program;
      } else stale.push([present, program]);
    }
    if (stale.length > 0) this.#redirect(stale, target);
    this.#releaseOthers();
  }

  /**
   * Somebody may have removed the filter of a device, or what it hangs on: `setFilters` puts it
   * back. Returns whether there was one.
   */
  lost(device: number | 'all'): boolean {
    let isOurs = false;
    for (const present of this.#present.values()) {
      if (device !== 'all' && present.wire.index !== device) continue;
      isOurs ||= typeof present.program !== 'string';
      present.program = 'unknown';
    }
    return isOurs;
  }

  /** Undoes everything on all wires, also on those that an earlier process has changed. */
  restore(): void {
    const { network, netlink, stateFile } = this.#options;
    for (const { index } of network.wires('auto')) removeFilter(netlink, index, this.#pref);
    for (const name of [...this.#state.keys()]) this.#release(name);
    removeState(stateFile);
  }

  /**
   * Undoes what `find` has done, and nothing else: filters at the wires are those of another host
   * as long as `setFilters` was not called.
   */
  unfind(): void {
    for (const [name, state] of this.#state) setReversePathFilter(name, state.reversePathFilter);
    this.#state.clear();
    removeState(this.#options.stateFile);
  }

  get #pref(): number {
    return this.#options.filterPref;
  }

  /** What was there is written down before it is changed. */
  #loosen(): void {
    const strict: string[] = [];
    let isNoted = true;
    for (const name of this.#present.keys()) {
      const before = reversePathFilter(name);
      if (before === undefined) continue;
      if (before !== LOOSE) strict.push(name);
      if (this.#state.has(name)) continue;
      this.#state.set(name, { reversePathFilter: before, madeIngress: false });
      isNoted = false;
    }
    if (!isNoted) saveState(this.#options.stateFile, this.#state);
    for (const name of strict) setReversePathFilter(name, LOOSE);
  }

  #redirect(stale: readonly [PresentWire, readonly Instruction[]][], target: number): void {
    const { netlink } = this.#options;
    this.#ensureIngress(stale.map(([{ wire }]) => wire));
    const requests = stale.map(([{ wire }, program]) =>
      replaceFilter(wire, this.#pref, program, target),
    );
    const errors = netlink.execute(requests);
    let failure: Error | undefined;
    for (const [i, [present, program]] of stale.entries()) {
      const error = errors.get(i);
      if (!error) present.program = program;
      // The device has vanished since.
      else if (error.errno !== ENODEV) {
        present.program = 'unknown';
        failure ??= error;
      }
    }
    if (failure) throw failure;
  }

  #ensureIngress(wires: readonly Wire[]): void {
    const { netlink } = this.#options;
    const has = ingressDevices(netlink);
    const missing = wires.filter(({ index }) => !has.has(index));
    if (missing.length === 0) return;
    for (const { name } of missing) {
      const state = this.#state.get(name);
      if (state) this.#state.set(name, { ...state, madeIngress: true });
    }
    // Written down first: after a crash in between, the next process looks for something that is
    // not there.
    saveState(this.#options.stateFile, this.#state);
    const errors = netlink.execute(missing.map(({ index }) => addIngress(index)));
    for (const error of errors.values()) {
      if (error.errno !== ENODEV && error.errno !== EEXIST) throw error;
    }
  }

  /**
   * Wires that are no longer ours to guard: gone, or left by an earlier process with other wires.
   */
  #releaseOthers(): void {
    const others = [...this.#state.keys()].filter((name) => !this.#present.has(name));
    for (const name of others) this.#release(name);
    if (others.length > 0) saveState(this.#options.stateFile, this.#state);
  }

  #release(name: string): void {
    const { netlink, network } = this.#options;
    const state = this.#state.get(name);
    const device = network.device(name);
    if (state && device) {
      removeFilter(netlink, device.index, this.#pref);
      if (state.madeIngress) removeIngress(netlink, device.index);
      setReversePathFilter(name, state.reversePathFilter);
    }
    this.#state.delete(name);
  }
}

const LOOSE = '2';

function isSame(present: PresentWire['program'], wanted: readonly Instruction[] | 'none') {
  if (typeof present === 'string' || typeof wanted === 'string') return present === wanted;
  return isSameProgram(present, wanted);
}
