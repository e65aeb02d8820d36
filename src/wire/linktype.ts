import { KeyError } from '../base/error.ts';
import { u8, u16, u32 } from './bytes.ts';

/** What comes in front of the IP packet in a capture file; numbers of tcpdump.org. */
export const LINKTYPE = {
  NULL: 0,
  ETHERNET: 1,
  RAW: 101,
  LOOP: 108,
  LINUX_SLL: 113,
  IPV4: 228,
  IPV6: 229,
  LINUX_SLL2: 276,
} as const;

/** DLT_RAW as some systems wrote it into files, before 101 was agreed on. */
const RAW_OF_OLD: readonly number[] = [12, 14];
const ETHERTYPE = { IPV4: 0x0800, IPV6: 0x86dd } as const;
const VLAN: readonly number[] = [0x8100, 0x88a8, 0x9100];
/** AF_INET everywhere, and AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS. */
const NULL_FAMILIES: readonly number[] = [2, 10, 24, 28, 30];
const ETHERNET_LEN = 14;
const SLL_LEN = 16;
const SLL2_LEN = 20;

/** One IP packet of a capture file: octets `at` to `end` of `bytes`, which is the file itself. */
export interface CapturedPacket {
  /** As Wireshark counts: from 1, and with the packets that are not IP. */
  readonly number: number;
  /** Since 1970-01-01 UTC, with a fraction; 0 if the file does not say. */
  readonly wallMs: number;
  readonly bytes: Uint8Array;
  readonly at: number;
  readonly end: number;
  /** Octets at the end of the packet that were not captured. */
  readonly missing: number;
}

/**
 * Where the IP packet begins in the frame from `at` to `end`; -1 if the frame carries something
 * else. Throws EOPNOTSUPP for a link type that is not in the table.
 */
export function ipAt(linktype: number, p: Uint8Array, at: number, end: number): number {
  switch (linktype) {
    case LINKTYPE.ETHERNET:
      return behindEthertype(p, at + ETHERNET_LEN - 2, at + ETHERNET_LEN, end);
    case LINKTYPE.LINUX_SLL:
      return behindEthertype(p, at + SLL_LEN - 2, at + SLL_LEN, end);
    case LINKTYPE.LINUX_SLL2:
      return behindEthertype(p, at, at + SLL2_LEN, end);
    case LINKTYPE.NULL:
    case LINKTYPE.LOOP:
      return behindFamily(p, at, end);
    case LINKTYPE.RAW:
    case LINKTYPE.IPV4:
    case LINKTYPE.IPV6:
      return ipOrNot(p, at, end);
    default:
      if (RAW_OF_OLD.includes(linktype)) return ipOrNot(p, at, end);
      throw new KeyError(
        'EOPNOTSUPP',
        `link type ${linktype} is none of Ethernet, raw IP, Linux cooked and BSD loopback`,
      );
  }
}

function behindEthertype(p: Uint8Array, typeAt: number, dataAt: number, end: number): number {
  if (dataAt > end) return -1;
  const type = u16(p, typeAt);
  if (type === ETHERTYPE.IPV4 || type === ETHERTYPE.IPV6) return ipOrNot(p, dataAt, end);
  // IEEE 802.1Q: two octets of tag, then the type of what follows.
  return VLAN.includes(type) ? behindEthertype(p, dataAt + 2, dataAt + 4, end) : -1;
}

/** The family is in the byte order of the capturing host, which the file need not share. */
function behindFamily(p: Uint8Array, at: number, end: number): number {
  if (end - at < 4) return -1;
  const big = u32(p, at);
  const family = big > 0xffff ? big >>> 24 : big;
  return NULL_FAMILIES.includes(family) ? ipOrNot(p, at + 4, end) : -1;
}

function ipOrNot(p: Uint8Array, at: number, end: number): number {
  if (at >= end) return -1;
  const version = u8(p, at) >>> 4;
  return version === 4 || version === 6 ? at : -1;
}
