import {
  type Address,
  address,
  type Family,
  type Prefix,
  prefix,
  sameAddress,
} from '../../base/address.ts';
import { type DiversionTable, type OutDiversion, prefixKey } from './diversion.ts';
import { ENETDOWN, ENODEV, ENOENT, ESRCH, type Netlink, NetlinkError } from './netlink.ts';
import {
  decodeRoute,
  deleteRoute,
  findRoute,
  listRoutes,
  ROUTE_TYPE,
  type Route,
  replaceRoute,
} from './netlink-route.ts';
import type { Network } from './network.ts';

/**
 * The routing table that leads protected destinations into the TUN.
 *
 * Each destination has two routes: by the TUN, and `unreachable` with the worst metric. The second
 * one is what is left when the process dies and the TUN with it: without it, the lookup would go on
 * to the main table and the packets out in the clear.
 */
const METRIC_TUN = 100;
const METRIC_THROW = 3_000_000_000;
const METRIC_BLOCK = 4_000_000_000;

/** Left to the main table even when everything is diverted: what only has a meaning on one wire. */
const LINK_SCOPED: Readonly<Record<Family, readonly Prefix[]>> = {
  4: [prefix('224.0.0.0/4'), prefix('255.255.255.255')],
  6: [prefix('fe80::/10'), prefix('ff00::/8')],
};
/** For "everything": addresses that only a default route can lead to (RFC 5737, RFC 3849). */
const PROBE: Readonly<Record<Family, Address>> = {
  4: address('192.0.2.1'),
  6: address('2001:db8::1'),
};

/** Destinations that are worked on at a time, so that a large table needs little memory. */
const CHUNK_LEN = 1024;

export interface RoutesOptions {
  readonly netlink: Netlink;
  readonly network: Network;
  readonly table: number;
  /** Of our sockets, whose packets the rule leaves alone. */
  readonly mark: number;
  readonly families: readonly Family[];
}

/** What the kernel has for one destination. */
interface Present {
  readonly destination: Prefix;
  isBlocked: boolean;
  isThrough: boolean;
  /** Of the route through the TUN. */
  source: Address | undefined;
}

/** One route to add or delete, and what to note when it is done. */
interface Step {
  readonly verb: 'replace' | 'delete';
  readonly route: Route;
  readonly key: string;
  done(): void;
}

/** A destination that is not to be diverted any more; and one that is, if it is not yet. */
interface Less {
  readonly key: string;
  readonly present: Present;
}

interface More extends Less {
  readonly wish: OutDiversion;
}

/** The routes of our table, as far as the kernel has said that it has them. */
export class Routes {
  readonly #options: RoutesOptions;
  readonly #present = new Map<string, Present>();
  readonly #thrown = new Map<string, Prefix>();
  /** What an earlier process has left; it goes when ours is in place. Undefined: not looked yet. */
  #leftovers: Route[] | undefined;
  readonly #scoped: readonly (readonly [string, Prefix])[];
  #device = 0;

  constructor(options: RoutesOptions) {
    this.#options = options;
    const scoped = options.families.flatMap((family) => LINK_SCOPED[family]);
    this.#scoped = scoped.map((destination) => [prefixKey(destination), destination]);
  }

  /** Index of the TUN; 0 as long as there is none. */
  get device(): number {
    return this.#device;
  }

  set device(index: number) {
    this.#device = index;
  }

  /** Keys of the destinations that the kernel has, and whose sources may have to follow. */
  get keys(): Iterable<string> {
    return this.#present.keys();
  }

  /**
   * Makes the kernel's routes for these destinations say what the diversion says: adds and replaces
   * first, the block before the way through, and then removes, so that no packet finds a gap. A
   * failure of one keeps nothing from the others. Returns the keys of those that failed, and why;
   * for them the kernel diverts at least what both the old and the new diversion do.
   */
  follow(wanted: DiversionTable, keys: Iterable<string>): ReadonlyMap<string, Error> {
    this.#leftovers ??= this.#findLeftovers();
    const failed = new Map<string, Error>();
    for (const some of chunks(keys)) {
      const { more, less } = this.#sort(wanted, some);
      const steps: Step[] = [];
      for (const one of more) this.#block(one, steps);
      this.#throws(wanted, steps);
      this.#ways(more, steps);
      for (const one of less) this.#unway(one, steps);
      for (const one of less) this.#unblock(one, steps);
      this.#unthrows(wanted, steps);
      this.#carryOut(steps, failed);
    }
    this.#removeLeftovers(failed);
    return failed;
  }

