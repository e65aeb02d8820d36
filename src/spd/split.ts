import { cutBits, cutOf, packCut, popcount, type Run } from './cut.ts';
import type { RuleTable } from './rule-table.ts';

/** A list of this length is not worth a branch. */
export const LEAF_MAX = 4;
/** A branch looks at no more bits: 262,144 ways are a MiB. */
const BITS_MAX = 18;
/**
 * So many rules for each way of a branch: most ways then lead to one rule or nowhere, which is the
 * cheapest answer. A way takes 4 octets, an entry of a list five times that.
 */
const FILL = 0.5;
/** One more branch costs as much as comparing so many rules. */
const VISIT_COST = 2;
/** A branch has to save a fifth. */
const GAIN = 0.8;
/** More rules than this tell no more about a long list, or a short one. */
const SAMPLE_MAX = { long: 256, short: 32 } as const;
const LONG = 2000;

export interface Split {
  /** See `packCut`. */
  readonly cut: number;
  /** How many times as many entries there are afterwards. */
  readonly growth: number;
}

/**
 * The bits that tell these rules apart best, or undefined when none are worth a branch. Rules that
 * leave some of them open go into several ways, and there must not be more than `budget` times as
 * many entries. Bits in `fixed` are the same for all packets here.
 */
export function chooseSplit(
  rules: RuleTable,
  slots: readonly number[],
  fixed: Int32Array,
  budget: number,
): Split | undefined {
  const sample = sampleOf(slots);
  const runs = new Runs(rules, sample, fixed);
  const usual = Math.ceil(Math.log2(slots.length / FILL));
  let best: Split | undefined;
  let least = GAIN * slots.length;
  for (let bits = Math.min(BITS_MAX, Math.max(2, usual)); bits > 0; bits -= 2) {
    for (const cut of [runs.single(bits), runs.pair(bits)]) {
      if (cut === 0) continue;
      const { growth, cost } = judge(rules, sample, slots.length, cut);
      if (growth > budget || cost >= least) continue;
      best = { cut, growth };
      least = cost;
    }
  }
  return best;
}

/** The runs of so many bits in two words that tell these rules apart best; 0 if there are none. */
export function bestPair(rules: RuleTable, slots: readonly number[], bits: number): number {
  return new Runs(rules, sampleOf(slots), new Int32Array(rules.keyWords)).pair(bits);
}

/** What scanning a list is expected to cost, when it is split further as well as can be. */
function costOf(len: number): number {
  return len <= LEAF_MAX ? len : LEAF_MAX + (VISIT_COST * Math.log2(len / LEAF_MAX)) / 3;
}

// Of each rule of a sample what the cut sees, and which bits of that the rule says.
const values = new Int32Array(SAMPLE_MAX.long);
const masks = new Int32Array(SAMPLE_MAX.long);

/**
 * What a lookup would cost: half are for packets that rules are about, half for packets from
 * anywhere.
 */
function judge(
  rules: RuleTable,
  sample: readonly number[],
  len: number,
  cut: number,
): { growth: number; cost: number } {
  const all = (1 << cutBits(cut)) - 1;
  let entries = 0;
  let met = 0;
  for (const [i, slot] of sample.entries()) {
    const at = slot * 2 * rules.keyWords;
    const value = cutOf(cut, rules.words, at, 2);
    const mask = cutOf(cut, rules.words, at + 1, 2);
    values[i] = value;
    masks[i] = mask;
    entries += 1 << popcount(all & ~mask);
    for (let j = 0; j < i; j++) {
      const other = masks[j]!;
      if (((value ^ values[j]!) & mask & other) !== 0) continue;
      // What one says and the other leaves open decides whether they meet.
      met += other === mask ? 2 : 2 ** -popcount(other & ~mask) + 2 ** -popcount(mask & ~other);
    }
  }
  const others = (len - 1) / Math.max(1, sample.length - 1);
  const about = 1 + (met / sample.length) * others;
  const growth = entries / sample.length;
  const anywhere = (growth * len) / (all + 1);
  return { growth, cost: VISIT_COST + (costOf(about) + costOf(anywhere)) / 2 };
}

