import { assert } from '../base/assert.ts';
import type { DropReason } from '../base/drop.ts';
import type { Random } from '../base/env.ts';
import { copy, setU8, u8, u32, zero } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';

/**
 * The largest offset that the fragment fields of both families can express, and the octets behind
 * it.
 */
const DATA_LEN_MAX = 65_535;

/** How one packet is cut: the same for all its fragments. Offsets into the packet's octets. */
interface Plan {
  /** What is cut up. */
  readonly dataAt: number;
  readonly dataEnd: number;
  /**
   * Where the data stand in the original datagram, and whether more follow: not 0 for what already
   * is a fragment.
   */
  readonly offset: number;
  readonly more: boolean;
  /** Octets of headers in front of the data, in the first and in later fragments. */
  readonly firstHeaderLen: number;
  readonly laterHeaderLen: number;
}

/**
 * Cuts a packet that is longer than `mtu` into fragments (RFC 791 §2.3, §3.2; RFC 8200 §4.5). Each
 * comes from `take` and belongs to whoever `emit` hands it to; `packet` is left as it is. IPv4
 * takes the identification from its header, IPv6 from `id` (32 bits), which nobody should be able
 * to guess (RFC 7739).
 *
 * A packet that is a fragment already is cut further. For IPv6 only its source may do so: routers
 * say "packet too big".
 *
 * Returns `too-big` if the packet must not be cut or the MTU leaves no room for data, `no-room` if
 * `take` ran dry.
 */
export function fragment(
  packet: Packet,
  cursor: Cursor,
  mtu: number,
  id: number,
  take: () => Packet | undefined,
  emit: (fragment: Packet) => void,
): DropReason | undefined {
  const p = packet.bytes;
  assert(packet.at === cursor.at, 'the cursor is that of the packet');
  assert(cursor.end - cursor.at > mtu, 'only what does not fit is cut');
  if (cursor.family === 4 && ipv4.dontFragment(p, cursor.at)) return 'too-big';
  const plan = cursor.family === 4 ? planIpv4(p, cursor) : planIpv6(p, cursor);
  if (plan.more && (plan.dataEnd - plan.dataAt) % 8 !== 0) return 'fragment-bad-length';
  if (plan.offset + plan.dataEnd - plan.dataAt > DATA_LEN_MAX) return 'fragment-bad-length';
  if (mtu - plan.firstHeaderLen < 8) return 'too-big';

  for (let at = plan.dataAt; at < plan.dataEnd; ) {
    const piece = take();
    if (piece === undefined) return 'no-room';
    const headerLen = at === plan.dataAt ? plan.firstHeaderLen : plan.laterHeaderLen;
    const room = mtu - headerLen;
    const last = plan.dataEnd - at <= room;
    const len = last ? plan.dataEnd - at : room & ~7;
    piece.end = piece.at + headerLen + len;
    copy(p, at, piece.bytes, piece.at + headerLen, len);
    const offset = plan.offset + at - plan.dataAt;
    const more = last ? plan.more : true;
    if (cursor.family === 4) headIpv4(p, cursor, piece, headerLen, offset, more);
    else headIpv6(p, cursor, piece, headerLen, offset, more, id);
    at += len;
    emit(piece);
  }
  return undefined;
}

/** For fragments of IPv6: nobody can guess it, and it is not 0, which means none to some stacks. */
export function fragmentId(random: Random): number {
  const octets = new Uint8Array(4);
  random.fill(octets);
  return u32(octets, 0) || 1;
}

function planIpv4(p: Uint8Array, cursor: Cursor): Plan {
  const headerLen = cursor.upperAt - cursor.at;
  return {
    dataAt: cursor.upperAt,
    dataEnd: cursor.end,
    offset: cursor.fragmentOffset,
    more: cursor.moreFragments,
    firstHeaderLen: headerLen,
    laterHeaderLen: ipv4.HEADER_LEN + copiedOptionsLen(p, cursor),
  };
}

