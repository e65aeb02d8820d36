import type { Address, Family } from '../../base/address.ts';
import type { DiversionTable } from './diversion.ts';
import { undoing } from './leftovers.ts';
import type { Libc } from './libc.ts';
import { type Netlink, openNetlink } from './netlink.ts';
import { Network } from './network.ts';
import { type NetworkWatch, watchNetwork } from './network-watch.ts';
import { type News, NewsDesk } from './news.ts';
import type { SocketPort } from './redirect-filter.ts';
import { Routes } from './routes.ts';
import { addRule, removeRule } from './rule.ts';
import { Wires } from './wires.ts';

export interface DiverterOptions {
  readonly table: number;
  /** Tables that others of this process keep: what changes there is not news. */
  readonly otherTables?: readonly number[];
  readonly rulePref: number;
  readonly mark: number;
  readonly families: readonly Family[];
  readonly wires: readonly string[] | 'auto';
  readonly stateFile: string;
  readonly encapPort?: number | undefined;
}

export interface DiverterEvents {
  /**
   * Devices, addresses or routes have changed, so perhaps the MTU of the wires; what can be guarded
   * is.
   */
  changed(): void;
  /** The machine could not follow a change of the network. `refresh` tries again. */
  failed(error: Error): void;
}

/** Before there is a table: ports are redirected without one. */
const NOTHING = { in: [], all: false } as const;
/** Destinations whose source addresses are looked at in one turn of the event loop. */
const EXAMINE_LEN = 500;
/** How long changes of other routes are collected, and how much longer for each destination. */
const SETTLE_MS = 100;
const SETTLE_MS_EACH = 0.02;

/**
 * Leads the packets of a namespace into two TUN devices, as a table says, and keeps doing so when
 * the network changes, or when somebody removes what is needed for it: the kernel's notices are
 * followed at once.
 */
export class Diverter {
  readonly #options: DiverterOptions;
  readonly #netlink: Netlink;
  readonly #network = new Network();
  readonly #routes: Routes;
  readonly #wires: Wires;
  readonly #news: NewsDesk;
  readonly #addedRules: Family[] = [];
  #watch: NetworkWatch | undefined;
  #events: DiverterEvents | undefined;
  #tun = '';
  #inspect = '';
  /** Undefined until the first `divert`: until then nothing is changed but what was found. */
  #table: DiversionTable | undefined;
  /** Destinations whose routes could not follow. */
  readonly #failed = new Map<string, Error>();
  #areFiltersStale = false;
  #unexamined: readonly string[] = [];
  #examining: NodeJS.Immediate | undefined;
  #settling: NodeJS.Timeout | undefined;

