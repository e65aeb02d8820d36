import { writeFileSync } from 'node:fs';
import {
  address,
  type Family,
  formatAddress,
  formatPrefix,
  type Prefix,
  prefix,
} from '../../base/address.ts';
import type { Libc } from './libc.ts';
import { libc } from './libc.ts';
import {
  EEXIST,
  ENOENT,
  type Netlink,
  NetlinkError,
  type NetlinkRequest,
  NLM_F_CREATE,
  NLM_F_EXCL,
  withNetlink,
} from './netlink.ts';
import {
  addHostAddress,
  decodeAddress,
  decodeDevice,
  findDevice,
  listAddresses,
} from './netlink-link.ts';
import {
  decodeRoute,
  deleteRoute,
  inetOf,
  listRoutes,
  ROUTE_TYPE,
  type Route,
  replaceRoute,
} from './netlink-route.ts';
import type { OffloadWish } from './offload.ts';
import { openTun, type TunLink } from './tun.ts';

/**
 * A TUN device for the sockets that are bound to it, whatever they are bound for. A rule in front
 * of all others leads what they send to a table of its own: each destination of the main table by
 * this device, with the source that the socket would have had without it. When the process ends
 * the device goes, and sockets that are bound to it can send no more; the rule that is left leads
 * nowhere.
 */
export interface SocketDevice {
  readonly link: TunLink;
  readonly name: string;
  readonly index: number;
  setMtu(mtu: number): void;
  /** Routes or addresses of the machine may have changed. */
  refresh(): void;
  close(): void;
}

export interface SocketDeviceOptions {
  readonly name: string;
  readonly table: number;
  /** Of the rule; before every other one that could lead the packets elsewhere. */
  readonly pref: number;
  readonly mtu: number;
  readonly families: readonly Family[];
  readonly offload?: OffloadWish;
}

const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const FRA_PRIORITY = 6;
const FRA_TABLE = 15;
const FRA_OIFNAME = 17;
const FR_ACT_TO_TBL = 1;
const MAIN_TABLE = 254;
const METRIC = 100;
/** Of the main table; those that are left out get the source of the default route. */
const ROUTES_MAX = 1000;
const EVERYTHING: Readonly<Record<Family, Prefix>> = { 4: prefix('0.0.0.0/0'), 6: prefix('::/0') };
/** Without an address, Linux applies the strict reverse path filter (RFC 7600 §4.8). */
const ADDRESS = address('192.0.0.8');

/** Needs CAP_NET_ADMIN. Throws an Error, with everything undone. */
export function openSocketDevice(options: SocketDeviceOptions): SocketDevice {
  const { name, mtu, families, offload = 'auto' } = options;
  const c = libc('policies of sockets');
  const link = openTun({ name, mtu, offload });
  try {
    const index = withNetlink(c, (netlink) => {
      const [found] = netlink.ask([findDevice(name)], decodeDevice);
      if (found === undefined || found instanceof NetlinkError) {
        throw found ?? new Error(`there is no device ${name}`);
      }
      netlink.run(addHostAddress(found.index, ADDRESS, 32));
      writeFileSync(`/proc/sys/net/ipv4/conf/${name}/rp_filter`, '2');
      for (const family of families) mirrorRoutes(netlink, family, options, found.index);
      for (const family of families) addRule(netlink, family, options);
      return found.index;
    });
    return {
      link,
      name,
      index,
      setMtu: (octets) => link.setMtu(octets),
      refresh: () =>
        withNetlink(c, (netlink) => {
          for (const family of families) mirrorRoutes(netlink, family, options, index);
        }),
      close() {
        link.close();
        removeSocketRules(c, options);
      },
    };
  } catch (error) {
    link.close();
    throw error;
  }
}

/** Also what a process that was killed has left. */
export function removeSocketRules(
  c: Libc,
  options: Pick<SocketDeviceOptions, 'table' | 'pref' | 'families'>,
): void {
  withNetlink(c, (netlink) => {
    const requests = options.families.map((family) => ruleRequest(RTM_DELRULE, family, options));
    for (const error of netlink.execute(requests).values()) {
      if (error.errno !== ENOENT) throw error;
    }
  });
}

