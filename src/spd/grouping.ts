import { ADDRESS_BITS } from '../base/address.ts';
import type { RuleTable } from './rule-table.ts';

/** More rules than this tell no more about how to group them. */
const SAMPLE_MAX = 512;
/** A group is good when by the bits that all its rules name a rule meets so few others. */
const MEET_MAX = 50;
/** Groups besides the rest; each costs every lookup a visit. */
const GROUPS_MAX = 4;
/** What a group has to take of the rules that are left, to be worth that. */
const SHARE_MIN = 0.1;
/**
 * In a table no larger than this, where a rule has packets in common with no more others than that,
 * it may as well meet them all in one tree.
 */
const ALONE_MAX = { rules: 4096, overlaps: 64 } as const;
/** As `SAMPLE_MAX`, for what looks at pairs. */
const PAIRS_SAMPLE_MAX = 128;
/** A group by one field leaves others that are alike, so it may take a little less. */
const SINGLE_BONUS = 1.1;

/** Most rules of a table sleep when only one of so many is awake. */
const AWAKE_ONE_OF = 3;

/** Bits that a rule must name to belong to a group, as a mask for each word of a key. */
export type Shape = Int32Array;

/**
 * Sorts rules into groups by what they name, such that within each the rules can be told apart by
 * bits that all of them name: rules about the source only and rules about the destination only have
 * no such bits, and in one tree each of the former would meet each of the latter. A rule belongs to
 * the first group whose shape it has; the last one takes all.
 */
export function planGroups(rules: RuleTable, slots: readonly number[]): Shape[] {
  const groups: Shape[] = [];
  const none = new Int32Array(rules.keyWords);
  const isSmall = slots.length <= ALONE_MAX.rules;
  if (isSmall && overlaps(rules, slots) <= ALONE_MAX.overlaps) return [none];
  let rest = sampleOf(slots, SAMPLE_MAX);
  const shareMin = SHARE_MIN * rest.length;
  const scale = slots.length / Math.max(1, rest.length);
  while (groups.length < GROUPS_MAX) {
    if (meets(rules, rest, scale) <= MEET_MAX) break;
    const shape = bestShape(rules, rest, scale, shareMin);
    if (shape === undefined) break;
    groups.push(shape);
    rest = rest.filter((slot) => !hasShape(rules, slot, shape));
  }
  groups.push(none);
  return groups;
}

/**
 * Most rules of the table can never apply (`DormantRules`), and are not among these: what is left
 * is vague and overlaps, but is so little that each may be in very many lists of one tree.
 */
export function mostSleep(rules: RuleTable, slots: readonly number[]): boolean {
  return AWAKE_ONE_OF * slots.length < rules.size;
}

/**
 * The roots in the order in which they are best asked: the late rules, of which there are few, then
 * vague ones, which most often are about a packet; but when some groups clearly come before others
 * by their priorities, first those.
 */
export function orderOf(rules: RuleTable, groups: readonly (readonly number[])[]): number[] {
  const quartiles = groups.map((slots) => {
    const some = sampleOf(slots, PAIRS_SAMPLE_MAX).map((slot) => rules.priorities[slot]!);
    some.sort((a, b) => a - b);
    return [1, 2, 3].map((i) => some[(i * some.length) >> 2] ?? 0);
  });
  const roots = [...groups.keys()].reverse();
  const medians = quartiles.map((some) => some[1]!);
  const spread = Math.max(...medians) - Math.min(...medians);
  const within = Math.max(...quartiles.map((some) => some[2]! - some[0]!));
  if (spread > within) roots.sort((a, b) => medians[a]! - medians[b]!);
  return [groups.length, ...roots];
}

export function hasShape(rules: RuleTable, slot: number, shape: Shape): boolean {
  const at = slot * 2 * rules.keyWords + 1;
  for (let word = 0; word < shape.length; word++) {
    if ((shape[word]! & ~rules.words[at + 2 * word]!) !== 0) return false;
  }
  return true;
}

