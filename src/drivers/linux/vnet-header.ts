/**
 * The header in front of each packet of a device with IFF_VNET_HDR: what is still to be done to it
 * (virtio 1.2 §5.1.6; Linux's <linux/virtio_net.h>). Little-endian, as all our platforms are.
 *
 *     0 flags   1 GSO type   2 octets of headers   4 octets of payload in a segment
 *     6 where the checksum begins   8 where it goes, from there
 */
export const VNET_LEN = 10;
export const VNET_FLAG = {
  /** The checksum field has the sum of the pseudo header, and is to be completed. */
  needsChecksum: 1,
  /** The checksum was verified. */
  verified: 2,
} as const;
export const VNET_GSO = { none: 0, tcp4: 1, tcp6: 4, udp: 5 } as const;
/** With a TCP type: the packet has CWR set. */
const GSO_ECN = 0x80;

export function vnetFlags(p: Uint8Array, at: number): number {
  return p[at]!;
}

export function vnetGso(p: Uint8Array, at: number): number {
  return p[at + 1]! & ~GSO_ECN;
}

export function vnetSegment(p: Uint8Array, at: number): number {
  return p[at + 4]! | (p[at + 5]! << 8);
}

export function vnetChecksumStart(p: Uint8Array, at: number): number {
  return p[at + 6]! | (p[at + 7]! << 8);
}

/** Counted from where the checksum begins. */
export function vnetChecksumOffset(p: Uint8Array, at: number): number {
  return p[at + 8]! | (p[at + 9]! << 8);
}

export function writeVnet(
  p: Uint8Array,
  at: number,
  flags: number,
  gso: number,
  headersLen: number,
  segment: number,
  checksumStart: number,
  checksumOffset: number,
): void {
  p[at] = flags;
  p[at + 1] = gso;
  put16(p, at + 2, headersLen);
  put16(p, at + 4, segment);
  put16(p, at + 6, checksumStart);
  put16(p, at + 8, checksumOffset);
}

function put16(p: Uint8Array, at: number, value: number): void {
  p[at] = value;
  p[at + 1] = value >>> 8;
}
