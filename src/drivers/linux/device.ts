import type { Libc } from './libc.ts';
import type { NativeBlock } from './native-memory.ts';
import { EAFNOSUPPORT, withNetlink } from './netlink.ts';
import { setMtuRequest, setNoAddressRequest, setUpRequest } from './netlink-link.ts';

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