/** The best runs of bits, by how well each bit alone tells the rules apart. */
class Runs {
  readonly #words: number;
  /** By word and length: the best score of a run, and where it starts. */
  readonly #scores: Float64Array;
  readonly #shifts: Int32Array;

  constructor(rules: RuleTable, sample: readonly number[], fixed: Int32Array) {
    this.#words = rules.keyWords;
    this.#scores = new Float64Array(this.#words * (BITS_MAX + 1));
    this.#shifts = new Int32Array(this.#words * (BITS_MAX + 1));
    for (let word = 0; word < this.#words; word++) {
      const sums = scoreSums(rules, sample, word, fixed[word]!);
      for (let bits = 1; bits <= BITS_MAX; bits++) this.#search(sums, word, bits);
    }
  }

  /** The best cut of one run; 0 if none tells anything apart. */
  single(bits: number): number {
    let best = 0;
    for (let word = 1; word < this.#words; word++) {
      if (this.#score(word, bits) > this.#score(best, bits)) best = word;
    }
    return this.#score(best, bits) > 0 ? packCut(this.#run(best, bits)) : 0;
  }

  /** The best cut of runs in two words. */
  pair(bits: number): number {
    let most = 0;
    let cut = 0;
    for (let one = 0; one < this.#words; one++) {
      for (let other = one + 1; other < this.#words; other++) {
        for (let part = 1; part < bits; part++) {
          const score = this.#score(one, part) + this.#score(other, bits - part);
          if (score <= most) continue;
          most = score;
          cut = packCut(this.#run(one, part), this.#run(other, bits - part));
        }
      }
    }
    return cut;
  }

  #search(sums: Float64Array, word: number, bits: number): void {
    const at = word * (BITS_MAX + 1) + bits;
    for (let shift = 32 - bits; shift >= 0; shift--) {
      const score = sums[shift + bits]! - sums[shift]!;
      // Of equals the highest bits: prefixes name those.
      if (score <= this.#scores[at]! + 1e-9) continue;
      this.#scores[at] = score;
      this.#shifts[at] = shift;
    }
  }

  #score(word: number, bits: number): number {
    return this.#scores[word * (BITS_MAX + 1) + bits]!;
  }

  #run(word: number, bits: number): Run {
    return { word, bits, shift: this.#shifts[word * (BITS_MAX + 1) + bits]! };
  }
}

const ones = new Int32Array(32);
const zeros = new Int32Array(32);

/** Sums, from bit 0 up, of how many times fewer rules there are on one side of a bit, as log 2. */
function scoreSums(
  { words, keyWords }: RuleTable,
  sample: readonly number[],
  word: number,
  fixed: number,
): Float64Array {
  ones.fill(0);
  zeros.fill(0);
  for (const slot of sample) {
    const at = (slot * keyWords + word) * 2;
    for (let mask = words[at + 1]! & ~fixed; mask !== 0; mask &= mask - 1) {
      const bit = 31 - Math.clz32(mask & -mask);
      if (((words[at]! >>> bit) & 1) === 1) ones[bit]!++;
      else zeros[bit]!++;
    }
  }
  const sums = new Float64Array(33);
  for (let bit = 0; bit < 32; bit++) {
    const apart = (2 * ones[bit]! * zeros[bit]!) / sample.length ** 2;
    sums[bit + 1] = sums[bit]! - Math.log2(1 - apart);
  }
  return sums;
}

/** Evenly over the whole list. */
function sampleOf(slots: readonly number[]): readonly number[] {
  const max = slots.length > LONG ? SAMPLE_MAX.long : SAMPLE_MAX.short;
  if (slots.length <= max) return slots;
  const step = slots.length / max;
  return Array.from({ length: max }, (_, i) => slots[Math.floor(i * step)]!);
}
