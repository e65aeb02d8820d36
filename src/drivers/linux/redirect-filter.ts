import type { Family } from '../../base/address.ts';
import * as icmp from '../../wire/icmp.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import { PROTO } from '../../wire/protocol.ts';
import { HEADER_LEN as UDP_HEADER_LEN } from '../../wire/udp.ts';
import {
  A_TO_X,
  type Instruction,
  JEQ,
  JGE,
  JGT,
  JSET,
  JUMP,
  jump,
  LD_B,
  LD_B_INDEXED,
  LD_H,
  LD_H_INDEXED,
  LD_W,
  LD_W_INDEXED,
  LDX_IP_HEADER_LEN,
  op,
  RET,
  SHIFT_LEFT,
} from './bpf.ts';
import type { InDiversion, InDiversions } from './diversion.ts';
import { pairTests } from './redirect-pairs.ts';

export interface FilterOptions {
  /** Octets in front of the IP header: 14 on Ethernet, 0 on devices without a link header. */
  readonly linkHeaderLen: number;
  /** The UDP port that goes to the engine's own socket. */
  readonly encapPort?: number | undefined;
  /**
   * UDP ports that other programs have bound, for IKE: of what comes to them, ESP is redirected
   * (RFC 3948 §2.2: what does not begin with four zero octets), and so are fragments of UDP, since
   * one of ESP cannot be told from the rest.
   */
  readonly sharedPorts?: readonly number[];
  /**
   * Where sockets are that take clear packets, and have a device of their own that the kernel would
   * not hand such to. Fragments of UDP are redirected with them.
   */
  readonly socketPorts?: readonly SocketPort[];
}

export interface SocketPort {
  readonly protocol: typeof PROTO.TCP | typeof PROTO.UDP;
  readonly port: number;
}

/**
 * The kernel reads the program for each packet from its start, and a change loads all of it anew.
 * Above this length, or this number of pairs, everything is redirected instead: then a packet costs
 * a few instructions here and a decision of the engine's, which it costs nearly the same to make
 * for a hundred policies and for a hundred thousand.
 */
export const INSTRUCTIONS_MAX = 1000;
export const PAIRS_MAX = 1000;

const UDP_DPORT_AT = 2;
const UDP_LEN_AT = 4;

/** What the kernel knows about the packet beyond its octets (SKF_AD_OFF). */
const KNOWN_PROTOCOL = 0xffff_f000;
const KNOWN_VLAN_PRESENT = 0xffff_f000 + 48;
const ETHERTYPE = { 4: 0x0800, 6: 0x86dd } as const;
const REDIRECT = op(RET, 0xffff_ffff);
const PASS = op(RET, 0);
/**
 * ICMPv6 types that keep a link working: listener queries and reports (RFC 2710, without which a
 * switch that snoops stops delivering solicitations), router and neighbour solicitations and
 * advertisements, redirect (RFC 4861 §4).
 */
const LINK_MIN = 130;
const LINK_MAX = 137;
/** RFC 4443 §2.1: below this, an ICMPv6 message is an error. */
const ERROR_END = 128;

/**
 * The classifier of clear packets, as a classic BPF program (<linux/filter.h>) for the kernel's
 * cls_bpf: one program a wire, which the kernel replaces as a whole, so that a change never opens a
 * gap. It answers 0 for packets that the kernel should have, and all ones for those to redirect.
 *
 * Redirecting too much is harmless, since the engine judges all that it is given; too little is a
 * leak. So what cannot be recognized as ESP, AH, our UDP port or neighbour discovery from its first
 * headers is redirected if its addresses match.
 *
 * Undefined if nothing is to be redirected.
 */
export function compileFilter(
  diversion: InDiversions,
  options: FilterOptions,
): readonly Instruction[] | undefined {
  const { sharedPorts = [], socketPorts = [] } = options;
  const pairs = diversion.all ? undefined : pairsOf(diversion);
  if (pairs?.length === 0 && sharedPorts.length + socketPorts.length === 0) return undefined;
  const program = assemble(pairs, options);
  return program.length <= INSTRUCTIONS_MAX ? program : assemble(undefined, options);
}

