import { KeyError } from './error.ts';

export type Family = 4 | 6;

/**
 * An IPv4 or IPv6 address: 4 or 16 octets in network order. Shared freely, so nobody writes to
 * `bytes`.
 */
export interface Address {
  readonly family: Family;
  readonly bytes: Uint8Array;
}

export const ADDRESS_LEN = { 4: 4, 6: 16 } as const;
export const ADDRESS_BITS = { 4: 32, 6: 128 } as const;

/** A network: all addresses that share the first `length` bits. */
export interface Prefix {
  readonly address: Address;
  readonly length: number;
}

/** Copies the address out of a packet or message. */
export function addressFrom(family: Family, bytes: Uint8Array, at: number): Address {
  return { family, bytes: bytes.slice(at, at + ADDRESS_LEN[family]) };
}

/**
 * Reads a numeric address; strict, since `010.0.0.1` and `10.1` mean different hosts to different
 * programs.
 */
export function parseAddress(text: string): Address | undefined {
  const bytes = text.includes(':') ? parseIpv6(text) : parseIpv4(text);
  return bytes && { family: bytes.length === 4 ? 4 : 6, bytes };
}

/** As `parseAddress`, for text that must be an address: throws EINVAL. */
export function address(text: string): Address {
  const parsed = parseAddress(text);
  if (!parsed) throw new KeyError('EINVAL', `"${text}" is not an IPv4 or IPv6 address`);
  return parsed;
}

/** Reads `address[/length]`; without a length it is the whole address. Host bits are cleared. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf('/');
  const parsed = parseAddress(slash < 0 ? text : text.slice(0, slash));
  if (!parsed) return undefined;
  const bits = ADDRESS_BITS[parsed.family];
  if (slash < 0) return { address: parsed, length: bits };
  const length = text.slice(slash + 1);
  if (!/^(0|[1-9][0-9]{0,2})$/.test(length) || Number(length) > bits) return undefined;
  return maskPrefix(parsed, Number(length));
}

/** As `parsePrefix`, for text that must be a prefix: throws EINVAL. */
export function prefix(text: string): Prefix {
  const parsed = parsePrefix(text);
  if (!parsed) throw new KeyError('EINVAL', `"${text}" is not an address or prefix`);
  return parsed;
}

/** The prefix of `length` bits around an address, with the host bits cleared. */
export function maskPrefix(of: Address, length: number): Prefix {
  const bytes = of.bytes.slice();
  for (let i = 0; i < bytes.length; i++) {
    const keep = Math.min(8, Math.max(0, length - 8 * i));
    bytes[i] = bytes[i]! & (0xff00 >> keep);
  }
  return { address: { family: of.family, bytes }, length };
}

/** Canonical text: RFC 5952 for IPv6. */
export function formatAddress(of: Address): string {
  return of.family === 4 ? of.bytes.join('.') : formatIpv6(of.bytes);
}

export function formatPrefix(of: Prefix): string {
  return `${formatAddress(of.address)}/${of.length}`;
}

export function sameAddress(a: Address, b: Address): boolean {
  if (a.family !== b.family) return false;
  for (let i = 0; i < a.bytes.length; i++) if (a.bytes[i] !== b.bytes[i]) return false;
  return true;
}

/** Whether every address of `inner` is in `outer`. */
export function prefixCovers(outer: Prefix, inner: Prefix): boolean {
  return outer.length <= inner.length && prefixHas(outer, inner.address);
}

export function prefixHas(of: Prefix, one: Address): boolean {
  if (of.address.family !== one.family) return false;
  for (let i = 0; i * 8 < of.length; i++) {
    const mask = (0xff00 >> Math.min(8, of.length - 8 * i)) & 0xff;
    if (((of.address.bytes[i]! ^ one.bytes[i]!) & mask) !== 0) return false;
  }
  return true;
}

export function isUnspecified(one: Address): boolean {
  const { bytes } = one;
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== 0) return false;
  return true;
}

/** The IPv4 address that an IPv6 one stands for, if it does (RFC 4291 §2.5.5.2); else itself. */
export function unmapped(one: Address): Address {
  const { bytes } = one;
  if (bytes.length !== 16 || bytes[10] !== 0xff || bytes[11] !== 0xff) return one;
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return one;
  return addressFrom(4, bytes, 12);
}

export function isMulticast(one: Address): boolean {
  return one.family === 4 ? (one.bytes[0]! & 0xf0) === 0xe0 : one.bytes[0] === 0xff;
}

export function isLoopback(one: Address): boolean {
  if (one.family === 4) return one.bytes[0] === 127;
  return one.bytes[15] === 1 && one.bytes.subarray(0, 15).every((octet) => octet === 0);
}

function parseIpv4(text: string): Uint8Array | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  const bytes = new Uint8Array(4);
  for (const [i, part] of parts.entries()) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined;
    bytes[i] = Number(part);
  }
  return bytes;
}

function parseIpv6(text: string): Uint8Array | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = ipv6Groups(halves[0]!);
  const tail = halves.length === 2 ? ipv6Groups(halves[1]!) : [];
  if (!head || !tail) return undefined;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 2 ? missing < 2 : missing !== 0) return undefined;
  const bytes = new Uint8Array(16);
  bytes.set(head, 0);
  bytes.set(tail, 16 - tail.length);
  return bytes;
}

/** The octets of groups between colons; the last one may be an IPv4 address (RFC 4291 §2.2). */
function ipv6Groups(text: string): number[] | undefined {
  if (text === '') return [];
  const octets: number[] = [];
  const groups = text.split(':');
  for (const [i, group] of groups.entries()) {
    if (group.includes('.')) {
      const v4 = i === groups.length - 1 ? parseIpv4(group) : undefined;
      if (!v4) return undefined;
      octets.push(...v4);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return undefined;
      const value = Number.parseInt(group, 16);
      octets.push(value >> 8, value & 255);
    }
  }
  return octets;
}

function formatIpv6(bytes: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[2 * i]! << 8) | bytes[2 * i + 1]!);
  const run = longestZeroRun(groups);
  const hex = groups.map((group) => group.toString(16));
  if (run.length < 2) return hex.join(':');
  return `${hex.slice(0, run.at).join(':')}::${hex.slice(run.at + run.length).join(':')}`;
}

function longestZeroRun(groups: readonly number[]): { at: number; length: number } {
  let best = { at: 0, length: 0 };
  for (let at = 0; at < groups.length; at++) {
    let length = 0;
    while (groups[at + length] === 0) length++;
    if (length > best.length) best = { at, length };
  }
  return best;
}
