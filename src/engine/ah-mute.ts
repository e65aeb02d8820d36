import { ADDRESS_LEN } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import { copy, setU8, setU16, u8, u16, zero } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import { PROTO } from '../wire/protocol.ts';
import type { Settings } from './settings.ts';

/**
 * The packet as AH authenticates it (RFC 4302 §3.3.3.1): fields that routers change are zero, and
 * those that change in a way that can be foreseen have the value they will arrive with. Written to
 * `to`, which has room for any packet; returns how many octets. `ahAt` is where AH begins: what
 * follows is taken as it is, with the ICV field as it stands.
 */
export function mute(
  p: Uint8Array,
  cursor: Cursor,
  ahAt: number,
  end: number,
  to: Uint8Array,
  settings: Settings,
): number | DropReason {
  const { at } = cursor;
  copy(p, at, to, 0, end - at);
  if (cursor.family === 4) muteIpv4(to, settings);
  else if (!muteIpv6(to, ahAt - at)) return 'bad-option';
  return end - at;
}

function muteIpv4(to: Uint8Array, { ahClearTos, ahOffsetMask }: Settings): void {
  if (ahClearTos) ipv4.setTos(to, 0, 0);
  setU16(to, ipv4.FRAGMENT_AT, u16(to, ipv4.FRAGMENT_AT) & ahOffsetMask);
  ipv4.setTtl(to, 0, 0);
  setU16(to, ipv4.CHECKSUM_AT, 0);
  const end = ipv4.headerLen(to, 0);
  for (let i = ipv4.HEADER_LEN; i < end; ) {
    const type = u8(to, i);
    if (type === ipv4.OPTION.END) break;
    const len = ipv4.optionLen(to, i);
    if (type === ipv4.OPTION.LOOSE_ROUTE || type === ipv4.OPTION.STRICT_ROUTE) {
      // Where the packet will end: the last hop of the route, if it is not there yet.
      if (u8(to, i + 2) <= len - 3) copy(to, i + len - 4, to, ipv4.DST_AT, 4);
    }
    if (!isImmutableOption(type)) zero(to, i, len);
    i += len;
  }
}

/**
 * RFC 4302 appendix A1: the options that arrive as they were sent. All others are zeroed as a
 * whole.
 */
function isImmutableOption(type: number): boolean {
  return (
    type === ipv4.OPTION.NOP ||
    type === ipv4.OPTION.SECURITY ||
    type === 133 || // extended security, RFC 1108
    type === ipv4.OPTION.CIPSO ||
    type === ipv4.OPTION.ROUTER_ALERT ||
    type === 149 // sender directed multi-destination delivery, RFC 1770
  );
}

/** Returns false for a routing header whose final form is not known. */
function muteIpv6(to: Uint8Array, headersLen: number): boolean {
  ipv6.write(to, 0, 0, 0, ipv6.payloadLen(to, 0), ipv6.nextHeader(to, 0), 0);
  let protocol = ipv6.nextHeader(to, 0);
  for (let at = ipv6.HEADER_LEN; at < headersLen; ) {
    if (protocol === PROTO.FRAGMENT) return false;
    const len = ipv6.extensionLen(to, at);
    if (protocol === PROTO.ROUTING) {
      if (!finishRoute(to, at)) return false;
    } else {
      muteOptions(to, at, at + len);
    }
    protocol = u8(to, at);
    at += len;
  }
  return true;
}

/**
 * RFC 8200 §4.2: the third-highest bit of an option's type says that its data may change on the
 * way.
 */
function muteOptions(to: Uint8Array, at: number, end: number): void {
  for (let i = at + 2; i < end; i += ipv6.optionLen(to, i)) {
    if ((u8(to, i) & 0x20) !== 0) zero(to, i + 2, ipv6.optionLen(to, i) - 2);
  }
}

/**
 * A source route as it arrives: each hop swaps the destination with the next address of the list
 * (RFC 2460 §4.4).
 */
function finishRoute(to: Uint8Array, at: number): boolean {
  const left = ipv6.segmentsLeft(to, at);
  if (left === 0) return true;
  const type = ipv6.routingType(to, at);
  if (type !== ipv6.ROUTING.SOURCE && type !== ipv6.ROUTING.MOBILE) return false;
  const size = ADDRESS_LEN[6];
  const count = (ipv6.extensionLen(to, at) - 8) / size;
  if (!Number.isInteger(count) || left > count) return false;
  const first = at + 8 + (count - left) * size;
  const last = at + 8 + (count - 1) * size;
  const final = to.slice(last, last + size);
  copy(to, first, to, first + size, last - first);
  copy(to, ipv6.DST_AT, to, first, size);
  to.set(final, ipv6.DST_AT);
  setU8(to, at + 3, 0);
  return true;
}
