import { existsSync } from 'node:fs';
import type { Libc } from '../drivers/linux/libc.ts';
import { rawSockets } from '../drivers/linux/proc-sockets.ts';
import { bindSocket, describeSocket, type ProgramSocket } from '../drivers/linux/program-socket.ts';
import { markSocket } from '../drivers/linux/seqpacket.ts';
import {
  type KernelSocket,
  SockDiag,
  type SockDiagEvents,
  type Tuple,
} from '../drivers/linux/sock-diag.ts';

/** What policies of sockets need of the kernel, so that a test can be one. Errors are errnos. */
export interface SocketKernel {
  describe(fd: number): ProgramSocket | undefined;
  /** To no device: ''. */
  bind(fd: number, device: string): number;
  mark(fd: number, mark: number, on: 'set' | 'unset'): number;
  /** The TCP or UDP socket that a packet belongs to. */
  find(tuple: Tuple): KernelSocket | undefined;
  /** All of TCP and UDP. Throws an Error. */
  all(): readonly KernelSocket[];
  /** By inode, of raw and echo sockets: the identifier. */
  raws(): ReadonlyMap<number, number>;
  isRunning(pid: number): boolean;
  /** Reports the sockets that have ended, of which reports are still under way. */
  catchUp(): void;
  close(): void;
}

/** Throws an Error where the kernel does not tell about its sockets. */
export function linuxSockets(c: Libc, events: SockDiagEvents): SocketKernel {
  const diag = new SockDiag(c, events);
  return {
    describe: (fd) => describeSocket(c, fd),
    bind: (fd, device) => bindSocket(c, fd, device),
    mark: (fd, mark, on) => markSocket(c, fd, mark, on),
    find: (tuple) => diag.find(tuple),
    all: () => diag.all(),
    raws: rawSockets,
    isRunning: (pid) => existsSync(`/proc/${pid}`),
    catchUp: () => diag.catchUp(),
    close: () => diag.close(),
  };
}
