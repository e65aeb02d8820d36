/**
 * ICMP (RFC 792) and ICMPv6 (RFC 4443): one header, two sets of types. After `check`, no accessor
 * can fail.
 *
 *      0               8               16                            31
 *     +---------------+---------------+-------------------------------+
 *   0 |     type      |     code      |           checksum            |
 *     +---------------+---------------+-------------------------------+
 *   4 |    echo: identifier           |       sequence number         |
 *     |    too big: 0 and MTU (16 bits, RFC 1191), or MTU (v6)        |
 *     |    parameter problem: pointer (8 bits), or pointer (v6)       |
 *     +---------------------------------------------------------------+
 *   8 |    echo: data; errors: as much of the packet as fits          |
 *     +---------------------------------------------------------------+
 */
import type { Family } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import { setU8, setU16, setU32, u8, u16, u32 } from './bytes.ts';
import { PROTO } from './protocol.ts';

export const HEADER_LEN = 8;
export const CHECKSUM_AT = 2;

export const TYPE4 = {
  ECHO_REPLY: 0,
  UNREACHABLE: 3,
  SOURCE_QUENCH: 4,
  REDIRECT: 5,
  ECHO: 8,
  TIME_EXCEEDED: 11,
  PARAMETER_PROBLEM: 12,
} as const;

export const TYPE6 = {
  UNREACHABLE: 1,
  TOO_BIG: 2,
  TIME_EXCEEDED: 3,
  PARAMETER_PROBLEM: 4,
  ECHO: 128,
  ECHO_REPLY: 129,
  ROUTER_SOLICITATION: 133,
  ROUTER_ADVERTISEMENT: 134,
  NEIGHBOR_SOLICITATION: 135,
  NEIGHBOR_ADVERTISEMENT: 136,
  REDIRECT: 137,
} as const;

/** Codes of UNREACHABLE. */
export const CODE4 = { NET: 0, HOST: 1, PROTOCOL: 2, PORT: 3, TOO_BIG: 4, PROHIBITED: 13 } as const;
export const CODE6 = { NO_ROUTE: 0, PROHIBITED: 1, ADDRESS: 3, PORT: 4 } as const;

export function check(_p: Uint8Array, at: number, end: number): DropReason | undefined {
  return end - at < HEADER_LEN ? 'truncated-header' : undefined;
}

export function protocolOf(family: Family): number {
  return family === 4 ? PROTO.ICMP : PROTO.ICMPV6;
}

export function type(p: Uint8Array, at: number): number {
  return u8(p, at);
}

export function setType(p: Uint8Array, at: number, value: number): void {
  setU8(p, at, value);
}

export function code(p: Uint8Array, at: number): number {
  return u8(p, at + 1);
}

export function checksum(p: Uint8Array, at: number): number {
  return u16(p, at + CHECKSUM_AT);
}

export function setChecksum(p: Uint8Array, at: number, value: number): void {
  setU16(p, at + CHECKSUM_AT, value);
}

/** Of an echo request or reply. */
export function echoId(p: Uint8Array, at: number): number {
  return u16(p, at + 4);
}

export function echoSeq(p: Uint8Array, at: number): number {
  return u16(p, at + 6);
}

/**
 * Of a too-big message: UNREACHABLE with CODE4.TOO_BIG, or TYPE6.TOO_BIG. 0 from a router older
 * than RFC 1191.
 */
export function mtu(p: Uint8Array, at: number, family: Family): number {
  return family === 4 ? u16(p, at + 6) : u32(p, at + 4);
}

/** Whether it reports about the packet that it quotes from HEADER_LEN on. */
export function isError(p: Uint8Array, at: number, family: Family): boolean {
  const kind = type(p, at);
  // RFC 4443 §2.1: the high bit of an ICMPv6 type says that it is not an error.
  if (family === 6) return kind < 128;
  return (
    kind === TYPE4.UNREACHABLE ||
    kind === TYPE4.SOURCE_QUENCH ||
    kind === TYPE4.REDIRECT ||
    kind === TYPE4.TIME_EXCEEDED ||
    kind === TYPE4.PARAMETER_PROBLEM
  );
}

export function isEcho(p: Uint8Array, at: number, family: Family): boolean {
  return type(p, at) === (family === 4 ? TYPE4.ECHO : TYPE6.ECHO);
}

export function isEchoReply(p: Uint8Array, at: number, family: Family): boolean {
  return type(p, at) === (family === 4 ? TYPE4.ECHO_REPLY : TYPE6.ECHO_REPLY);
}

export function isTooBig(p: Uint8Array, at: number, family: Family): boolean {
  if (family === 6) return type(p, at) === TYPE6.TOO_BIG;
  return type(p, at) === TYPE4.UNREACHABLE && code(p, at) === CODE4.TOO_BIG;
}

/**
 * Writes a header with checksum 0; `rest`: the 32 bits behind it (identifier and sequence, MTU,
 * pointer or 0).
 */
export function write(p: Uint8Array, at: number, type: number, code: number, rest: number): void {
  setU8(p, at, type);
  setU8(p, at + 1, code);
  setU16(p, at + CHECKSUM_AT, 0);
  setU32(p, at + 4, rest);
}
