import type { Family, Prefix } from '../../base/address.ts';
import * as bytes from '../../wire/bytes.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import { AND, type Instruction, JEQ, JUMP, JUMP_MAX, jump, LD_W, op } from './bpf.ts';
import type { InDiversion } from './diversion.ts';

/** One comparison of the first bits of a 32-bit word, which is `at` octets behind the IP header. */
interface WordTest {
  readonly at: number;
  /** 1 to 32. */
  readonly bits: number;
  readonly value: number;
}

type Key = (test: WordTest) => number;

/** Pairs stay the same objects while policies come and go around them. */
const known = new WeakMap<InDiversion, readonly WordTest[]>();

/**
 * Instructions that end with `found` for packets of any of these pairs, and go on behind
 * themselves for others. What pairs have in common is tested once: the usual host, with one address
 * and many peers, needs one instruction for each of them. Where that makes more than `max`, it is
 * as good as none: some more than that are returned, and not all.
 */
export function pairTests(
  family: Family,
  pairs: readonly InDiversion[],
  linkHeaderLen: number,
  found: Instruction,
  max: number,
): Instruction[] {
  const lists: (readonly WordTest[])[] = [];
  for (const pair of pairs) {
    const { source, destination } = pair;
    if (source.address.family !== family || destination.address.family !== family) continue;
    lists.push(testsOf(pair));
  }
  return lists.length === 0 ? [] : anyOf(lists, 0, { linkHeaderLen, found, max });
}

interface Context {
  readonly linkHeaderLen: number;
  readonly found: Instruction;
  readonly max: number;
}

function testsOf(pair: InDiversion): readonly WordTest[] {
  let tests = known.get(pair);
  if (!tests) {
    const { source, destination } = pair;
    const header = source.address.family === 4 ? ipv4 : ipv6;
    tests = [...prefixTests(destination, header.DST_AT), ...prefixTests(source, header.SRC_AT)];
    known.set(pair, tests);
  }
  return tests;
}

function prefixTests(prefix: Prefix, at: number): WordTest[] {
  const tests: WordTest[] = [];
  for (let word = 0; word * 32 < prefix.length; word++) {
    const bits = Math.min(32, prefix.length - word * 32);
    const value = (bytes.u32(prefix.address.bytes, word * 4) & maskOf(bits)) >>> 0;
    tests.push({ at: at + word * 4, bits, value });
  }
  return tests;
}

/** All tests of any of the lists hold, from the one with the number `from` on. */
function anyOf(
  lists: readonly (readonly WordTest[])[],
  from: number,
  context: Context,
): Instruction[] {
  if (lists.some((list) => list.length === from)) return [context.found];
  const ends = lists.filter((list) => list.length === from + 1);
  const others = lists.filter((list) => list.length > from + 1);
  const program: Instruction[] = [];
  for (const group of grouped(ends, wordKey, from)) endTests(group, from, context, program);
  for (const group of grouped(others, testKey, from)) {
    if (program.length > context.max) break;
    branch(group, from, context, program);
  }
  return program;
}

/** The last tests of lists: one word, loaded once and compared with one value after the other. */
function endTests(
  group: readonly (readonly WordTest[])[],
  from: number,
  context: Context,
  program: Instruction[],
): void {
  load(group[0]![from]!, context, program);
  for (let first = 0; first < group.length; first += JUMP_MAX) {
    const end = Math.min(group.length, first + JUMP_MAX);
    for (let i = first; i < end; i++) {
      const left = end - 1 - i;
      program.push(jump(JEQ, group[i]![from]!.value, left, left === 0 ? 1 : 0));
    }
    program.push(context.found);
  }
}

/** Lists that go on with the same test, behind that test. */
function branch(
  group: readonly (readonly WordTest[])[],
  from: number,
  context: Context,
  program: Instruction[],
): void {
  const test = group[0]![from]!;
  const rest = anyOf(group, from + 1, context);
  load(test, context, program);
  if (rest.length <= JUMP_MAX) program.push(jump(JEQ, test.value, 0, rest.length));
  else program.push(jump(JEQ, test.value, 1, 0), op(JUMP, rest.length));
  for (const instruction of rest) program.push(instruction);
}

/** The same number for the same bits of the same word, and only for them. */
const wordKey: Key = ({ at, bits }) => at * 64 + bits;
/** The same for the same test. */
const testKey: Key = (test) => wordKey(test) * 2 ** 32 + test.value;

function grouped(
  lists: readonly (readonly WordTest[])[],
  key: Key,
  from: number,
): Iterable<(readonly WordTest[])[]> {
  const groups = new Map<number, (readonly WordTest[])[]>();
  for (const list of lists) {
    const number = key(list[from]!);
    const group = groups.get(number);
    if (group) group.push(list);
    else groups.set(number, [list]);
  }
  return groups.values();
}

function load({ at, bits }: WordTest, { linkHeaderLen }: Context, program: Instruction[]): void {
  program.push(op(LD_W, linkHeaderLen + at));
  if (bits < 32) program.push(op(AND, maskOf(bits)));
}

function maskOf(bits: number): number {
  return (0xffff_ffff << (32 - bits)) >>> 0;
}