/** Undefined if there are too many. */
function pairsOf(diversion: InDiversions): InDiversion[] | undefined {
  const pairs: InDiversion[] = [];
  for (const pair of diversion.in) if (pairs.push(pair) > PAIRS_MAX) return undefined;
  return pairs;
}

export function isSameProgram(a: readonly Instruction[], b: readonly Instruction[]): boolean {
  return (
    a.length === b.length &&
    a.every((one, i) => {
      const other = b[i]!;
      return (
        one.code === other.code && one.k === other.k && one.jt === other.jt && one.jf === other.jf
      );
    })
  );
}

function assemble(pairs: readonly InDiversion[] | undefined, options: FilterOptions) {
  const [errors4, errors6] = pairs
    ? [errorsOf(4, pairs, options), errorsOf(6, pairs, options)]
    : [[], []];
  const v4 = [
    ...exceptions4(options),
    ...shared4(options),
    ...sockets(4, options),
    ...errors4,
    ...matches(4, pairs, options),
  ];
  const v6 = [
    ...exceptions6(options),
    ...shared6(options),
    ...sockets(6, options),
    ...errors6,
    ...matches(6, pairs, options),
  ];
  return [
    // A tagged packet belongs to the VLAN's own device, which is a wire of its own.
    op(LD_W, KNOWN_VLAN_PRESENT),
    jump(JEQ, 0, 1, 0),
    PASS,
    op(LD_H, KNOWN_PROTOCOL),
    jump(JEQ, ETHERTYPE[4], 3, 0),
    jump(JEQ, ETHERTYPE[6], 1, 0),
    PASS,
    op(JUMP, v4.length),
    ...v4,
    ...v6,
  ];
}

function exceptions4({ linkHeaderLen, encapPort }: FilterOptions): Instruction[] {
  const start = [
    op(LD_B, linkHeaderLen + ipv4.PROTOCOL_AT),
    // Fragments of ESP too: the kernel reassembles them for our raw socket.
    jump(JEQ, PROTO.ESP, 1, 0),
    jump(JEQ, PROTO.AH, 0, 1),
    PASS,
  ];
  if (encapPort === undefined) return start;
  return [
    ...start,
    jump(JEQ, PROTO.UDP, 0, 6),
    // Ports are only where they seem to be in a whole datagram. Its fragments all go to the engine,
    // or none could.
    op(LD_H, linkHeaderLen + ipv4.FRAGMENT_AT),
    jump(JSET, ipv4.FLAG_MF | 0x1fff, 4, 0),
    op(LDX_IP_HEADER_LEN, linkHeaderLen),
    op(LD_H_INDEXED, linkHeaderLen + 2),
    jump(JEQ, encapPort, 0, 1),
    PASS,
  ];
}

function exceptions6({ linkHeaderLen, encapPort }: FilterOptions): Instruction[] {
  const upperAt = linkHeaderLen + ipv6.HEADER_LEN;
  const portTestLen = encapPort === undefined ? 0 : 4;
  const start = [
    op(LD_B, linkHeaderLen + ipv6.NEXT_HEADER_AT),
    jump(JEQ, PROTO.ESP, 1, 0),
    jump(JEQ, PROTO.AH, 0, 1),
    PASS,
    // Fragments of ESP, for the kernel to reassemble. A lie in a later fragment gains nothing: the
    // first one, with offset 0, says what the datagram is, and without it there is none.
    jump(JEQ, PROTO.FRAGMENT, 0, 4),
    op(LD_B, upperAt),
    jump(JEQ, PROTO.ESP, 1, 0),
    jump(JEQ, PROTO.AH, 0, 6 + portTestLen),
    PASS,
    jump(JEQ, PROTO.ICMPV6, 0, 4),
    op(LD_B, upperAt),
    jump(JGE, LINK_MIN, 0, 2 + portTestLen),
    jump(JGT, LINK_MAX, 1 + portTestLen, 0),
    PASS,
  ];
  if (encapPort === undefined) return start;
  return [
    ...start,
    jump(JEQ, PROTO.UDP, 0, 3),
    op(LD_H, upperAt + 2),
    jump(JEQ, encapPort, 0, 1),
    PASS,
  ];
}

