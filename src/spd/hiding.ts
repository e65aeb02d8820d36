import type { RuleTable } from './rule-table.ts';

/**
 * Whether of the packets at a place in the tree (which all have the same bits where `fixed` has
 * some) the earlier rule means every one that the later rule means, so that no lookup there ever
 * finds the later one.
 */
export function hides(
  rules: RuleTable,
  earlier: number,
  later: number,
  fixed: Int32Array,
): boolean {
  const { words, keyWords, loopback } = rules;
  // Packets of the loopback network pass by what does not name it.
  if (loopback[later] === 1 && loopback[earlier] === 0) return false;
  const [e, l] = [earlier * 2 * keyWords, later * 2 * keyWords];
  // Packets cut off before their ports pass by what names ports, although they are at this place.
  const portsAt = 2 * (keyWords - 2) + 1;
  if (words[e + portsAt] !== 0 && words[l + portsAt] === 0) return false;
  for (let i = 0; i < 2 * keyWords; i += 2) {
    const mask = words[e + i + 1]!;
    const also = words[l + i + 1]!;
    if ((mask & ~(also | fixed[i >> 1]!)) !== 0) return false;
    if (((words[e + i]! ^ words[l + i]!) & mask & also) !== 0) return false;
  }
  return true;
}

/** Of rules in their order those that none hides there; undefined if they are more than `max`. */
export function visibleOf(
  rules: RuleTable,
  slots: readonly number[],
  fixed: Int32Array,
  max: number,
): number[] | undefined {
  const visible: number[] = [];
  for (const slot of slots) {
    if (visible.some((other) => hides(rules, other, slot, fixed))) continue;
    if (visible.length === max) return undefined;
    visible.push(slot);
  }
  return visible;
}

/** The rules up to the first that means every packet there. */
export function upToCover(
  rules: RuleTable,
  slots: readonly number[],
  fixed: Int32Array,
): readonly number[] {
  let cover: number | undefined;
  for (const slot of slots) {
    if (!isForAll(rules, slot, fixed)) continue;
    if (cover === undefined || rules.compare(slot, cover) < 0) cover = slot;
  }
  const last = cover;
  return last === undefined ? slots : slots.filter((slot) => rules.compare(slot, last) <= 0);
}

function isForAll({ words, keyWords }: RuleTable, slot: number, fixed: Int32Array): boolean {
  const at = slot * 2 * keyWords + 1;
  // As above. (What names the loopback network names an address, which may be fixed here.)
  if (words[at + 2 * (keyWords - 2)] !== 0) return false;
  for (let i = 0; i < keyWords; i++) {
    if ((words[at + 2 * i]! & ~fixed[i]!) !== 0) return false;
  }
  return true;
}
