import { createRequire } from 'node:module';
import type * as Koffi from 'koffi';

/**
 * A native address or length: koffi takes plain numbers for `uintptr_t`, which costs half of what a
 * Buffer costs.
 */
type Native = number;

/**
 * The functions of libc that drivers use. Each returns what libc returns; `errno` says why a call
 * failed.
 */
export interface Libc {
  readonly open: (path: string, flags: number) => number;
  readonly close: (fd: number) => number;
  readonly read: (fd: number, buffer: Native, len: number) => number;
  readonly write: (fd: number, buffer: Native, len: number) => number;
  readonly readv: (fd: number, buffers: Native, count: number) => number;
  readonly writev: (fd: number, buffers: Native, count: number) => number;
  readonly ioctl: (fd: number, request: number, argument: Native) => number;
  readonly fcntl: (fd: number, command: number, argument: number) => number;
  readonly socket: (domain: number, type: number, protocol: number) => number;
  readonly bind: (fd: number, name: Native, len: number) => number;
  readonly listen: (fd: number, backlog: number) => number;
  readonly accept4: (fd: number, name: Native, len: Native, flags: number) => number;
  readonly getsockname: (fd: number, name: Native, len: Native) => number;
  readonly getpeername: (fd: number, name: Native, len: Native) => number;
  readonly recv: (fd: number, buffer: Native, len: number, flags: number) => number;
  readonly setsockopt: (
    fd: number,
    level: number,
    option: number,
    value: Native,
    len: number,
  ) => number;
  readonly getsockopt: (
    fd: number,
    level: number,
    option: number,
    value: Native,
    len: Native,
  ) => number;
  readonly sendto: (
    fd: number,
    buffer: Native,
    len: number,
    flags: number,
    name: Native,
    nameLen: number,
  ) => number;
  readonly sendmsg: (fd: number, message: Native, flags: number) => number;
  readonly recvmsg: (fd: number, message: Native, flags: number) => number;
  readonly sendmmsg: (fd: number, messages: Native, count: number, flags: number) => number;
  readonly recvmmsg: (
    fd: number,
    messages: Native,
    count: number,
    flags: number,
    timeout: Native,
  ) => number;
  readonly poll: (fds: Native, count: number, timeoutMs: number) => number;
  readonly eventfd: (count: number, flags: number) => number;
  readonly strerror: (errno: number) => string;
  /** The error of the last call that failed. */
  readonly errno: () => number;
  readonly koffi: typeof Koffi;
}

/** Linux's numbers, the same on every architecture that koffi is built for. */
export const EINTR = 4;
export const EIO = 5;
export const EAGAIN = 11;
export const EINVAL = 22;
export const EMSGSIZE = 90;
export const EOPNOTSUPP = 95;
export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const F_DUPFD_CLOEXEC = 1030;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_FLAGS = O_NONBLOCK | O_CLOEXEC;
export const MSG_DONTWAIT = 0x40;
export const MSG_TRUNC = 0x20;
export const MSG_CTRUNC = 0x8;

let loaded: Libc | undefined;

/**
 * Loads libc on first use, so that importing this module works everywhere. Throws an Error that
 * says what is missing. `what`: the feature that needs it, for the message.
 */
export function libc(what: string): Libc {
  loaded ??= load(what);
  return loaded;
}

/** The sentence of a failed call: `open /dev/net/tun: Permission denied`. */
export function failure(c: Libc, what: string): Error {
  return new Error(`${what}: ${c.strerror(c.errno())}`);
}

function load(what: string): Libc {
  if (process.platform !== 'linux') {
    throw new Error(`${what} needs Linux and koffi: this is ${process.platform}`);
  }
  let koffi: typeof Koffi;
  try {
    koffi = createRequire(import.meta.url)('koffi') as typeof Koffi;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    throw new Error(`${what} needs Linux and koffi: ${reason}`, { cause: error });
  }
  return declare(koffi);
}

/** Declared by hand, so that a wrong argument is an error of the compiler and not of the kernel. */
function declare(koffi: typeof Koffi): Libc {
  const library = koffi.load(null);
  const define = <F>(definition: string): F => library.func(definition) as unknown as F;
  return {
    // Variadic functions get their usual third argument: on arm64 macOS this would be wrong, on
    // Linux it is not.
    open: define('int open(const char *path, int flags)'),
    close: define('int close(int fd)'),
    read: define('long read(int fd, uintptr_t buffer, size_t len)'),
    write: define('long write(int fd, uintptr_t buffer, size_t len)'),
    readv: define('long readv(int fd, uintptr_t buffers, int count)'),
    writev: define('long writev(int fd, uintptr_t buffers, int count)'),
    ioctl: define('int ioctl(int fd, unsigned long request, uintptr_t argument)'),
    fcntl: define('int fcntl(int fd, int command, int argument)'),
    socket: define('int socket(int domain, int type, int protocol)'),
    bind: define('int bind(int fd, uintptr_t name, uint32_t len)'),
    listen: define('int listen(int fd, int backlog)'),
    accept4: define('int accept4(int fd, uintptr_t name, uintptr_t len, int flags)'),
    getsockname: define('int getsockname(int fd, uintptr_t name, uintptr_t len)'),
    getpeername: define('int getpeername(int fd, uintptr_t name, uintptr_t len)'),
    recv: define('long recv(int fd, uintptr_t buffer, size_t len, int flags)'),
    setsockopt: define(
      'int setsockopt(int fd, int level, int option, uintptr_t value, uint32_t len)',
    ),
    getsockopt: define(
      'int getsockopt(int fd, int level, int option, uintptr_t value, uintptr_t len)',
    ),
    sendto: define(
      'long sendto(int fd, uintptr_t buffer, size_t len, int flags, uintptr_t name, uint32_t nlen)',
    ),
    sendmsg: define('long sendmsg(int fd, uintptr_t message, int flags)'),
    recvmsg: define('long recvmsg(int fd, uintptr_t message, int flags)'),
    sendmmsg: define('int sendmmsg(int fd, uintptr_t messages, unsigned int count, int flags)'),
    recvmmsg: define(
      'int recvmmsg(int fd, uintptr_t messages, unsigned int count, int flags, uintptr_t timeout)',
    ),
    poll: define('int poll(uintptr_t fds, unsigned long count, int timeout)'),
    eventfd: define('int eventfd(unsigned int count, int flags)'),
    strerror: define('const char *strerror(int errno)'),
    errno: () => koffi.errno(),
    koffi,
  };
}