  /** Changes nothing yet. Throws an Error. */
  constructor(c: Libc, options: DiverterOptions) {
    const { table, mark, families, wires, stateFile, encapPort, rulePref: filterPref } = options;
    const { otherTables = [] } = options;
    this.#options = options;
    const netlink = openNetlink(c);
    this.#netlink = netlink;
    const network = this.#network;
    this.#routes = new Routes({ netlink, network, table, mark, families });
    try {
      this.#wires = new Wires({ netlink, network, wires, stateFile, encapPort, filterPref });
      const subjects = { network, routes: this.#routes, wires: this.#wires };
      this.#news = new NewsDesk({ ...subjects, table, otherTables, filterPref });
      // First, so that nothing that changes meanwhile is missed.
      this.#watch = watchNetwork(c, netlink.portId, {
        note: (message) => this.#news.note(message),
        lost: () => this.#news.lost(),
        settled: () => this.#settle(),
      });
      network.read(netlink);
    } catch (error) {
      this.#watch?.close();
      netlink.close();
      throw error;
    }
  }

  /** Finds the wires, and makes them fit for ESP. Throws an Error. */
  open(): void {
    this.#wires.find();
  }

  /** The smallest MTU of all wires that are up, or undefined without a wire. */
  get mtu(): number | undefined {
    return this.#wires.mtu;
  }

  /** Of this host, on all devices that are up. */
  get addresses(): readonly Address[] {
    return this.#network.addresses();
  }

  get netlink(): Netlink {
    return this.#netlink;
  }

  follow(events: DiverterEvents): void {
    this.#events = events;
  }

  /**
   * The devices that packets are led into are there now, by these names: from now on the table of
   * routes is asked for all packets but our own. Throws an Error.
   */
  start(tun: string, inspect: string): void {
    this.#tun = tun;
    this.#inspect = inspect;
    this.#watch?.drain();
    this.#routes.device = this.#index(tun);
    const { families, table, rulePref: pref, mark } = this.#options;
    for (const family of families) {
      if (addRule(this.#netlink, family, { table, pref, mark })) this.#addedRules.push(family);
    }
  }

  /** The kernel's number of a device. Throws an Error without the device. */
  index(name: string): number {
    this.#watch?.drain();
    return this.#index(name);
  }

  /**
   * Brings the machine in line with what has changed in the table since the last call; without a
   * change, tries again what has failed. Throws an Error when some of it could not be done; then
   * what both the old and the new table divert still is.
   */
  divert(table: DiversionTable): void {
    this.#watch?.drain();
    this.#settle();
    const changes = table.takeChanges();
    const isFirst = this.#table === undefined;
    this.#table = table;
    const isRetry = !isFirst && changes.out.size === 0 && !changes.in;
    const keys = isRetry ? new Set(this.#failed.keys()) : changes.out;
    const errors: Error[] = [];
    if (isFirst || keys.size > 0) errors.push(...this.#follow(keys));
    this.#areFiltersStale ||= isFirst || changes.in;
    if (isFirst || changes.in || (isRetry && this.#areFiltersStale)) {
      errors.push(...this.#setFilters());
    }
    for (const error of errors) throw error;
  }

  /** UDP ports of programs whose ESP is redirected. Throws as `divert`; then it is as before. */
  sharePorts(ports: readonly number[]): void {
    const before = this.#wires.sharedPorts;
    this.#wires.sharedPorts = ports;
    if (!this.#table) return;
    for (const error of this.#setFilters()) {
      this.#wires.sharedPorts = before;
      throw error;
    }
  }

  /** TCP and UDP that is redirected by its port. Throws as `divert`; then it is as before. */
  divertPorts(ports: readonly SocketPort[]): void {
    const before = this.#wires.socketPorts;
    this.#wires.socketPorts = ports;
    for (const error of this.#setFilters()) {
      this.#wires.socketPorts = before;
      throw error;
    }
  }

  /**
   * Looks at everything anew, whatever the kernel has said, and puts right what is not. Throws an
   * Error.
   */
  refresh(): void {
    this.#news.take();
    const { families, table: id, rulePref: pref, mark } = this.#options;
    this.#network.read(this.#netlink);
    this.#wires.find();
    const table = this.#table;
    this.#wires.lost('all');
    if (!table) {
      const errors = this.#wires.socketPorts.length > 0 ? this.#setFilters() : [];
      for (const error of errors) throw error;
      return;
    }
    for (const family of families) addRule(this.#netlink, family, { table: id, pref, mark });
    this.#routes.device = this.#index(this.#tun);
    this.#routes.check();
    const errors = this.#setFilters();
    errors.push(...this.#follow([...table.out.keys(), ...this.#failed.keys()]));
    for (const error of errors) throw error;
  }

  /** Undoes all of it. Throws an Error when something stays, with all the rest undone. */
  restore(): (() => void)[] {
    // What has come since is undone too.
    this.#watch?.drain();
    this.#stop();
    return undoing(this.#netlink, this.#wires, this.#options);
  }

  /**
   * After a failed start: undoes what we did, but what an earlier process has left goes on
   * blocking, and what another one has set stays.
   */
  abandon(): (() => void)[] {
    this.#stop();
    const { table, rulePref: pref } = this.#options;
    return [
      ...this.#addedRules.map((family) => () => removeRule(this.#netlink, family, { table, pref })),
      () => this.#wires.tookOver || this.#wires.unfind(),
    ];
  }

  close(): void {
    this.#stop();
    this.#netlink.close();
  }

  #stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
    clearTimeout(this.#settling);
    clearImmediate(this.#examining);
  }

  /** Does what has to follow from the notices so far. What fails is told to the events. */
  #settle(): void {
    const news = this.#news.take();
    if (!news) return;
    const errors: Error[] = [];
    try {
      if (news.isLost) this.refresh();
      else errors.push(...this.#act(news));
    } catch (error) {
      errors.push(error as Error);
    }
    if (errors[0]) this.#events?.failed(errors[0]);
    if (news.devices || news.sources || news.isLost) this.#events?.changed();
    else if (news.routes) this.#examineSoon();
  }

  /** What leaks comes first. */
  #act(news: News): Error[] {
    if (news.devices) this.#wires.find();
    const isGuarding = this.#table !== undefined || this.#wires.socketPorts.length > 0;
    const errors = isGuarding && (news.devices || news.filters) ? this.#setFilters() : [];
    if (!this.#table) return errors;
    if (news.rules) this.#putBackRules();
    // When the TUN goes down its routes go, and only those of IPv6 are told; the blocks stay.
    if (this.#news.areWaysLost()) {
      this.#routes.lostWays();
      errors.push(...this.#follow(this.#routes.keys));
    } else if (news.lostRoutes.size > 0) errors.push(...this.#follow(news.lostRoutes));
    if (news.sources) this.#examineAll();
    return errors;
  }

  #putBackRules(): void {
    const { families, table, rulePref: pref, mark } = this.#options;
    for (const family of families) addRule(this.#netlink, family, { table, pref, mark });
  }

  #follow(keys: Iterable<string>): Error[] {
    const all = [...keys];
    try {
      const failed = this.#routes.follow(this.#table!, all);
      for (const key of all) this.#failed.delete(key);
      for (const [key, error] of failed) this.#failed.set(key, error);
      return [...failed.values()];
    } catch (error) {
      // Nobody knows what was done.
      for (const key of all) this.#failed.set(key, error as Error);
      this.#news.lost();
      return [error as Error];
    }
  }

  #setFilters(): Error[] {
    try {
      this.#wires.setFilters(this.#table ?? NOTHING, this.#index(this.#inspect));
      this.#areFiltersStale = false;
      return [];
    } catch (error) {
      this.#areFiltersStale = true;
      return [error as Error];
    }
  }

  /** The sources of our routes follow addresses and other routes, some at a time. */
  #examineAll(): void {
    this.#unexamined = [...this.#routes.keys];
    this.#examineSome();
  }

  #examineSome(): void {
    clearImmediate(this.#examining);
    const some = this.#unexamined.slice(0, EXAMINE_LEN);
    this.#unexamined = this.#unexamined.slice(EXAMINE_LEN);
    const [error] = this.#follow(some);
    if (error) this.#events?.failed(error);
    if (this.#unexamined.length > 0) {
      this.#examining = setImmediate(() => this.#examineSome());
    }
  }

  #examineSoon(): void {
    const delayMs = SETTLE_MS + SETTLE_MS_EACH * (this.#table?.out.size ?? 0);
    this.#settling ??= setTimeout(() => {
      this.#settling = undefined;
      if (this.#table) this.#examineAll();
      this.#events?.changed();
    }, delayMs);
  }

  #index(name: string): number {
    const device = this.#network.device(name);
    if (!device) throw new Error(`the device ${name} is gone`);
    return device.index;
  }
}
