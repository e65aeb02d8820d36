import { existsSync, writeFileSync } from 'node:fs';
import { AF_INET, failure, type Libc, SOCK_DGRAM, SOCK_FLAGS } from './libc.ts';
import { type NativeBlock, withBlock } from './native-memory.ts';

/** `struct ifreq` of <linux/if.h>: a name of 16 octets and a union. */
export const IFREQ_LEN = 40;
export const IFREQ_UNION_AT = 16;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCSIFMTU = 0x8922;
const IFF_UP = 1;

export function checkDeviceName(name: string): void {
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(name) || /^\.\.?$/.test(name)) {
    throw new Error(`"${name}" is not a device name: 1 to 15 letters, digits, "_", "." or "-"`);
  }
}

export function setDeviceMtu(c: Libc, name: string, mtu: number): void {
  withIfreq(c, name, (fd, ifreq) => {
    ifreq.view.setInt32(IFREQ_UNION_AT, mtu, true);
    if (c.ioctl(fd, SIOCSIFMTU, ifreq.base) < 0) throw failure(c, `set MTU ${mtu} of ${name}`);
  });
}

export function setDeviceUp(c: Libc, name: string): void {
  withIfreq(c, name, (fd, ifreq) => {
    if (c.ioctl(fd, SIOCGIFFLAGS, ifreq.base) < 0) throw failure(c, `read flags of ${name}`);
    const flags = ifreq.view.getUint16(IFREQ_UNION_AT, true);
    ifreq.view.setUint16(IFREQ_UNION_AT, flags | IFF_UP, true);
    if (c.ioctl(fd, SIOCSIFFLAGS, ifreq.base) < 0) throw failure(c, `bring ${name} up`);
  });
}

/** Must come before the device is up, else the kernel sends router solicitations into it. */
export function setNoLinkLocalAddress(name: string): void {
  const file = `/proc/sys/net/ipv6/conf/${name}/addr_gen_mode`;
  if (existsSync(file)) writeFileSync(file, '1');
}

function withIfreq(c: Libc, name: string, use: (fd: number, ifreq: NativeBlock) => void): void {
  const fd = c.socket(AF_INET, SOCK_DGRAM | SOCK_FLAGS, 0);
  if (fd < 0) throw failure(c, 'open a socket');
  try {
    withBlock(c, IFREQ_LEN, (ifreq) => {
      writeName(ifreq, name);
      use(fd, ifreq);
    });
  } finally {
    c.close(fd);
  }
}

export function writeName(ifreq: NativeBlock, name: string): void {
  ifreq.bytes.set(new TextEncoder().encode(name));
}
