import type { Libc } from './libc.ts';
import { withBlock } from './native-memory.ts';
import { SOL_SOCKET } from './socket.ts';

const SO_PEERCRED = 17;
/** pid, uid and gid. */
const UCRED_LEN = 12;
const LEN_AT = 32;

/** Who was at the other end of a Unix socket when it connected. */
export interface Credentials {
  /** 0 for a process of another pid namespace. */
  readonly pid: number;
  readonly uid: number;
}

/** Undefined when the kernel does not say. */
export function credentialsOf(c: Libc, fd: number): Credentials | undefined {
  return withBlock(c, 64, ({ view, base }) => {
    view.setUint32(LEN_AT, UCRED_LEN, true);
    if (c.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, base, base + LEN_AT) < 0) return undefined;
    return { pid: view.getInt32(0, true), uid: view.getUint32(4, true) };
  });
}