  /** The kernel has removed it, or somebody: the next `follow` of the returned key puts it back. */
  lost(route: Route): string | undefined {
    if (route.table !== this.#options.table) return undefined;
    const key = prefixKey(route.destination);
    const present = this.#present.get(key);
    if (route.type === ROUTE_TYPE.throw && this.#thrown.delete(key)) return key;
    if (present && route.type === ROUTE_TYPE.unreachable) present.isBlocked = false;
    else if (present && route.type === ROUTE_TYPE.unicast) present.isThrough = false;
    else return undefined;
    return key;
  }

  /** Notes what the kernel does not have, whoever removed it: `follow` puts it back. */
  check(): void {
    const { netlink, table, families } = this.#options;
    for (const present of this.#present.values()) {
      present.isBlocked = false;
      present.isThrough = false;
    }
    this.#thrown.clear();
    for (const route of routesOf(netlink, table, families)) {
      if (route.type === ROUTE_TYPE.throw && route.metric === METRIC_THROW) {
        this.#thrown.set(prefixKey(route.destination), route.destination);
      }
      const present = this.#present.get(prefixKey(route.destination));
      if (!present) continue;
      if (isBlock(route)) present.isBlocked ||= route.metric === METRIC_BLOCK;
      else if (route.device === this.#device && route.metric === METRIC_TUN) {
        present.isThrough = true;
        present.source = route.source;
      }
    }
  }

  /** The same for all routes through the TUN. */
  lostWays(): void {
    for (const present of this.#present.values()) present.isThrough = false;
  }

  #sort(wanted: DiversionTable, keys: Iterable<string>) {
    const more: More[] = [];
    const less: Less[] = [];
    for (const key of keys) {
      const wish = wanted.out.get(key);
      const present = this.#present.get(key);
      if (wish && this.#options.families.includes(wish.destination.address.family)) {
        more.push({ key, wish, present: present ?? this.#expect(key, wish.destination) });
      } else if (present) less.push({ key, present });
    }
    return { more, less };
  }

  #expect(key: string, destination: Prefix): Present {
    const present = { destination, isBlocked: false, isThrough: false, source: undefined };
    this.#present.set(key, present);
    return present;
  }

  #block({ key, present }: Less, steps: Step[]): void {
    if (present.isBlocked) return;
    const route = this.#blockRoute(present.destination);
    const done = () => {
      present.isBlocked = true;
    };
    steps.push({ verb: 'replace', route, key, done });
  }

  #ways(more: readonly More[], steps: Step[]): void {
    const sources = this.#sources(more.map(({ wish }) => wish));
    for (const [i, { key, present }] of more.entries()) {
      const source = sources[i];
      if (present.isThrough && isSame(present.source, source)) continue;
      const route = this.#wayRoute(present.destination, source);
      const done = () => {
        present.isThrough = true;
        present.source = source;
      };
      steps.push({ verb: 'replace', route, key, done });
    }
  }

  #unway({ key, present }: Less, steps: Step[]): void {
    if (!present.isThrough) return;
    const route = this.#wayRoute(present.destination, undefined);
    const done = () => {
      present.isThrough = false;
    };
    steps.push({ verb: 'delete', route, key, done });
  }

