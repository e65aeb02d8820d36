import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { type Address, type Family, parseAddress } from '../base/address.ts';
import type { Resolver } from '../setkey/resolver.ts';

const PROTOCOL_NAMES = new Map([
  [6, 'tcp'],
  [17, 'udp'],
  [33, 'dccp'],
  [132, 'sctp'],
]);

/**
 * Looks these names up, then answers from memory: statements are turned into messages without
 * waiting.
 */
export async function systemResolver(
  names: readonly { readonly name: string; readonly family: Family | undefined }[],
): Promise<Resolver> {
  const known = new Map<string, Address[]>();
  for (const { name } of names) {
    if (!known.has(name)) known.set(name, await addressesOf(name));
  }
  return {
    addresses: (name, family) =>
      (known.get(name) ?? []).filter((one) => family === undefined || one.family === family),
    service,
    interfaceIndex,
  };
}

async function addressesOf(name: string): Promise<Address[]> {
  try {
    const found = await lookup(name, { all: true, verbatim: true });
    return found.flatMap(({ address }) => parseAddress(address) ?? []);
  } catch {
    return [];
  }
}

/**
 * A line of /etc/services: name, port/protocol, aliases. A port of the same name for any protocol
 * will do for `any`.
 */
function service(name: string, proto: number): number | undefined {
  const wanted = PROTOCOL_NAMES.get(proto);
  for (const line of readLines('/etc/services')) {
    const [first, port = '', ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/);
    if (first !== name && !aliases.includes(name)) continue;
    const [number, protocol] = port.split('/');
    if (wanted === undefined || protocol === wanted) return Number(number);
  }
  return undefined;
}

function interfaceIndex(name: string): number | undefined {
  const text = readLines(`/sys/class/net/${encodeURIComponent(name)}/ifindex`)[0];
  if (text !== undefined && /^[0-9]+$/.test(text)) return Number(text);
  // Where there is no /sys, the scope ids of link-local addresses are the same numbers.
  return networkInterfaces()[name]?.find((one) => one.family === 'IPv6' && one.scopeid)?.scopeid;
}

function readLines(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n');
  } catch {
    return [];
  }
}