/** ESP to the ports of programs, and fragments of UDP; everything else goes on behind it. */
function shared4({ linkHeaderLen, sharedPorts = [] }: FilterOptions): Instruction[] {
  if (sharedPorts.length === 0) return [];
  const tests = [
    op(LD_H, linkHeaderLen + ipv4.FRAGMENT_AT),
    jump(JSET, ipv4.FLAG_MF | 0x1fff, 0, 1),
    REDIRECT,
    op(LDX_IP_HEADER_LEN, linkHeaderLen),
    ...sharedTests(sharedPorts, (at) => [LD_H_INDEXED, LD_W_INDEXED, linkHeaderLen + at]),
  ];
  return [
    op(LD_B, linkHeaderLen + ipv4.PROTOCOL_AT),
    jump(JEQ, PROTO.UDP, 0, tests.length),
    ...tests,
  ];
}

function shared6({ linkHeaderLen, sharedPorts = [] }: FilterOptions): Instruction[] {
  if (sharedPorts.length === 0) return [];
  const upperAt = linkHeaderLen + ipv6.HEADER_LEN;
  const tests = sharedTests(sharedPorts, (at) => [LD_H, LD_W, upperAt + at]);
  return [
    op(LD_B, linkHeaderLen + ipv6.NEXT_HEADER_AT),
    jump(JEQ, PROTO.FRAGMENT, 0, 3),
    op(LD_B, upperAt),
    jump(JEQ, PROTO.UDP, 0, 2 + tests.length),
    REDIRECT,
    jump(JEQ, PROTO.UDP, 0, tests.length),
    ...tests,
  ];
}

/**
 * Of one UDP datagram, whose fields are read by what `load` gives: instructions for 16 and 32 bits,
 * and where. What is too short for ESP is not: a keep-alive is the program's, like IKE.
 */
function sharedTests(
  ports: readonly number[],
  load: (at: number) => readonly [half: number, word: number, k: number],
): Instruction[] {
  const half = (at: number) => op(load(at)[0], load(at)[2]);
  const word = (at: number) => op(load(at)[1], load(at)[2]);
  const marker = [
    half(UDP_LEN_AT),
    jump(JGE, UDP_HEADER_LEN + 4, 0, 3),
    word(UDP_HEADER_LEN),
    jump(JEQ, 0, 1, 0),
    REDIRECT,
  ];
  const tests = ports.map((port, i) => {
    const left = ports.length - 1 - i;
    return jump(JEQ, port, left, left === 0 ? marker.length : 0);
  });
  return [half(UDP_DPORT_AT), ...tests, ...marker];
}

/** TCP and UDP to the ports of sockets, and fragments of UDP. */
function sockets(
  family: Family,
  { linkHeaderLen: ipAt, socketPorts = [] }: FilterOptions,
): Instruction[] {
  const program: Instruction[] = [];
  const part = family === 4 ? sockets4 : sockets6;
  for (const protocol of [PROTO.UDP, PROTO.TCP] as const) {
    const ports = socketPorts.filter((one) => one.protocol === protocol);
    const tests = ports.flatMap(({ port }) => [jump(JEQ, port, 0, 1), REDIRECT]);
    if (ports.length > 0) program.push(...part(ipAt, protocol, tests));
  }
  return program;
}

function sockets4(ipAt: number, protocol: number, tests: readonly Instruction[]): Instruction[] {
  const body = [op(LDX_IP_HEADER_LEN, ipAt), op(LD_H_INDEXED, ipAt + UDP_DPORT_AT), ...tests];
  const fragments = [
    op(LD_H, ipAt + ipv4.FRAGMENT_AT),
    jump(JSET, ipv4.FLAG_MF | 0x1fff, 0, 1),
    // What begins a segment of TCP goes no way without the rest.
    protocol === PROTO.UDP ? REDIRECT : op(JUMP, body.length),
  ];
  return [
    op(LD_B, ipAt + ipv4.PROTOCOL_AT),
    jump(JEQ, protocol, 1, 0),
    op(JUMP, fragments.length + body.length),
    ...fragments,
    ...body,
  ];
}