function planIpv6(p: Uint8Array, cursor: Cursor): Plan {
  const cut = cursor.fragmentHeaderAt;
  const dataAt = cut === 0 ? fragmentableAt(p, cursor) : cut + ipv6.FRAGMENT_HEADER_LEN;
  const headerLen = (cut === 0 ? dataAt : cut) - cursor.at + ipv6.FRAGMENT_HEADER_LEN;
  return {
    dataAt,
    dataEnd: cursor.end,
    offset: cursor.fragmentOffset,
    more: cursor.moreFragments,
    firstHeaderLen: headerLen,
    laterHeaderLen: headerLen,
  };
}

/**
 * Where the part begins that routers need not see: behind the last routing header, else the
 * hop-by-hop options.
 */
function fragmentableAt(p: Uint8Array, cursor: Cursor): number {
  let fragmentable = cursor.at + ipv6.HEADER_LEN;
  let kind = ipv6.nextHeader(p, cursor.at);
  for (let at = fragmentable; at < cursor.upperAt; ) {
    const next = at + ipv6.extensionLen(p, at);
    if (kind === PROTO.HOPOPTS || kind === PROTO.ROUTING) fragmentable = next;
    kind = u8(p, at);
    at = next;
  }
  return fragmentable;
}

/** Octets of the options that go into every fragment (RFC 791 §3.1), padded to 4. */
function copiedOptionsLen(p: Uint8Array, cursor: Cursor): number {
  let len = 0;
  for (let at = cursor.at + ipv4.HEADER_LEN; at < cursor.upperAt; at += ipv4.optionLen(p, at)) {
    if (u8(p, at) === ipv4.OPTION.END) break;
    if ((u8(p, at) & ipv4.OPTION_COPIED) !== 0) len += ipv4.optionLen(p, at);
  }
  return (len + 3) & ~3;
}

function headIpv4(
  p: Uint8Array,
  cursor: Cursor,
  piece: Packet,
  headerLen: number,
  offset: number,
  more: boolean,
): void {
  const to = piece.bytes;
  const at = piece.at;
  const whole = headerLen === cursor.upperAt - cursor.at;
  copy(p, cursor.at, to, at, whole ? headerLen : ipv4.HEADER_LEN);
  if (!whole) copyOptions(p, cursor, to, at + ipv4.HEADER_LEN, at + headerLen);
  ipv4.setHeaderLen(to, at, headerLen);
  ipv4.setTotalLen(to, at, piece.len);
  ipv4.setFragment(to, at, more ? ipv4.FLAG_MF : 0, offset);
  ipv4.updateChecksum(to, at);
}

function copyOptions(p: Uint8Array, cursor: Cursor, to: Uint8Array, at: number, end: number): void {
  // END is 0, so that what the options leave of the last word is padding.
  zero(to, at, end - at);
  let toAt = at;
  for (let from = cursor.at + ipv4.HEADER_LEN; from < cursor.upperAt; ) {
    const len = ipv4.optionLen(p, from);
    if (u8(p, from) === ipv4.OPTION.END) return;
    if ((u8(p, from) & ipv4.OPTION_COPIED) !== 0) {
      copy(p, from, to, toAt, len);
      toAt += len;
    }
    from += len;
  }
}

function headIpv6(
  p: Uint8Array,
  cursor: Cursor,
  piece: Packet,
  headerLen: number,
  offset: number,
  more: boolean,
  id: number,
): void {
  const to = piece.bytes;
  const at = piece.at;
  const cut = cursor.fragmentHeaderAt;
  const fragmentAt = at + headerLen - ipv6.FRAGMENT_HEADER_LEN;
  copy(p, cursor.at, to, at, headerLen - ipv6.FRAGMENT_HEADER_LEN);
  const nextAt = ipv6.namesHeaderAt(to, at, fragmentAt);
  const next = cut === 0 ? u8(to, nextAt) : u8(p, cut);
  const idOfAll = cut === 0 ? id : ipv6.fragmentId(p, cut);
  setU8(to, nextAt, PROTO.FRAGMENT);
  ipv6.writeFragmentHeader(to, fragmentAt, next, offset, more ? 1 : 0, idOfAll);
  ipv6.setPayloadLen(to, at, piece.len - ipv6.HEADER_LEN);
}
