import { ADDRESS_BITS, formatAddress } from '../base/address.ts';
import { authenticationById, encryptionById } from '../crypto/algorithms.ts';
import { toHex } from '../wire/bytes.ts';
import type { AddressExtension, Extension, Message } from '../wire/pfkey-message.ts';
import { extension } from '../wire/pfkey-message.ts';
import { MODE, SA_FLAG, SA_STATE } from '../wire/pfkey-table.ts';
import { COMPRESSION } from './parse-sa.ts';
import { hasNoPorts, isIcmp, protocolName } from './upper.ts';

/** What the printers cannot know by themselves. */
export interface PrintContext {
  /** Seconds since 1970. */
  readonly now: number;
  /** `Nov 23 20:10:44 2026`: octets 4 to 23 of ctime(3), in local time. */
  readonly time: (seconds: number) => string;
  /** -p */
  readonly ports: boolean;
}

/** Blanks of the same width when there was no such time. */
export function timeText(seconds: number, context: PrintContext): string {
  return seconds === 0 ? ' '.repeat(20) : context.time(seconds);
}

export function hex32(value: number): string {
  return value.toString(16).padStart(8, '0');
}

/** Groups of 4 octets, 32 octets to a line; every group has a blank before it. */
export function keyText(key: Uint8Array): string {
  let text = '';
  for (let at = 0; at < key.length; at += 4) {
    if (at > 0 && at % 32 === 0) text += '\n';
    text += ` ${toHex(key, at, Math.min(at + 4, key.length))}`;
  }
  return text;
}

export function encryptionName(id: number): string {
  return encryptionById(id)?.name ?? `${id}`;
}

export function authenticationName(id: number): string {
  return authenticationById(id)?.name ?? `${id}`;
}

export function compressionName(id: number): string {
  return nameOf(COMPRESSION, id) ?? `${id}`;
}

export function modeName(mode: number): string {
  return nameOf(MODE, mode) ?? `${mode}`;
}

export function stateName(state: number): string {
  return nameOf(SA_STATE, state) ?? `${state}`;
}

/** The keyword that `add` would take: esp, esp-udp, esp-old, ah … */
export function protocolOf(message: Message): string {
  const { satype } = message;
  if (satype === 'tcpsignature') return 'tcp';
  if (satype !== 'esp' && satype !== 'ah') return satype;
  if ((extension(message, 'X_NAT_T_TYPE')?.encapsulation ?? 0) !== 0) return `${satype}-udp`;
  const old = ((extension(message, 'SA')?.flags ?? 0) & SA_FLAG.old) !== 0;
  return old ? `${satype}-old` : satype;
}

/** `10.0.0.1`, with its scope if it has one. */
export function hostText(of: AddressExtension): string {
  const scope = of.scopeId === 0 ? '' : `%${of.scopeId}`;
  return formatAddress(of.address) + scope;
}

/** `10.0.0.0/24[any]` of a selector; a full prefix length is left out. */
export function selectorText(of: AddressExtension): string {
  const bits = ADDRESS_BITS[of.address.family];
  const prefix = of.prefixLen === bits ? '' : `/${of.prefixLen}`;
  const port = hasNoPorts(of.proto) ? '' : `[${of.port === 0 ? 'any' : of.port}]`;
  return hostText(of) + prefix + port;
}

/**
 * The upper protocol of a selector, with ICMP type and code or GRE key, which travel in the ports.
 */
export function upperText(src: AddressExtension, dst: AddressExtension): string {
  const name = protocolName(src.proto);
  if (src.port === 0 && dst.port === 0) return name;
  if (isIcmp(src.proto)) return `${name} ${src.port},${dst.port}`;
  return hasNoPorts(src.proto) ? `${name} ${src.port * 0x10000 + dst.port}` : name;
}

export function contextText(extensions: readonly Extension[]): string {
  const one = extensions.find((each) => each.type === 'X_SEC_CTX');
  if (one?.type !== 'X_SEC_CTX') return '';
  const text = new TextDecoder().decode(one.context).replace(/\0+$/, '');
  return (
    `\tsecurity context doi: ${one.doi}\n` +
    `\tsecurity context algorithm: ${one.algorithm}\n` +
    `\tsecurity context length: ${one.context.length}\n` +
    `\tsecurity context: ${text}\n`
  );
}

function nameOf(table: Readonly<Record<string, number>>, value: number): string | undefined {
  return Object.keys(table).find((name) => table[name] === value);
}
