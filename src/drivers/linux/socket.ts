import { INSTRUCTION_LEN, type Instruction, writeInstruction } from './bpf.ts';
import { AF_INET, AF_INET6, failure, type Libc, SOCK_FLAGS } from './libc.ts';
import { setWord, withBlock } from './native-memory.ts';

export const SOL_SOCKET = 1;
export const IPPROTO_IP = 0;
export const IPPROTO_IPV6 = 41;
export const SO_REUSEPORT = 15;
const SO_BINDTODEVICE = 25;
const SO_ATTACH_FILTER = 26;
export const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_MARK = 36;
const SO_ATTACH_REUSEPORT_CBPF = 51;
/**
 * For the kernel an ICMP error about ESP is a hint about the path, whatever SPI it quotes. The
 * engine knows better, so our sockets neither give such hints nor follow them.
 */
const PMTUDISC_INTERFACE = 4;
export const MTU_DISCOVER = { 4: [IPPROTO_IP, 10], 6: [IPPROTO_IPV6, 23] } as const;
const ICMP_FILTER = { 4: [255, 1], 6: [58, 1] } as const;

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
  /** Which packets to receive; all if not given. */
  readonly filter?: readonly Instruction[] | undefined;
  /** Protocol 1 or 58: the ICMP types to receive; all if not given. */
  readonly icmpTypes?: readonly number[] | undefined;
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
    mustSetOption(c, fd, SOL_SOCKET, SO_MARK, options.mark, what);
    mustSetOption(c, fd, SOL_SOCKET, SO_RCVBUFFORCE, options.bufferLen, what);
    mustSetOption(c, fd, SOL_SOCKET, SO_SNDBUFFORCE, options.bufferLen, what);
    const [level, name] = MTU_DISCOVER[options.family];
    mustSetOption(c, fd, level, name, PMTUDISC_INTERFACE, what);
    for (const [level, name] of options.on ?? []) mustSetOption(c, fd, level, name, 1, what);
    if (options.icmpTypes !== undefined) onlyTypes(c, fd, options.family, options.icmpTypes, what);
    if (options.filter !== undefined) {
      attachProgram(c, fd, SO_ATTACH_FILTER, options.filter, `${what}: filter`);
    }
    if (options.device !== undefined) bindToDevice(c, fd, options.device, what);
    return fd;
  } catch (error) {
    c.close(fd);
    throw error;
  }
}

function mustSetOption(
  c: Libc,
  fd: number,
  level: number,
  option: number,
  value: number,
  what: string,
): void {
  if (!setOption(c, fd, level, option, value)) {
    throw failure(c, `${what}: socket option ${level}/${option}`);
  }
}

/** Sets an option that is an int; false where the kernel refuses it. */
export function setOption(
  c: Libc,
  fd: number,
  level: number,
  option: number,
  value: number,
): boolean {
  return withBlock(c, 64, (block) => {
    block.view.setInt32(0, value, true);
    return c.setsockopt(fd, level, option, block.base, 4) === 0;
  });
}

/** A bit of the filter says that a type is kept out: 32 of ICMP, 256 of ICMPv6. */
function onlyTypes(c: Libc, fd: number, family: 4 | 6, types: readonly number[], what: string) {
  const [level, option] = ICMP_FILTER[family];
  const len = family === 4 ? 4 : 32;
  withBlock(c, 64, (block) => {
    block.bytes.fill(0xff, 0, len);
    for (const type of types) {
      const wordAt = 4 * (type >> 5);
      const word = block.view.getUint32(wordAt, true) & ~(1 << (type & 31));
      block.view.setUint32(wordAt, word >>> 0, true);
    }
    if (c.setsockopt(fd, level, option, block.base, len) < 0) {
      throw failure(c, `${what}: filter of ICMP types`);
    }
  });
}

/**
 * Among sockets that share a port (SO_REUSEPORT): which one gets a datagram, by the number that the
 * program makes of it; 0 is the one that was bound first. Throws an Error.
 */
export function steerPort(c: Libc, fd: number, program: readonly Instruction[], what: string) {
  attachProgram(c, fd, SO_ATTACH_REUSEPORT_CBPF, program, `${what}: steering`);
}

/** struct sock_fprog: how many instructions, and where. */
function attachProgram(
  c: Libc,
  fd: number,
  option: number,
  program: readonly Instruction[],
  what: string,
): void {
  withBlock(c, 64 + program.length * INSTRUCTION_LEN, ({ view, base }) => {
    view.setUint16(0, program.length, true);
    setWord(view, 8, base + 64);
    for (const [i, one] of program.entries()) writeInstruction(view, 64 + i * INSTRUCTION_LEN, one);
    if (c.setsockopt(fd, SOL_SOCKET, option, base, 16) < 0) throw failure(c, what);
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
