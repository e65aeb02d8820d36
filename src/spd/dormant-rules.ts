import { popcount } from './cut.ts';
import { hides } from './hiding.ts';
import type { RuleTable } from './rule-table.ts';
import type { RuleTree } from './rule-tree.ts';

/** Under one rule: so many are looked at again when it goes, which takes some milliseconds. */
export const DORMANT_MAX = 1024;
/** So many of the widest rules are asked which others they hide. */
const WIDE_MAX = 512;
/** When of some rules fewer are hidden than that, the others are not asked. */
const SAMPLE = { max: 256, share: 0.05 } as const;

/**
 * Rules that can never apply, since another comes first and means all that they mean. They need not
 * be in a tree: of vague rules at random priorities that is most, and a small tree is fast. When
 * the rule that hides them goes they wake up.
 */
export class DormantRules {
  /** The rule that hides it, by slot. */
  readonly #hiders = new Map<number, number>();
  readonly #under = new Map<number, number[]>();

  get size(): number {
    return this.#hiders.size;
  }

  /** Octets of memory, about: two entries of a table and one of a list for each. */
  get octets(): number {
    return 48 * this.#hiders.size;
  }

  has(slot: number): boolean {
    return this.#hiders.has(slot);
  }

  /** Whether a rule may sleep under this one. */
  hasRoom(hider: number): boolean {
    return (this.#under.get(hider)?.length ?? 0) < DORMANT_MAX;
  }

  /** A rule under which others sleep does not sleep itself. */
  hasOthers(hider: number): boolean {
    return this.#under.has(hider);
  }

  add(slot: number, hider: number): void {
    this.#hiders.set(slot, hider);
    const others = this.#under.get(hider);
    if (others === undefined) this.#under.set(hider, [slot]);
    else others.push(slot);
  }

  /** It is taken out of the table. */
  delete(slot: number): void {
    const hider = this.#hiders.get(slot)!;
    const others = this.#under.get(hider)!;
    this.#hiders.delete(slot);
    others[others.indexOf(slot)] = others.at(-1)!;
    others.pop();
    if (others.length === 0) this.#under.delete(hider);
  }

  /** The rules that slept under one that goes. */
  wake(hider: number): readonly number[] {
    const woken = this.#under.get(hider) ?? [];
    this.#under.delete(hider);
    for (const slot of woken) this.#hiders.delete(slot);
    return woken;
  }
}

/** A rule of the tree that hides this one everywhere, and under which it may sleep; or -1. */
export function hiderOf(
  rules: RuleTable,
  tree: RuleTree,
  slot: number,
  dormant: DormantRules,
): number {
  const { words, keyWords } = rules;
  const key = new Int32Array(keyWords);
  for (let i = 0; i < keyWords; i++) key[i] = words[(slot * keyWords + i) * 2]!;
  const everywhere = new Int32Array(keyWords);
  let hider = -1;
  // It leaves open all that this one leaves open, so that any packet of this one leads to it.
  tree.visit(key, new Int32Array(keyWords).fill(-1), {
    everything: false,
    isDone: () => hider >= 0,
    enter: (least) => least <= rules.priorities[slot]!,
    each: (other) => {
      if (hider >= 0 || rules.compare(other, slot) >= 0) return false;
      const isFree = hides(rules, other, slot, everywhere) && !dormant.has(other);
      if (isFree && dormant.hasRoom(other)) hider = other;
      return hider < 0;
    },
  });
  return hider;
}

/**
 * Lays those of the rules to sleep that one of the widest rules hides, and says which stay awake.
 */
export function layToSleep(
  rules: RuleTable,
  slots: readonly number[],
  dormant: DormantRules,
): readonly number[] {
  const wide = widest(rules, slots);
  const everywhere = new Int32Array(rules.keyWords);
  const findHider = (slot: number) => {
    for (const other of wide) {
      if (rules.compare(other, slot) >= 0) return undefined;
      const isFree = dormant.hasRoom(other) && !dormant.has(other);
      if (isFree && hides(rules, other, slot, everywhere)) return other;
    }
    return undefined;
  };
  const step = Math.max(1, Math.floor(slots.length / SAMPLE.max));
  let hidden = 0;
  for (let i = 0; i < slots.length; i += step) if (findHider(slots[i]!) !== undefined) hidden++;
  if (hidden * step <= SAMPLE.share * slots.length) return slots;
  // The widest come last: those under which none has come to sleep may sleep themselves.
  const others = new Set(wide);
  for (const slot of [...slots.filter((one) => !others.has(one)), ...wide]) {
    if (dormant.hasOthers(slot)) continue;
    const hider = findHider(slot);
    if (hider !== undefined) dormant.add(slot, hider);
  }
  return slots.filter((slot) => !dormant.has(slot));
}

/** The rules that name the fewest bits, in their order. */
function widest(rules: RuleTable, slots: readonly number[]): number[] {
  const { words, keyWords } = rules;
  const widths = Uint16Array.from(slots, (slot) => {
    let bits = 0;
    for (let i = 0; i < keyWords; i++) bits += popcount(words[(slot * keyWords + i) * 2 + 1]!);
    return bits;
  });
  const last = widths.slice().sort()[Math.min(WIDE_MAX, widths.length) - 1]!;
  const wide = slots.filter((_, i) => widths[i]! <= last).slice(0, WIDE_MAX);
  return wide.sort((a, b) => rules.compare(a, b));
}