function sockets6(ipAt: number, protocol: number, tests: readonly Instruction[]): Instruction[] {
  const upperAt = ipAt + ipv6.HEADER_LEN;
  const fragments = [
    op(LD_B, ipAt + ipv6.NEXT_HEADER_AT),
    jump(JEQ, PROTO.FRAGMENT, 0, 3),
    op(LD_B, upperAt),
    jump(JEQ, PROTO.UDP, 0, 1),
    REDIRECT,
  ];
  return [
    ...(protocol === PROTO.UDP ? fragments : []),
    op(LD_B, ipAt + ipv6.NEXT_HEADER_AT),
    jump(JEQ, protocol, 1, 0),
    op(JUMP, 1 + tests.length),
    op(LD_H, upperAt + UDP_DPORT_AT),
    ...tests,
  ];
}

/**
 * ICMP errors from anybody: the kernel would believe them about a protected flow, and only the
 * engine knows which flows are.
 */
function errorsOf(
  family: Family,
  pairs: readonly InDiversion[],
  { linkHeaderLen }: FilterOptions,
): Instruction[] {
  if (!pairs.some(({ source }) => source.address.family === family)) return [];
  return family === 4 ? errors4(linkHeaderLen) : errors6(linkHeaderLen + ipv6.HEADER_LEN);
}

/**
 * All but echoes. Of fragments it is the first that says what it is. Nobody cuts errors up, and one
 * that is loses its first fragment this way, so the kernel never has it whole.
 */
function errors4(ipAt: number): Instruction[] {
  return [
    op(LD_B, ipAt + ipv4.PROTOCOL_AT),
    jump(JEQ, PROTO.ICMP, 0, 7),
    op(LD_H, ipAt + ipv4.FRAGMENT_AT),
    jump(JSET, 0x1fff, 5, 0),
    op(LDX_IP_HEADER_LEN, ipAt),
    op(LD_B_INDEXED, ipAt),
    jump(JEQ, icmp.TYPE4.ECHO, 2, 0),
    jump(JEQ, icmp.TYPE4.ECHO_REPLY, 1, 0),
    REDIRECT,
  ];
}

/**
 * The same, behind hop-by-hop options too, where listener reports are. What has other extension
 * headers in front is rare, and is redirected whatever it is.
 */
function errors6(upperAt: number): Instruction[] {
  return [
    op(LD_B, upperAt - ipv6.HEADER_LEN + ipv6.NEXT_HEADER_AT),
    jump(JEQ, PROTO.ROUTING, 25, 0),
    jump(JEQ, PROTO.DSTOPTS, 24, 0),
    jump(JEQ, PROTO.ICMPV6, 21, 0),
    jump(JEQ, PROTO.FRAGMENT, 11, 0),
    jump(JEQ, PROTO.HOPOPTS, 0, 22),
    // Hop-by-hop options, of any length.
    op(LD_B, upperAt),
    jump(JEQ, PROTO.FRAGMENT, 19, 0),
    jump(JEQ, PROTO.ROUTING, 18, 0),
    jump(JEQ, PROTO.DSTOPTS, 17, 0),
    jump(JEQ, PROTO.ICMPV6, 0, 17),
    op(LD_B, upperAt + 1),
    op(SHIFT_LEFT, 3),
    op(A_TO_X, 0),
    op(LD_B_INDEXED, upperAt + 8),
    op(JUMP, 10),
    // A fragment: the first has the type.
    op(LD_B, upperAt),
    jump(JEQ, PROTO.DSTOPTS, 9, 0),
    jump(JEQ, PROTO.ROUTING, 8, 0),
    jump(JEQ, PROTO.FRAGMENT, 7, 0),
    jump(JEQ, PROTO.ICMPV6, 0, 7),
    op(LD_H, upperAt + 2),
    jump(JSET, 0xfff8, 5, 0),
    op(LD_B, upperAt + ipv6.FRAGMENT_HEADER_LEN),
    op(JUMP, 1),
    op(LD_B, upperAt),
    jump(JGE, ERROR_END, 1, 0),
    REDIRECT,
  ];
}

/** What is left: all of it, or the pairs of this family. */
function matches(
  family: Family,
  pairs: readonly InDiversion[] | undefined,
  options: FilterOptions,
): Instruction[] {
  if (!pairs) return [REDIRECT];
  const { linkHeaderLen } = options;
  return [...pairTests(family, pairs, linkHeaderLen, REDIRECT, INSTRUCTIONS_MAX), PASS];
}
