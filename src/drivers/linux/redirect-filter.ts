import type { Family, Prefix } from '../../base/address.ts';
import * as bytes from '../../wire/bytes.ts';
import * as icmp from '../../wire/icmp.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import { PROTO } from '../../wire/protocol.ts';
import { HEADER_LEN as UDP_HEADER_LEN } from '../../wire/udp.ts';
import type { Diversion, InDiversion } from './diversion.ts';

/**
 * The classifier of clear packets, as a classic BPF program (<linux/filter.h>) for tc's `bpf
 * bytecode`: one program a wire, which the kernel replaces as a whole, so that a change never opens
 * a gap. It answers 0 for packets that the kernel should have, and all ones for those to redirect.
 *
 * Redirecting too much is harmless, since the engine judges all that it is given; too little is a
 * leak. So what cannot be recognized as ESP, AH, our UDP port or neighbour discovery from its first
 * headers is redirected if its addresses match.
 */
export interface Instruction {
  readonly code: number;
  /** Instructions to skip if the comparison holds, and if not: 0 to 255. */
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

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
}

/**
 * Above this length everything is redirected instead. tc has 16,384 octets for a request, and the
 * kernel reads the program for each packet from its start.
 */
export const INSTRUCTIONS_MAX = 1500;

const UDP_DPORT_AT = 2;
const UDP_LEN_AT = 4;

const LD_W = 0x20;
const LD_H = 0x28;
const LD_B = 0x30;
const LD_W_INDEXED = 0x40;
const LD_H_INDEXED = 0x48;
const LD_B_INDEXED = 0x50;
const SHIFT_LEFT = 0x64;
const A_TO_X = 0x07;
const LDX_IP_HEADER_LEN = 0xb1;
const AND = 0x54;
const JUMP = 0x05;
const JEQ = 0x15;
const JGT = 0x25;
const JGE = 0x35;
const JSET = 0x45;
const RET = 0x06;
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

/** The program for a diversion, or undefined if nothing is to be redirected. */
export function compileFilter(
  diversion: Diversion,
  options: FilterOptions,
): readonly Instruction[] | undefined {
  const { sharedPorts = [] } = options;
  if (!diversion.all && diversion.in.length === 0 && sharedPorts.length === 0) return undefined;
  const pairs = diversion.all ? undefined : diversion.in;
  const program = assemble(pairs, options);
  return program.length <= INSTRUCTIONS_MAX ? program : assemble(undefined, options);
}

/** As tc wants it: `count,code jt jf k,…`. */
export function bytecode(program: readonly Instruction[]): string {
  const lines = program.map(({ code, jt, jf, k }) => `${code} ${jt} ${jf} ${k}`);
  return [program.length, ...lines].join(',');
}

function assemble(pairs: readonly InDiversion[] | undefined, options: FilterOptions) {
  const [errors4, errors6] = pairs
    ? [errorsOf(4, pairs, options), errorsOf(6, pairs, options)]
    : [[], []];
  const v4 = [
    ...exceptions4(options),
    ...shared4(options),
    ...errors4,
    ...matches(4, pairs, options),
  ];
  const v6 = [
    ...exceptions6(options),
    ...shared6(options),
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
  const program: Instruction[] = [];
  const [srcAt, dstAt] = family === 4 ? [ipv4.SRC_AT, ipv4.DST_AT] : [ipv6.SRC_AT, ipv6.DST_AT];
  for (const { source, destination } of pairs) {
    if (source.address.family !== family || destination.address.family !== family) continue;
    const tests = [
      ...prefixTests(source, options.linkHeaderLen + srcAt),
      ...prefixTests(destination, options.linkHeaderLen + dstAt),
    ];
    program.push(...failingTo(tests, 1), REDIRECT);
  }
  program.push(PASS);
  return program;
}

/** One comparison of a 32-bit word; `mask` is all ones for a whole word. */
interface WordTest {
  readonly at: number;
  readonly mask: number;
  readonly value: number;
}

function prefixTests(prefix: Prefix, at: number): WordTest[] {
  const tests: WordTest[] = [];
  for (let word = 0; word * 32 < prefix.length; word++) {
    const bits = Math.min(32, prefix.length - word * 32);
    const mask = (0xffff_ffff << (32 - bits)) >>> 0;
    const value = (bytes.u32(prefix.address.bytes, word * 4) & mask) >>> 0;
    tests.push({ at: at + word * 4, mask, value });
  }
  return tests;
}

/**
 * The tests in order; the first that fails jumps behind the last one and `over` more instructions.
 */
function failingTo(tests: readonly WordTest[], over: number): Instruction[] {
  const parts = tests.map(({ at, mask, value }) => ({
    load: mask === 0xffff_ffff ? [op(LD_W, at)] : [op(LD_W, at), op(AND, mask)],
    value,
  }));
  const program: Instruction[] = [];
  let left = parts.reduce((sum, part) => sum + part.load.length + 1, 0);
  for (const { load, value } of parts) {
    left -= load.length + 1;
    program.push(...load, jump(JEQ, value, 0, left + over));
  }
  return program;
}

function op(code: number, k: number): Instruction {
  return { code, jt: 0, jf: 0, k };
}

function jump(code: number, k: number, jt: number, jf: number): Instruction {
  return { code, jt, jf, k };
}
