import type { Family } from '../../base/address.ts';
import { PROTO } from '../../wire/protocol.ts';
import {
  type Instruction,
  JEQ,
  jump,
  LD_W,
  LD_W_INDEXED,
  LDX_IP_HEADER_LEN,
  MOD,
  op,
  RET,
  RET_A,
} from './bpf.ts';

/**
 * A part of what arrives: that of SPIs which, divided by `count`, leave `self`. Several sockets,
 * each with a part of its own, get every packet once, and all packets of an SA get to one of them.
 */
export interface Share {
  readonly self: number;
  readonly count: number;
}

const WHOLE = 0xffff_ffff;
const AH_SPI_AT = 4;

/**
 * For a raw socket. Over IPv4 it sees the IP header, over IPv6 what is behind all headers. What is
 * shorter than its SPI is nobody's: the kernel ends the program, and so the packet.
 */
export function shareOfRaw(family: Family, protocol: number, share: Share): Instruction[] {
  const spiAt = protocol === PROTO.AH ? AH_SPI_AT : 0;
  const load =
    family === 4 ? [op(LDX_IP_HEADER_LEN, 0), op(LD_W_INDEXED, spiAt)] : [op(LD_W, spiAt)];
  return [...load, op(MOD, share.count), jump(JEQ, share.self, 0, 1), op(RET, WHOLE), op(RET, 0)];
}

/**
 * For sockets that share a UDP port: the number of the one that a datagram is for. IKE has four
 * zero octets where ESP has its SPI (RFC 3948 §2.2), and what is shorter gives 0 too: the first
 * socket gets both.
 */
export function shareOfPort(count: number): Instruction[] {
  return [op(LD_W, 0), op(MOD, count), op(RET_A, 0)];
}
