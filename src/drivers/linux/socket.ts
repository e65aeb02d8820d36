import { AF_INET, AF_INET6, failure, type Libc, SOCK_FLAGS } from './libc.ts';
import { withBlock } from './native-memory.ts';

export const SOL_SOCKET = 1;
export const IPPROTO_IP = 0;
export const IPPROTO_IPV6 = 41;
const SO_BINDTODEVICE = 25;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_MARK = 36;

export interface SocketOptions {
  readonly family: 4 | 6;
  readonly type: number;
  readonly protocol: number;
  /**
   * Every socket of ours carries it, so that the rule which diverts packets leaves our own alone.
   */
  readonly mark: number;
  /** Only this device, if given. */
  readonly device?: string | undefined;
  /** Octets that may wait in the kernel, past the limit for ordinary users. */
  readonly bufferLen: number;
  /** Socket options to switch on: pairs of level and name. */
  readonly on?: readonly (readonly [number, number])[];
}

/**
 * Opens a non-blocking socket with all its options, before anything can arrive by it. Throws an
 * Error.
 */
export function openSocket(c: Libc, what: string, options: SocketOptions): number {
  const domain = options.family === 4 ? AF_INET : AF_INET6;
  const fd = c.socket(domain, options.type | SOCK_FLAGS, options.protocol);
  if (fd < 0) throw failure(c, what);
  try {
    setOption(c, fd, SOL_SOCKET, SO_MARK, options.mark, what);
    setOption(c, fd, SOL_SOCKET, SO_RCVBUFFORCE, options.bufferLen, what);
    setOption(c, fd, SOL_SOCKET, SO_SNDBUFFORCE, options.bufferLen, what);
    for (const [level, name] of options.on ?? []) setOption(c, fd, level, name, 1, what);
    if (options.device !== undefined) bindToDevice(c, fd, options.device, what);
    return fd;
  } catch (error) {
    c.close(fd);
    throw error;
  }
}

function setOption(
  c: Libc,
  fd: number,
  level: number,
  option: number,
  value: number,
  what: string,
): void {
  withBlock(c, 64, (block) => {
    block.view.setInt32(0, value, true);
    if (c.setsockopt(fd, level, option, block.base, 4) < 0) {
      throw failure(c, `${what}: socket option ${level}/${option}`);
    }
  });
}

function bindToDevice(c: Libc, fd: number, device: string, what: string): void {
  withBlock(c, 64, (block) => {
    const { written } = new TextEncoder().encodeInto(device, block.bytes);
    if (c.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, block.base, written) < 0) {
      throw failure(c, `${what}: bind to device ${device}`);
    }
  });
}
