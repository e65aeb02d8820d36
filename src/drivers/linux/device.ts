import { readFileSync } from 'node:fs';
import { UDP_PAYLOAD_MAX } from '../udp-packet.ts';
import type { Libc } from './libc.ts';
import type { NativeBlock } from './native-memory.ts';
import { EAFNOSUPPORT, withNetlink } from './netlink.ts';
import {
  setMtuRequest,
  setNoAddressRequest,
  setSegmentsRequest,
  setUpRequest,
} from './netlink-link.ts';

/** `struct ifreq` of <linux/if.h>: a name of 16 octets and a union. */
export const IFREQ_LEN = 40;
export const IFREQ_UNION_AT = 16;

export function checkDeviceName(name: string): void {
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(name) || /^\.\.?$/.test(name)) {
    throw new Error(`"${name}" is not a device name: 1 to 15 letters, digits, "_", "." or "-"`);
  }
}

export function setDeviceMtu(c: Libc, name: string, mtu: number): void {
  withNetlink(c, (netlink) => netlink.run(setMtuRequest(name, mtu)));
}

/**
 * Large packets that sockets send by the device get no longer than one message over UDP can be once
 * its segments are protected: else two messages go out for each, one of them small. Packets that
 * are forwarded are as long as they are, and the kernel would cut such as are too long into single
 * ones, so that a host that forwards stays as it is.
 */
export function setDeviceSegments(c: Libc, name: string, mtu: number): void {
  if (FORWARDING.some(isOn)) return;
  const segments = Math.max(1, Math.floor(UDP_PAYLOAD_MAX[4] / (mtu + PROTECTION_LEN)));
  withNetlink(c, (netlink) => netlink.execute([setSegmentsRequest(name, segments)]));
}

/** What protection usually adds to a packet, in octets of the payload of UDP. */
const PROTECTION_LEN = 64;
const FORWARDING: readonly string[] = [
  '/proc/sys/net/ipv4/ip_forward',
  '/proc/sys/net/ipv6/conf/all/forwarding',
];

function isOn(setting: string): boolean {
  try {
    return readFileSync(setting, 'utf8').trim() !== '0';
  } catch {
    return false;
  }
}

export function setDeviceUp(c: Libc, name: string): void {
  withNetlink(c, (netlink) => netlink.run(setUpRequest(name)));
}

/** Must come before the device is up, else the kernel sends router solicitations into it. */
export function setNoLinkLocalAddress(c: Libc, name: string): void {
  const errors = withNetlink(c, (netlink) => netlink.execute([setNoAddressRequest(name)]));
  const error = errors.get(0);
  if (error && error.errno !== EAFNOSUPPORT) throw error;
}

export function writeName(ifreq: NativeBlock, name: string): void {
  ifreq.bytes.set(new TextEncoder().encode(name));
}
