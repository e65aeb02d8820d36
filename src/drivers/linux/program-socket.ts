import { fstatSync } from 'node:fs';
import {
  type Address,
  addressFrom,
  type Family,
  isUnspecified,
  unmapped,
} from '../../base/address.ts';
import { AF_INET, AF_INET6, type Libc } from './libc.ts';
import { type NativeBlock, withBlock } from './native-memory.ts';
import { IPPROTO_IPV6, SOL_SOCKET } from './socket.ts';

/**
 * A socket of another program, by the copy of its descriptor that was passed to us. All copies are
 * one socket: what is set here, the program has.
 */
export interface ProgramSocket {
  /** Of the machine, and never given out twice (SO_COOKIE). */
  readonly cookie: number;
  readonly inode: number;
  /** The user who made it. */
  readonly uid: number;
  readonly family: Family;
  readonly type: 'stream' | 'datagram' | 'raw' | 'other';
  readonly protocol: number;
  /** Undefined while it is not bound to an address, or a port. */
  readonly local: SocketEnd;
  readonly remote: SocketEnd;
  readonly isListening: boolean;
  /** IPv6: takes packets of IPv4 too, as long as its address does not say otherwise. */
  readonly isDual: boolean;
  /** Name of the device that it is bound to; '' if to none, undefined if that is gone. */
  readonly device: string | undefined;
}

export interface SocketEnd {
  /** Of IPv4 also where an IPv6 socket has a mapped one (RFC 4291 §2.5.5.2). */
  readonly address: Address | undefined;
  /** 0: none. */
  readonly port: number;
}

const SO_TYPE = 3;
const SO_BINDTODEVICE = 25;
const SO_ACCEPTCONN = 30;
const SO_PROTOCOL = 38;
const SO_DOMAIN = 39;
const SO_COOKIE = 57;
const IPV6_V6ONLY = 26;
const ENODEV = 19;
const NAME_MAX = 16;
const SOCKADDR_LEN = 28;
const TYPES = [undefined, 'stream', 'datagram', 'raw'] as const;
const NO_END: SocketEnd = { address: undefined, port: 0 };

/** Undefined for what is no socket of IP. */
export function describeSocket(c: Libc, fd: number): ProgramSocket | undefined {
  return withBlock(c, 64, (block) => {
    const option = (name: number) => intOption(c, fd, SOL_SOCKET, name, block);
    const domain = option(SO_DOMAIN);
    if (domain !== AF_INET && domain !== AF_INET6) return undefined;
    const { ino: inode, uid } = fstatSync(fd);
    return {
      cookie: cookieOf(c, fd, block),
      inode,
      uid,
      family: domain === AF_INET ? 4 : 6,
      type: TYPES[option(SO_TYPE)] ?? 'other',
      protocol: option(SO_PROTOCOL),
      local: endOf(c.getsockname, fd, block),
      remote: endOf(c.getpeername, fd, block),
      isListening: option(SO_ACCEPTCONN) === 1,
      isDual: domain === AF_INET6 && intOption(c, fd, IPPROTO_IPV6, IPV6_V6ONLY, block) === 0,
      device: deviceOf(c, fd, block),
    };
  });
}

/** Binds it to a device, whoever it belongs to; '' to none. Returns the error number, or 0. */
export function bindSocket(c: Libc, fd: number, device: string): number {
  return withBlock(c, 64, ({ bytes, base }) => {
    new TextEncoder().encodeInto(device, bytes.subarray(0, NAME_MAX - 1));
    const bound = c.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, base, NAME_MAX);
    return bound < 0 ? c.errno() : 0;
  });
}

function intOption(
  c: Libc,
  fd: number,
  level: number,
  name: number,
  { view, base }: NativeBlock,
): number {
  view.setUint32(8, 4, true);
  if (c.getsockopt(fd, level, name, base, base + 8) < 0) return -1;
  return view.getInt32(0, true);
}

function cookieOf(c: Libc, fd: number, { view, base }: NativeBlock): number {
  view.setUint32(8, 8, true);
  if (c.getsockopt(fd, SOL_SOCKET, SO_COOKIE, base, base + 8) < 0) return 0;
  return view.getUint32(0, true) + 2 ** 32 * view.getUint32(4, true);
}

function deviceOf(c: Libc, fd: number, { bytes, view, base }: NativeBlock): string | undefined {
  view.setUint32(32, NAME_MAX, true);
  if (c.getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, base, base + 32) < 0) {
    return c.errno() === ENODEV ? undefined : '';
  }
  const len = view.getUint32(32, true);
  return new TextDecoder().decode(bytes.subarray(0, Math.max(0, len - 1)));
}

function endOf(
  name: (fd: number, name: number, len: number) => number,
  fd: number,
  { bytes, view, base }: NativeBlock,
): SocketEnd {
  view.setUint32(32, SOCKADDR_LEN, true);
  if (name(fd, base, base + 32) < 0) return NO_END;
  const family = view.getUint16(0, true);
  const port = view.getUint16(2);
  if (family !== AF_INET && family !== AF_INET6) return NO_END;
  const whole = family === AF_INET ? addressFrom(4, bytes, 4) : addressFrom(6, bytes, 8);
  const address = unmapped(whole);
  return { address: isUnspecified(address) ? undefined : address, port };
}
