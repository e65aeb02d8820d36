import { type Address, type Family, parseAddress } from '../base/address.ts';
import { wrong } from './cursor.ts';
import type { SetkeyError } from './place.ts';
import type { HostSpec, Lookup, Statement } from './statement.ts';

/** What setkey needs of the system to turn names into numbers; numeric input needs none of it. */
export interface Resolver {
  /** All addresses of a host name, of one family if given; empty when it has none. */
  readonly addresses: (name: string, family: Family | undefined) => readonly Address[];
  /** The port of a service (`http`) for an upper protocol number. */
  readonly service: (name: string, proto: number) => number | undefined;
  /** The index of a network interface, for `fe80::1%eth0`. */
  readonly interfaceIndex: (name: string) => number | undefined;
}

/** An address that was looked up, ready for a sockaddr. */
export interface Resolved {
  readonly address: Address;
  readonly scopeId: number;
}

/**
 * The addresses that a statement means by a name, at least one. Throws SetkeyError at the name's
 * place.
 */
export function resolveHost(host: HostSpec, lookup: Lookup, resolver: Resolver): Resolved[] {
  const numeric = resolveNumeric(host, resolver);
  if (numeric) {
    if (lookup.family === undefined || lookup.family === numeric.address.family) return [numeric];
    throw wrong(
      host.place,
      `"${host.name}" is no IPv${lookup.family} address, as -${lookup.family} wants`,
    );
  }
  if (lookup.numeric) {
    throw wrong(host.place, `"${host.name}" is not a numeric address, as -n wants`);
  }
  const found = resolver.addresses(host.name, lookup.family);
  if (found.length === 0) throw unknownHost(host, lookup);
  return found.map((address) => ({ address, scopeId: 0 }));
}

/** The port of a host as a number. */
export function resolvePort(host: HostSpec, proto: number, resolver: Resolver): number {
  if (typeof host.port === 'number') return host.port;
  const port = resolver.service(host.port, proto);
  if (port !== undefined) return port;
  throw wrong(host.place, `"${host.port}" is not a port number, any, or a known service`);
}

/**
 * The names that a script will ask for, so that a caller without a blocking resolver can look them
 * up first.
 */
export function hostNames(statement: Statement): { name: string; family: Family | undefined }[] {
  if (!('lookup' in statement) || statement.lookup.numeric) return [];
  const { family } = statement.lookup;
  return hostsOf(statement)
    .map(({ name }) => name)
    .filter((name) => !isNumeric(name))
    .map((name) => ({ name, family }));
}

function hostsOf(statement: Statement): HostSpec[] {
  switch (statement.command) {
    case 'spdadd':
    case 'spdupdate':
    case 'spddelete':
      return statement.selector ? [statement.selector.src, statement.selector.dst] : [];
    case 'deleteall':
      return [statement.src, statement.dst];
    case 'add':
    case 'update':
    case 'get':
    case 'delete':
    case 'getspi': {
      const { src, dst, originalAddress } = statement;
      return originalAddress ? [src, dst, originalAddress] : [src, dst];
    }
    default:
      return [];
  }
}

function isNumeric(name: string): boolean {
  return parseAddress(name.split('%', 1)[0]!) !== undefined;
}

function resolveNumeric(host: HostSpec, resolver: Resolver): Resolved | undefined {
  const percent = host.name.indexOf('%');
  const address = parseAddress(percent < 0 ? host.name : host.name.slice(0, percent));
  if (!address) return undefined;
  if (percent < 0) return { address, scopeId: 0 };
  const scope = host.name.slice(percent + 1);
  const scopeId = /^[0-9]{1,9}$/.test(scope) ? Number(scope) : resolver.interfaceIndex(scope);
  if (address.family === 6 && scopeId !== undefined) return { address, scopeId };
  throw wrong(host.place, `"${host.name}": there is no interface "${scope}" for an IPv6 scope`);
}

function unknownHost(host: HostSpec, lookup: Lookup): SetkeyError {
  const kind = lookup.family === undefined ? 'address' : `IPv${lookup.family} address`;
  return wrong(host.place, `no ${kind} is known for "${host.name}"`);
}
