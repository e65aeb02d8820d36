import { existsSync } from 'node:fs';
import type { Diversion } from './diversion.ts';
import { ensureIngress, hasIngress, removeFilter, removeIngress, setFilter } from './ingress.ts';
import { findWires, reversePathFilter, setReversePathFilter, type Wire } from './network.ts';
import { bytecode, compileFilter } from './redirect-filter.ts';
import { loadState, removeState, type State, saveState } from './state-file.ts';

export interface WiresOptions {
  readonly wires: readonly string[] | 'auto';
  readonly filterPref: number;
  readonly stateFile: string;
  readonly encapPort?: number | undefined;
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
  /** The devices as last seen, with the program that is set there now. */
  #present = new Map<string, { readonly wire: Wire; program: string }>();

  /** Takes over what an earlier process has left, if it has. */
  constructor(options: WiresOptions) {
    this.#options = options;
    this.#state = loadState(options.stateFile);
    this.tookOver = this.#state.size > 0;
  }

  /** The smallest MTU of all wires that are up, or undefined without a wire. */
  get mtu(): number | undefined {
    const all = [...this.#present.values()].flatMap(({ wire }) => (wire.up ? [wire.mtu] : []));
    return all.length === 0 ? undefined : Math.min(...all);
  }

  /**
   * Looks which devices there are, and loosens their reverse path filter: a strict one (RFC 3704
   * §2.2) drops all ESP, whose source is routed to the TUN.
   */
  find(): void {
    const found = new Map<string, { wire: Wire; program: string }>();
    for (const wire of findWires(this.#options.wires)) {
      const known = this.#present.get(wire.name);
      // One that went down stays guarded: when it comes up again, packets may be faster than we
      // are.
      if (!wire.up && !known && this.#options.wires === 'auto') continue;
      const same = known?.wire.index === wire.index;
      if (known && !same) this.#state.delete(wire.name);
      found.set(wire.name, { wire, program: same ? known.program : '' });
      this.#loosen(wire.name);
    }
    this.#present = found;
  }

  /** Redirects clear packets to `device` on all wires as the diversion says. */
  setFilters(diversion: Diversion, device: string): void {
    const { encapPort } = this.#options;
    const { sharedPorts } = this;
    for (const present of this.#present.values()) {
      const { name, linkHeaderLen } = present.wire;
      const program = compileFilter(diversion, { linkHeaderLen, encapPort, sharedPorts });
      const text = program ? bytecode(program) : 'none';
      if (text === present.program) continue;
      this.#ifThere(name, () => {
        if (program) this.#redirect(name, () => setFilter(name, this.#pref, program, device));
        else removeFilter(name, this.#pref);
        present.program = text;
      });
    }
    this.#releaseOthers();
  }

  /** Undoes everything on all wires, also on those that an earlier process has changed. */
  restore(): void {
    for (const { name } of findWires('auto')) removeFilter(name, this.#pref);
    for (const name of [...this.#state.keys()]) this.#release(name);
    removeState(this.#options.stateFile);
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

  #loosen(name: string): void {
    const before = reversePathFilter(name);
    if (before === undefined) return;
    if (!this.#state.has(name)) {
      this.#state.set(name, { reversePathFilter: before, madeIngress: false });
      saveState(this.#options.stateFile, this.#state);
    }
    if (before !== LOOSE) setReversePathFilter(name, LOOSE);
  }

  #redirect(name: string, set: () => void): void {
    const state = this.#state.get(name);
    if (state && !hasIngress(name)) {
      // Written down first: after a crash in between, the next process looks for something that is
      // not there.
      this.#state.set(name, { ...state, madeIngress: true });
      saveState(this.#options.stateFile, this.#state);
    }
    ensureIngress(name);
    set();
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
    const state = this.#state.get(name);
    if (state && exists(name)) {
      removeFilter(name, this.#pref);
      if (state.madeIngress) removeIngress(name);
      setReversePathFilter(name, state.reversePathFilter);
    }
    this.#state.delete(name);
  }

  /** A device can vanish at any time; what fails because of that is no failure. */
  #ifThere(name: string, change: () => void): void {
    try {
      change();
    } catch (error) {
      if (exists(name)) throw error;
    }
  }
}

const LOOSE = '2';

function exists(name: string): boolean {
  return existsSync(`/sys/class/net/${name}`);
}
