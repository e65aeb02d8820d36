import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { Address, Family, Prefix } from '../../base/address.ts';
import { formatAddress, parseAddress } from '../../base/address.ts';
import { type JsonObject, list, textOf } from './tools.ts';

/** What this namespace's network looks like now. */

/** The address families that this kernel has. */
export function families(): Family[] {
  return existsSync('/proc/sys/net/ipv6') ? [4, 6] : [4];
}

export interface Wire {
  readonly name: string;
  /**
   * Another number under the same name is another device: nothing that we set on the old one holds.
   */
  readonly index: number;
  readonly up: boolean;
  readonly mtu: number;
  /** Octets in front of the IP header. */
  readonly linkHeaderLen: number;
}

/**
 * The devices that packets can leave by, up or down: those named, or (`auto`) all but the loopback
 * and TUN devices, ours or of other programs. A named device that does not exist now is left out,
 * and found by a later call.
 */
export function findWires(which: readonly string[] | 'auto'): Wire[] {
  const wires: Wire[] = [];
  for (const link of list('ip', ['-details', 'link', 'show'])) {
    const name = textOf(link, 'ifname');
    if (name === undefined) continue;
    if (which === 'auto' ? isWire(link) : which.includes(name)) wires.push(wireOf(name, link));
  }
  return wires;
}

function isWire(link: JsonObject): boolean {
  const info = (link.linkinfo ?? {}) as JsonObject;
  // A device under a bridge or bond passes its packets on before IP sees them: the upper device is
  // the wire.
  const below = LOWER_KINDS.has(textOf(info, 'info_slave_kind') ?? '');
  return !hasFlag(link, 'LOOPBACK') && !below && textOf(info, 'info_kind') !== 'tun';
}

function hasFlag(link: JsonObject, flag: string): boolean {
  return Array.isArray(link.flags) && link.flags.includes(flag);
}

const LOWER_KINDS = new Set(['bridge', 'bond', 'team', 'openvswitch']);

function wireOf(name: string, link: JsonObject): Wire {
  return {
    name,
    index: Number(link.ifindex),
    up: hasFlag(link, 'UP'),
    mtu: Number(link.mtu),
    linkHeaderLen: link.link_type === 'ether' ? 14 : 0,
  };
}

/** The addresses of this host, in canonical text. */
export function localAddresses(): Set<string> {
  const found = new Set<string>();
  for (const link of list('ip', ['address', 'show'])) {
    const entries: unknown = link.addr_info;
    for (const entry of Array.isArray(entries) ? (entries as JsonObject[]) : []) {
      const parsed = parseAddress(textOf(entry, 'local') ?? '');
      if (parsed) found.add(formatAddress(parsed));
    }
  }
  return found;
}

/**
 * The address that the host would use to speak to a prefix without us, or undefined without a
 * route.
 */
export function usualSource(to: Prefix, mark: number): string | undefined {
  // For "everything" ask about an address that only a default route can lead to (RFC 5737, RFC
  // 3849).
  const probe = to.length > 0 ? formatAddress(to.address) : PROBE[to.address.family];
  try {
    const [route] = list('ip', ['route', 'get', probe, 'mark', String(mark)]);
    if (!route || textOf(route, 'type') === 'local') return undefined;
    return textOf(route, 'prefsrc');
  } catch {
    return undefined;
  }
}

const PROBE: Readonly<Record<Family, string>> = { 4: '192.0.2.1', 6: '2001:db8::1' };

/** The local address in canonical text if it is one of this host's. */
export function ifLocal(one: Address, local: ReadonlySet<string>): string | undefined {
  const text = formatAddress(one);
  return local.has(text) ? text : undefined;
}

/**
 * The reverse path filter of a device (Linux ip-sysctl: 0 off, 1 strict, 2 loose), or undefined
 * without the device.
 */
export function reversePathFilter(device: string): string | undefined {
  const file = `/proc/sys/net/ipv4/conf/${device}/rp_filter`;
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : undefined;
}

export function setReversePathFilter(device: string, value: string): void {
  const file = `/proc/sys/net/ipv4/conf/${device}/rp_filter`;
  if (existsSync(file)) writeFileSync(file, value);
}
