import type { Family, Prefix } from '../../base/address.ts';
import {
  ADDRESS_BITS,
  formatAddress,
  formatPrefix,
  parsePrefix,
  prefix,
} from '../../base/address.ts';
import type { Diversion } from './diversion.ts';
import { ifLocal, localAddresses, usualSource } from './network.ts';
import { type JsonObject, list, runBatch, textOf, tryRun } from './tools.ts';

/**
 * The routing table that leads protected destinations into the TUN, and the rule that consults it
 * for all packets but our own.
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
const EVERYTHING: Readonly<Record<Family, Prefix>> = { 4: prefix('0.0.0.0/0'), 6: prefix('::/0') };

export interface RouteContext {
  readonly table: number;
  readonly tun: string;
  readonly mark: number;
  readonly families: readonly Family[];
}

/**
 * Makes the table say what the diversion says, whatever it says now: adds and replaces first, then
 * removes, so that no packet finds a gap. Throws an Error; then the table diverts at least what
 * both the old and the new diversion do.
 */
export function applyRoutes(diversion: Diversion, context: RouteContext): void {
  const local = localAddresses();
  for (const family of context.families) {
    const desired = desiredRoutes(diversion, family, local, context);
    const before = presentRoutes(family, context.table);
    const missing = [...desired].filter((route) => !before.has(route));
    // The block goes in before the way through: "unreachable" is the end of a route list, and no
    // gap.
    missing.sort((a, b) => Number(isTunRoute(a)) - Number(isTunRoute(b)));
    runBatch(
      'ip',
      [`-${family}`],
      missing.map((route) => `route replace ${route}${isTunRoute(route) ? TUN_SCOPE : ''}`),
    );
    const stale = [...presentRoutes(family, context.table)].filter((route) => !desired.has(route));
    stale.sort((a, b) => Number(isTunRoute(b)) - Number(isTunRoute(a)));
    runBatch(
      'ip',
      [`-${family}`],
      stale.map((route) => `route del ${route}`),
    );
  }
}

/** Removes all routes of the table. */
export function flushRoutes(table: number, family: Family): void {
  // Fails when the table was never made, which is as good.
  tryRun('ip', [`-${family}`, 'route', 'flush', 'table', String(table)]);
}

/**
 * Not the usual scope of a route without a gateway, "link": when somebody adds a route by a gateway
 * that is diverted, and names no device, the kernel looks the gateway up among routes of that
 * scope, would find ours, and send what we have protected back to us.
 */
const TUN_SCOPE = ' scope global';

function isTunRoute(route: string): boolean {
  return route.includes(' dev ');
}

/** The routes as iproute2's arguments, in one spelling, so that two lists can be compared. */
function desiredRoutes(
  diversion: Diversion,
  family: Family,
  local: ReadonlySet<string>,
  context: RouteContext,
): Set<string> {
  const { table, tun, mark } = context;
  const sources = new Map<string, { to: Prefix; source: string | undefined }>();
  const out = diversion.all
    ? [...diversion.out, { destination: EVERYTHING[family] }]
    : diversion.out;
  for (const { destination, source } of out) {
    if (destination.address.family !== family) continue;
    const given = source?.family === family ? ifLocal(source, local) : undefined;
    const known = sources.get(formatPrefix(destination));
    if (known?.source === undefined) {
      sources.set(formatPrefix(destination), { to: destination, source: given });
    }
  }
  const routes = new Set<string>();
  for (const { to, source } of sources.values()) {
    const from = source ?? usualSource(to, mark);
    const src = from === undefined ? '' : ` src ${from}`;
    routes.add(`unreachable ${spell(to)} table ${table} metric ${METRIC_BLOCK}`);
    routes.add(`${spell(to)} dev ${tun}${src} table ${table} metric ${METRIC_TUN}`);
  }
  for (const scoped of LINK_SCOPED[family]) {
    // A policy that names them means them. A part of them has a longer prefix, which wins anyway.
    if (sources.has(formatPrefix(scoped)) || sources.size === 0) continue;
    routes.add(`throw ${spell(scoped)} table ${table} metric ${METRIC_THROW}`);
  }
  return routes;
}

function presentRoutes(family: Family, table: number): Set<string> {
  const routes = new Set<string>();
  let found: readonly JsonObject[];
  try {
    found = list('ip', [`-${family}`, 'route', 'show', 'table', String(table)]);
  } catch {
    // A table without routes does not exist: "FIB table does not exist".
    return routes;
  }
  for (const route of found) {
    const type = textOf(route, 'type');
    const to = spellRoute(textOf(route, 'dst') ?? 'default', family);
    const end = ` table ${table} metric ${Number(route.metric ?? 0)}`;
    if (type !== undefined && type !== 'unicast') {
      routes.add(`${type} ${to}${end}`);
    } else {
      const source = textOf(route, 'prefsrc');
      const src = source === undefined ? '' : ` src ${source}`;
      routes.add(`${to} dev ${textOf(route, 'dev') ?? 'lo'}${src}${end}`);
    }
  }
  return routes;
}

function spell(to: Prefix): string {
  if (to.length === 0) return 'default';
  return to.length === ADDRESS_BITS[to.address.family]
    ? formatAddress(to.address)
    : formatPrefix(to);
}

function spellRoute(text: string, family: Family): string {
  if (text === 'default') return 'default';
  const parsed = parsePrefix(text);
  return parsed?.address.family === family ? spell(parsed) : text;
}
