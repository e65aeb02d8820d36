import type { RuleTable } from './rule-table.ts';

/** More rules than this tell no more about where to split. */
const SAMPLE_MAX = 512;
/** One more node to visit costs as much as comparing so many rules. */
const VISIT_COST = 4;
/** A split has to make the list that is left to scan shorter by a fifth. */
const GAIN = 0.8;

/** The nibbles of a key; behind the protocol there is nothing. */
export function nibbleCount(keyWords: number): number {
  return 8 * (keyWords - 1) + 2;
}

/** Nibble 0 is the four highest bits of word 0. */
export function nibbleOf(word: number, nibble: number): number {
  return (word >>> (28 - 4 * (nibble & 7))) & 15;
}

export interface Split {
  readonly nibble: number;
  /** Rules that leave the nibble open go into every way; otherwise into a child of their own. */
  readonly replicate: boolean;
  /** How many times as many entries there are afterwards. */
  readonly growth: number;
}

/**
 * The nibble that tells these rules apart best, or undefined when none is worth a branch. What is
 * left to scan is estimated half for packets that rules are about, half for packets from anywhere.
 */
export function chooseSplit(
  rules: RuleTable,
  slots: readonly number[],
  seen: Uint8Array,
  budget: number,
): Split | undefined {
  const sample = sampleOf(slots);
  let best: Split | undefined;
  let least = GAIN * sample.length;
  for (let nibble = 0; nibble < seen.length; nibble++) {
    if (seen[nibble] !== 0) continue;
    const specific = countSpecific(rules, sample, nibble);
    if (specific === 0) continue;
    const apart = expected(exact) + (sample.length - specific) + VISIT_COST;
    if (apart < least) {
      best = { nibble, replicate: false, growth: 1 };
      least = apart;
    }
    const growth = sum(fitting) / sample.length;
    const together = expected(fitting);
    if (growth <= budget && together < least) {
      best = { nibble, replicate: true, growth: Math.max(1, growth) };
      least = together;
    }
  }
  return best;
}

// Of the nibble looked at: rules that say all of it, and rules that fit, by its value.
const exact = new Float64Array(16);
const fitting = new Float64Array(16);

/** Fills both tables; returns how many rules say all of the nibble. */
function countSpecific(rules: RuleTable, slots: readonly number[], nibble: number): number {
  exact.fill(0);
  fitting.fill(0);
  const { words, keyWords } = rules;
  let specific = 0;
  let open = 0;
  for (const slot of slots) {
    const at = slot * 2 * keyWords + 2 * (nibble >> 3);
    const value = nibbleOf(words[at]!, nibble);
    const mask = nibbleOf(words[at + 1]!, nibble);
    if (mask === 15) {
      specific++;
      exact[value]!++;
      fitting[value]!++;
    } else if (mask === 0) {
      open++;
    } else {
      for (let way = 0; way < 16; way++) if (((way ^ value) & mask) === 0) fitting[way]!++;
    }
  }
  for (let way = 0; way < 16; way++) fitting[way]! += open;
  return specific;
}

function expected(counts: Float64Array): number {
  let squares = 0;
  for (const count of counts) squares += count * count;
  const total = sum(counts);
  return (squares / total + total / 16) / 2;
}

function sum(counts: Float64Array): number {
  let total = 0;
  for (const count of counts) total += count;
  return total;
}

/** Evenly over the whole list. */
function sampleOf(slots: readonly number[]): readonly number[] {
  if (slots.length <= SAMPLE_MAX) return slots;
  const step = slots.length / SAMPLE_MAX;
  return Array.from({ length: SAMPLE_MAX }, (_, i) => slots[Math.floor(i * step)]!);
}
