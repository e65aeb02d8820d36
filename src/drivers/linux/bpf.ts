/** Classic BPF (<linux/filter.h>), as far as filters at the wires need it. */
export interface Instruction {
  readonly code: number;
  /** Instructions to skip if the comparison holds, and if not: 0 to 255. */
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

/** Loads of 4, 2 and 1 octets in network order into A, at `k` or at `k` and X. */
export const LD_W = 0x20;
export const LD_H = 0x28;
export const LD_B = 0x30;
export const LD_W_INDEXED = 0x40;
export const LD_H_INDEXED = 0x48;
export const LD_B_INDEXED = 0x50;
export const SHIFT_LEFT = 0x64;
export const A_TO_X = 0x07;
/** X is four times the low four bits at `k`: the length of an IPv4 header. */
export const LDX_IP_HEADER_LEN = 0xb1;
export const AND = 0x54;
export const MOD = 0x94;
/** The only jump over more than 255 instructions. */
export const JUMP = 0x05;
export const JEQ = 0x15;
export const JGT = 0x25;
export const JGE = 0x35;
export const JSET = 0x45;
export const RET = 0x06;
export const RET_A = 0x16;
export const JUMP_MAX = 255;

export function op(code: number, k: number): Instruction {
  return { code, jt: 0, jf: 0, k };
}

export function jump(code: number, k: number, jt: number, jf: number): Instruction {
  return { code, jt, jf, k };
}

/** As the kernel has it: code (2), jt (1), jf (1), k (4). */
export const INSTRUCTION_LEN = 8;

export function writeInstruction(view: DataView, at: number, of: Instruction): void {
  view.setUint16(at, of.code, true);
  view.setUint8(at + 2, of.jt);
  view.setUint8(at + 3, of.jf);
  view.setUint32(at + 4, of.k, true);
}