function bestShape(
  rules: RuleTable,
  rest: readonly number[],
  scale: number,
  atLeast: number,
): Shape | undefined {
  let best: Shape | undefined;
  let most = atLeast;
  for (const { shape, isSingle } of shapesOf(rules)) {
    const inside = rest.filter((slot) => hasShape(rules, slot, shape));
    const worth = inside.length * (isSingle ? SINGLE_BONUS : 1);
    if (worth <= most || meets(rules, inside, scale) > MEET_MAX) continue;
    best = shape;
    most = worth;
  }
  return best;
}

/** How many of the rules a rule is alike in all bits that every one of them names. */
function meets(rules: RuleTable, sample: readonly number[], scale: number): number {
  const { words, keyWords } = rules;
  const common = new Int32Array(keyWords).fill(-1);
  for (const slot of sample) {
    for (let i = 0; i < keyWords; i++) common[i]! &= words[(slot * keyWords + i) * 2 + 1]!;
  }
  const counts = new Map<number, number>();
  let pairs = 0;
  for (const slot of sample) {
    let hash = 0;
    for (let i = 0; i < keyWords; i++) {
      hash = Math.imul(hash ^ (words[(slot * keyWords + i) * 2]! & common[i]!), 0x9e37_79b1);
      hash ^= hash >>> 15;
    }
    const before = counts.get(hash) ?? 0;
    pairs += 2 * before;
    counts.set(hash, before + 1);
  }
  const len = sample.length;
  return len < 2 ? 1 : 1 + (pairs / (len * (len - 1))) * (len * scale - 1);
}

function* shapesOf({
  family,
  keyWords,
}: RuleTable): Generator<{ shape: Shape; isSingle: boolean }> {
  const addressWords = (keyWords - 2) / 2;
  const bits = ADDRESS_BITS[family];
  const make = (src: number, dst: number, ports: number) => {
    const shape = new Int32Array(keyWords);
    for (let i = 0; i < addressWords; i++) {
      shape[i] = maskOf(src - 32 * i);
      shape[addressWords + i] = maskOf(dst - 32 * i);
    }
    shape[keyWords - 2] = ports;
    return shape;
  };
  for (const ports of [0xffff, -0x10000, -1]) yield { shape: make(0, 0, ports), isSingle: true };
  for (let len = bits / 32; len <= bits; len += bits / 32) {
    yield { shape: make(len, 0, 0), isSingle: true };
    yield { shape: make(0, len, 0), isSingle: true };
  }
  for (let src = bits / 8; src <= bits; src += bits / 8) {
    for (let dst = bits / 8; dst <= bits; dst += bits / 8) {
      yield { shape: make(src, dst, 0), isSingle: false };
    }
  }
}

function maskOf(len: number): number {
  return len <= 0 ? 0 : len >= 32 ? -1 : -1 << (32 - len);
}

/** With how many others a rule has packets in common. */
function overlaps({ words, keyWords }: RuleTable, slots: readonly number[]): number {
  const sample = sampleOf(slots, PAIRS_SAMPLE_MAX);
  let pairs = 0;
  for (const [i, a] of sample.entries()) {
    for (let j = 0; j < i; j++) {
      const [x, y] = [a * 2 * keyWords, sample[j]! * 2 * keyWords];
      let at = 0;
      while (
        at < 2 * keyWords &&
        ((words[x + at]! ^ words[y + at]!) & words[x + at + 1]! & words[y + at + 1]!) === 0
      ) {
        at += 2;
      }
      if (at === 2 * keyWords) pairs += 2;
    }
  }
  const len = sample.length;
  return len < 2 ? 0 : (pairs / (len * (len - 1))) * slots.length;
}

/** Evenly over the whole list. */
function sampleOf(slots: readonly number[], max: number): readonly number[] {
  if (slots.length <= max) return slots;
  const step = slots.length / max;
  return Array.from({ length: max }, (_, i) => slots[Math.floor(i * step)]!);
}
