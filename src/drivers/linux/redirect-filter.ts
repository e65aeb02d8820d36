import type { Family, Prefix } from '../../base/address.ts';
import * as bytes from '../../wire/bytes.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import { PROTO } from '../../wire/protocol.ts';
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
}

/**
 * Above this length everything is redirected instead. tc has 16,384 octets for a request, and the
 * kernel reads the program for each packet from its start.
 */
export const INSTRUCTIONS_MAX = 1500;

const LD_W = 0x20;
const LD_H = 0x28;
const LD_B = 0x30;
const LD_H_INDEXED = 0x48;
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

/** The program for a diversion, or undefined if nothing is to be redirected. */
export function compileFilter(
  diversion: Diversion,
  options: FilterOptions,
): readonly Instruction[] | undefined {
  if (!diversion.all && diversion.in.length === 0) return undefined;
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
  const v4 = [...exceptions4(options), ...matches(4, pairs, options)];
  const v6 = [...exceptions6(options), ...matches(6, pairs, options)];
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