  #unblock({ key, present }: Less, steps: Step[]): void {
    const route = this.#blockRoute(present.destination);
    const done = () => {
      present.isBlocked = false;
      // What still leads through the TUN has to be tried again.
      if (!present.isThrough) this.#present.delete(key);
    };
    steps.push({ verb: 'delete', route, key, done });
  }

  #throws(wanted: DiversionTable, steps: Step[]): void {
    for (const [key, destination] of this.#scoped) {
      if (this.#thrown.has(key) || !isThrown(wanted, key, destination)) continue;
      const done = () => void this.#thrown.set(key, destination);
      steps.push({ verb: 'replace', route: this.#throwRoute(destination), key, done });
    }
  }

  #unthrows(wanted: DiversionTable, steps: Step[]): void {
    for (const [key, destination] of this.#thrown) {
      if (isThrown(wanted, key, destination)) continue;
      const done = () => void this.#thrown.delete(key);
      steps.push({ verb: 'delete', route: this.#throwRoute(destination), key, done });
    }
  }

  #carryOut(steps: readonly Step[], failed: Map<string, Error>): void {
    const requests = steps.map(({ verb, route }) =>
      verb === 'replace' ? replaceRoute(route) : deleteRoute(route),
    );
    const errors = this.#options.netlink.execute(requests);
    for (const [i, { verb, key, done }] of steps.entries()) {
      const error = errors.get(i);
      // Somebody has taken the TUN down. Until it is up again the block is all there is.
      if (error?.errno === ENETDOWN) continue;
      if (error && !(verb === 'delete' && isAbsence(error))) failed.set(key, error);
      else done();
    }
  }

  /**
   * The address that local programs get for each: what they would have without us, unless policies
   * for the destination cover some other addresses of this host and not that one; then the first of
   * those. The kernel is asked only when the answer hangs on it.
   */
  #sources(wishes: readonly OutDiversion[]): (Address | undefined)[] {
    const { network, netlink, mark } = this.#options;
    // Empty if no address is better than any other.
    const covered = wishes.map((wish) => {
      const locals = network.locals(wish.destination.address.family);
      const some = locals.filter((local) => wish.covers(local));
      return some.length < locals.length ? some : [];
    });
    const open = [...wishes.keys()].filter((i) => covered[i]!.length !== 1);
    const questions = open.map((i) => findRoute(probeOf(wishes[i]!.destination), mark));
    const answers = netlink.ask(questions, decodeRoute);
    const sources = covered.map(([first]) => first);
    for (const [k, i] of open.entries()) {
      const answer = answers[k];
      // Refused: there is no route. To the host itself there is nothing to divert.
      if (!answer || answer instanceof NetlinkError || answer.type === ROUTE_TYPE.local) continue;
      const { source } = answer;
      if (!source) continue;
      if (covered[i]!.length === 0 || covered[i]!.some((one) => sameAddress(one, source))) {
        sources[i] = source;
      }
    }
    return sources;
  }

  #findLeftovers(): Route[] {
    return routesOf(this.#options.netlink, this.#options.table, this.#options.families);
  }

  /** The first time, when everything of ours is in place. */
  #removeLeftovers(failed: Map<string, Error>): void {
    const leftovers = this.#leftovers ?? [];
    this.#leftovers = [];
    const stale = leftovers.filter((route) => !this.#isOurs(route));
    // As always, the ways through before the blocks.
    stale.sort((a, b) => Number(isBlock(a)) - Number(isBlock(b)));
    const steps: Step[] = stale.map((route) => ({
      verb: 'delete',
      route,
      key: prefixKey(route.destination),
      done: () => undefined,
    }));
    this.#carryOut(steps, failed);
    this.#leftovers = stale.filter(({ destination }) => failed.has(prefixKey(destination)));
  }

  #isOurs({ destination, type, metric, device }: Route): boolean {
    const key = prefixKey(destination);
    if (type === ROUTE_TYPE.throw) return metric === METRIC_THROW && this.#thrown.has(key);
    const present = this.#present.get(key);
    if (type === ROUTE_TYPE.unreachable) return metric === METRIC_BLOCK && present !== undefined;
    return device === this.#device && metric === METRIC_TUN && present?.isThrough === true;
  }

  #blockRoute(destination: Prefix): Route {
    const { table } = this.#options;
    return { table, destination, type: ROUTE_TYPE.unreachable, metric: METRIC_BLOCK };
  }

  #throwRoute(destination: Prefix): Route {
    const { table } = this.#options;
    return { table, destination, type: ROUTE_TYPE.throw, metric: METRIC_THROW };
  }

  #wayRoute(destination: Prefix, source: Address | undefined): Route {
    const { table } = this.#options;
    const device = this.#device;
    const type = ROUTE_TYPE.unicast;
    if (!source) return { table, destination, type, metric: METRIC_TUN, device };
    return { table, destination, type, metric: METRIC_TUN, device, source };
  }
}

/** Removes all routes of a table. Throws an Error. */
export function flushRoutes(netlink: Netlink, table: number, families: readonly Family[]): void {
  const requests = routesOf(netlink, table, families).map(deleteRoute);
  for (const error of netlink.execute(requests).values()) if (!isAbsence(error)) throw error;
}

function routesOf(netlink: Netlink, table: number, families: readonly Family[]): Route[] {
  return families.flatMap((family) => {
    try {
      return netlink.dump(listRoutes(family, table), (message) => {
        const route = decodeRoute(message);
        return route?.table === table ? route : undefined;
      });
    } catch (error) {
      // A table that never had a route does not exist.
      if (error instanceof NetlinkError && error.errno === ENOENT) return [];
      throw error;
    }
  });
}

/** A policy that names it means it. A part of it has a longer prefix, which wins anyway. */
function isThrown(wanted: DiversionTable, key: string, { address }: Prefix): boolean {
  return wanted.outCount(address.family) > 0 && !wanted.out.has(key);
}

function isBlock({ type }: Route): boolean {
  return type === ROUTE_TYPE.unreachable;
}

function* chunks(keys: Iterable<string>): IterableIterator<readonly string[]> {
  let some: string[] = [];
  for (const key of keys) {
    if (some.push(key) < CHUNK_LEN) continue;
    yield some;
    some = [];
  }
  if (some.length > 0) yield some;
}

function probeOf({ address, length }: Prefix): Address {
  return length > 0 ? address : PROBE[address.family];
}

function isSame(a: Address | undefined, b: Address | undefined): boolean {
  return a === undefined || b === undefined ? a === b : sameAddress(a, b);
}

/** It was gone already, or its device. */
function isAbsence({ errno }: NetlinkError): boolean {
  return errno === ESRCH || errno === ENOENT || errno === ENODEV;
}
