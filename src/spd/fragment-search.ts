import type { RuleTable } from './rule-table.ts';
import type { RuleTree } from './rule-tree.ts';

const NONE = -1;

/**
 * As `RuleTree.first`, for a packet of which only the bits are known that `known` has: the first
 * rule that means it for some value of the rest, or -1.
 */
export function firstPossible(
  rules: RuleTable,
  tree: RuleTree,
  key: Int32Array,
  known: Int32Array,
  loopback: boolean,
): number {
  let best = NONE;
  tree.visit(key, known, {
    everything: false,
    isDone: () => false,
    enter: (least) => best === NONE || least <= rules.priorities[best]!,
    each: (slot) => {
      if (loopback && rules.loopback[slot] === 0) return true;
      if (!agrees(rules, slot, key, known)) return true;
      best = tree.earlier(best, slot);
      return false;
    },
  });
  return best;
}

function agrees(
  { words, keyWords }: RuleTable,
  slot: number,
  key: Int32Array,
  known: Int32Array,
): boolean {
  const at = slot * 2 * keyWords;
  for (let i = 0; i < keyWords; i++) {
    if (((key[i]! ^ words[at + 2 * i]!) & words[at + 2 * i + 1]! & known[i]!) !== 0) return false;
  }
  return true;
}
