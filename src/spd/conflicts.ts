import { describeRequest, describeSelector, type Policy } from './policy.ts';
import type { PolicyIndex } from './policy-index.ts';
import type { RuleTable } from './rule-table.ts';

/** How many policies are looked at for such that a new one gets in the way of. */
const VISITS_MAX = 1024;

/**
 * What is odd about a policy among the others, one sentence each: it can never apply, it keeps
 * another from ever applying, or where it overlaps another of the same priority only the order of
 * their arrival decides. Of each kind the first that is found in a bounded search; a new policy
 * never waits for the whole table.
 */
export function conflictsOf(index: PolicyIndex, slot: number): string[] {
  const { rules } = index;
  const found: string[] = [];
  const cover = findCover(index, slot);
  const own = describe(rules.policies[slot]!);
  if (cover !== undefined) {
    const other = describe(rules.policies[cover]!);
    found.push(`${own} can never apply: ${other} comes first and covers all of it`);
  }
  const { hidden, crossing } = findOverlaps(index, slot);
  if (hidden !== undefined) {
    const other = describe(rules.policies[hidden]!);
    found.push(`${other} can never apply any more: ${own} comes first and covers all of it`);
  }
  if (crossing !== undefined && cover === undefined) {
    const other = describe(rules.policies[crossing]!);
    found.push(
      `${own} and ${other} overlap and have the same priority: the one added first applies to both`,
    );
  }
  return found;
}

/** An earlier rule that means every packet that this one means. */
function findCover({ rules, tree }: PolicyIndex, slot: number): number | undefined {
  let cover: number | undefined;
  const { values } = wordsOf(rules, slot);
  // A rule that covers this one leaves open what this one leaves open, so any packet of it will do.
  tree.visit(values, new Int32Array(values.length).fill(-1), {
    everything: true,
    isDone: () => cover !== undefined,
    enter: () => true,
    each: (other) => {
      if (cover !== undefined || rules.compare(other, slot) >= 0) return false;
      if (covers(rules, other, slot)) cover = other;
      return cover === undefined;
    },
  });
  return cover;
}

function findOverlaps(
  { rules, tree }: PolicyIndex,
  slot: number,
): { hidden: number | undefined; crossing: number | undefined } {
  let hidden: number | undefined;
  let crossing: number | undefined;
  let visits = 0;
  const { values, masks } = wordsOf(rules, slot);
  tree.visit(values, masks, {
    everything: true,
    isDone: () => visits > VISITS_MAX || (hidden !== undefined && crossing !== undefined),
    enter: () => true,
    each: (other) => {
      if (other === slot || ++visits > VISITS_MAX) return true;
      if (rules.compare(slot, other) < 0 && covers(rules, slot, other)) hidden ??= other;
      else if (isCrossing(rules, slot, other)) crossing ??= other;
      return true;
    },
  });
  return { hidden, crossing };
}

/** Every packet that the inner rule means is meant by the outer one. */
function covers(rules: RuleTable, outer: number, inner: number): boolean {
  // Packets of the loopback network pass by what does not name it.
  if (rules.loopback[inner] === 1 && rules.loopback[outer] === 0) return false;
  const { words, keyWords } = rules;
  const [o, i] = [outer * 2 * keyWords, inner * 2 * keyWords];
  for (let at = 0; at < 2 * keyWords; at += 2) {
    const mask = words[o + at + 1]!;
    if ((mask & ~words[i + at + 1]!) !== 0) return false;
    if (((words[o + at]! ^ words[i + at]!) & mask) !== 0) return false;
  }
  return true;
}

/** Some packets are meant by both rules, each means others too, and they do not say the same. */
function isCrossing(rules: RuleTable, a: number, b: number): boolean {
  if (rules.priorities[a] !== rules.priorities[b] || rules.loopback[a] !== rules.loopback[b]) {
    return false;
  }
  const { words, keyWords } = rules;
  const [x, y] = [a * 2 * keyWords, b * 2 * keyWords];
  for (let at = 0; at < 2 * keyWords; at += 2) {
    const mask = words[x + at + 1]! & words[y + at + 1]!;
    if (((words[x + at]! ^ words[y + at]!) & mask) !== 0) return false;
  }
  if (covers(rules, a, b) || covers(rules, b, a)) return false;
  return actionOf(rules.policies[a]!) !== actionOf(rules.policies[b]!);
}

function actionOf(policy: Policy): string {
  return `${policy.type} ${policy.requests.map(describeRequest).join(' ')}`;
}

function describe(policy: Policy): string {
  return `policy ${policy.id} (${policy.direction} ${describeSelector(policy.selector)})`;
}

/** The words of a rule, and which bits of them count. */
function wordsOf({ words, keyWords }: RuleTable, slot: number) {
  const at = slot * 2 * keyWords;
  const values = Int32Array.from({ length: keyWords }, (_, i) => words[at + 2 * i]!);
  const masks = Int32Array.from({ length: keyWords }, (_, i) => words[at + 2 * i + 1]!);
  return { values, masks };
}