function addRule(netlink: Netlink, family: Family, options: SocketDeviceOptions): void {
  for (const error of netlink.execute([ruleRequest(RTM_NEWRULE, family, options)]).values()) {
    // Of a process that was killed.
    if (error.errno !== EEXIST) throw error;
  }
}

function ruleRequest(
  type: number,
  family: Family,
  { name, table, pref }: Pick<SocketDeviceOptions, 'table' | 'pref'> & { readonly name?: string },
): NetlinkRequest {
  const verb = type === RTM_NEWRULE ? 'add' : 'delete';
  return {
    what: () => `${verb} the rule for sockets (IPv${family})`,
    type,
    flags: type === RTM_NEWRULE ? NLM_F_CREATE | NLM_F_EXCL : 0,
    write(writer) {
      writer.u8(inetOf(family)).u8(0).u8(0).u8(0);
      writer.u8(0).u8(0).u8(0).u8(FR_ACT_TO_TBL).u32(0);
      writer.attributeU32(FRA_PRIORITY, pref);
      writer.attributeU32(FRA_TABLE, table);
      // Without a name, the one of whatever device.
      if (name !== undefined) writer.attributeText(FRA_OIFNAME, name);
    },
  };
}

/**
 * Makes the table say what the main one does, by the device; adds first, then removes. What is as
 * it should be is not touched: each change is told to all who follow the network, us included.
 */
function mirrorRoutes(
  netlink: Netlink,
  family: Family,
  { table }: SocketDeviceOptions,
  device: number,
): void {
  const wanted = wantedRoutes(netlink, family, table, device);
  const present = presentRoutes(netlink, family, table);
  const there = new Set(present.map(textOf));
  const missing = [...wanted.values()].filter((route) => !there.has(textOf(route)));
  for (const i of netlink.execute(missing.map(replaceRoute)).keys()) {
    // An address that is not usable yet: then the kernel chooses.
    const { source: _, ...route } = missing[i]!;
    if (!there.has(textOf(route))) netlink.run(replaceRoute(route));
  }
  const stale = present.filter(({ destination }) => !wanted.has(formatPrefix(destination)));
  netlink.execute(stale.map(deleteRoute));
}

function presentRoutes(netlink: Netlink, family: Family, table: number): Route[] {
  try {
    return netlink
      .dump(listRoutes(family, table), decodeRoute)
      .filter((route) => route.table === table && route.type === ROUTE_TYPE.unicast);
  } catch (error) {
    // A table without routes does not exist.
    if (error instanceof NetlinkError && error.errno === ENOENT) return [];
    throw error;
  }
}

function textOf({ destination, device, source, metric }: Route): string {
  const from = source ? formatAddress(source) : '';
  return `${formatPrefix(destination)} ${device} ${from} ${metric}`;
}

function wantedRoutes(
  netlink: Netlink,
  family: Family,
  table: number,
  device: number,
): Map<string, Route> {
  const sources = family === 4 ? primaryAddresses(netlink) : new Map<number, Route['source']>();
  const wanted = new Map<string, Route>();
  const main = netlink
    .dump(listRoutes(family, MAIN_TABLE), decodeRoute)
    .filter((route) => route.table === MAIN_TABLE && route.type === ROUTE_TYPE.unicast)
    .sort((a, b) => a.metric - b.metric)
    .slice(0, ROUTES_MAX);
  main.push(routeTo(EVERYTHING[family], table, device, undefined));
  for (const route of main) {
    const key = formatPrefix(route.destination);
    if (wanted.has(key)) continue;
    const source = route.source ?? sources.get(route.device ?? 0);
    wanted.set(key, routeTo(route.destination, table, device, source));
  }
  return wanted;
}

function routeTo(
  destination: Prefix,
  table: number,
  device: number,
  source: Route['source'],
): Route {
  const route = { table, destination, type: ROUTE_TYPE.unicast, metric: METRIC, device };
  return source === undefined ? route : { ...route, source };
}

/** What a route without a source of its own gives: the first address of its device. */
function primaryAddresses(netlink: Netlink): Map<number, Route['source']> {
  const found = new Map<number, Route['source']>();
  for (const { address: one, device, scope } of netlink.dump(listAddresses(), decodeAddress)) {
    if (one.family !== 4 || scope !== 'global' || found.has(device)) continue;
    found.set(device, one);
  }
  return found;
}
