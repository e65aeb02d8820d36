import type { SearchBatch, SearchLoops, SearchTables } from '../../../src/base/table-search.ts';
import { cutBits, cutOf, packCut } from '../../../src/spd/cut.ts';
import type { Policy } from '../../../src/spd/policy.ts';
import { PolicyIndex } from '../../../src/spd/policy-index.ts';
import { u16, u32 } from '../../../src/wire/bytes.ts';
import { searches } from '../../drivers/native/searches.ts';
import { World } from '../../spd/policy-world.ts';
import { concat } from '../../wire/octets.ts';
import { must, type Target } from '../target.ts';

const RULES = 24;
/** As many as there is room for, so that nothing of theirs is behind the last. */
const KEYS = 96;
const CHANGE_LEN = 7;
/** The first sixteen bits of a key. */
const WIDE_CUT = packCut({ word: 0, shift: 16, bits: 16 });

/** Tables that are right, in arrays that are just as long as they have to be. */
interface Sound {
  readonly tables: SearchTables;
  readonly nodes: Int32Array;
  readonly lists: Int32Array;
  /** Of the rules; see `RuleTable`. */
  readonly words: Int32Array;
}

/**
 * Tables whose words are wrong in every way: a search ends as it may, and answers with rules that
 * there are. That nothing outside of the arrays is read is for a sanitizer to see: behind an array
 * there is memory that nobody may touch. An input is the family and changes of seven octets: nodes,
 * cuts, lists, or lengths of lists; which word; and what it is.
 */
export class HostileTables {
  readonly ends = { done: 0, stale: 0, refused: 0 };
  readonly #families: readonly (() => (input: Uint8Array) => 'done' | 'stale' | 'refused')[];
  readonly #ready: ((input: Uint8Array) => 'done' | 'stale' | 'refused')[] = [];

  constructor(loops: SearchLoops) {
    this.#families = ([4, 6] as const).map((family) => () => hostile(loops, family));
  }

  run(input: Uint8Array): void {
    const which = (input[0] ?? 0) & 1;
    this.#ready[which] ??= this.#families[which]!();
    this.ends[this.#ready[which](input)]++;
  }
}

function hostile(loops: SearchLoops, family: 4 | 6) {
  const sound = soundTables(family);
  const keyWords = family === 4 ? 4 : 10;
  const batch = {
    keyWords,
    keys: new Int32Array(KEYS * keyWords),
    flags: new Uint8Array(KEYS),
    found: new Int32Array(KEYS),
  };
  const dice = new World(3, 4);
  const { words } = sound;
  for (let i = 0; i < KEYS; i++) {
    const rule = dice.below(RULES);
    for (let word = 0; word < keyWords; word++) {
      const at = (rule * keyWords + word) * 2;
      batch.keys[i * keyWords + word] = words[at]! | (dice.below(2 ** 32) & ~words[at + 1]!);
    }
    batch.flags[i] = dice.below(4);
  }
  const search = loops.open(batch);
  const { nodes, lists } = sound;
  const met = nodesOnTheWay(sound.tables, batch);
  const cuts = met.filter((node) => node > 0);
  const heads = met.filter((node) => node < 0).map((node) => ~node);
  const [goodNodes, goodLists] = [nodes.slice(), lists.slice()];
  const rules = sound.tables.rules.serials.length;
  return (input: Uint8Array) => {
    nodes.set(goodNodes);
    lists.set(goodLists);
    for (let at = 1; at + CHANGE_LEN <= input.length; at += CHANGE_LEN) {
      const kind = input[at]! & 3;
      const array = kind < 2 ? nodes : lists;
      const word = u16(input, at + 1);
      // What says how far to go deserves more than its share.
      if (kind === 1) array[cuts[word % cuts.length]!] = u32(input, at + 3);
      else if (kind === 3) array[heads[word % heads.length]!] = u32(input, at + 3);
      else array[word % array.length] = u32(input, at + 3);
    }
    batch.found.fill(-9);
    const end = search.run(sound.tables, KEYS);
    for (let i = 0; i < batch.found.length; i++) {
      const found = batch.found[i]!;
      if (end !== 'done') must(found === -9, 'nothing is written');
      else must(found >= -1 && found < rules, 'a rule that there is, or none');
    }
    if (end === 'stale') must(search.staleKey < KEYS, 'one of the keys');
    return end;
  };
}

function soundTables(family: 4 | 6): Sound {
  const index = new PolicyIndex(family, 0, { lookups: 0, misses: 0 });
  const world = new World(family, 4);
  const times = { createdMs: 0, createdWallMs: 0, lastUsedMs: 0, lastUsedWallMs: 0, moment: 0 };
  const policies = Array.from({ length: RULES }, (_, id): [Policy, number] => [
    { ...world.spec(family), ...times, id },
    id,
  ]);
  index.addAll(policies);
  const { tree, rules } = index;
  const all = nodesBelow(tree);
  const ends = all.filter((node) => node > 0).map((node) => endOf(tree.nodes, node));
  const listEnds = all.map((node) => {
    return node > 0 ? 0 : ~node + 2 + tree.pool.length(~node) * (rules.keyWords + 1);
  });
  const nodes = tree.nodes.slice(0, Math.max(...ends));
  const lists = tree.pool.data.slice(0, Math.max(...listEnds));
  const priorities = rules.priorities.slice(0, RULES);
  const serials = rules.serials.slice(0, RULES);
  const tables = {
    nodes,
    visits: tree.visits,
    leastOf: (root: number) => tree.leastOf(root),
    pool: { data: lists },
    rules: { priorities, serials },
  };
  return { tables, nodes, lists, words: rules.words };
}

/** Branches, and the complements of lists. */
function nodesBelow({ nodes, visits }: Pick<SearchTables, 'nodes' | 'visits'>): number[] {
  const all: number[] = [];
  const look = (node: number) => {
    if (node !== 0) all.push(node);
    if (node <= 0) return;
    for (const next of nodes.subarray(node + 1, endOf(nodes, node))) look(next);
  };
  for (const root of visits) look(nodes[root]!);
  return all;
}

/** Those of them that keys come by. */
function nodesOnTheWay({ nodes, visits }: SearchTables, { keys, keyWords }: SearchBatch): number[] {
  const met = new Set<number>();
  for (let i = 0; i < KEYS; i++) {
    for (const root of visits) {
      let node = nodes[root]!;
      for (; node > 0; node = nodes[node + 1 + cutOf(nodes[node]!, keys, i * keyWords, 1)]!) {
        met.add(node);
      }
      if (node < 0) met.add(node);
    }
  }
  return [...met];
}

/** Behind the last way of a branch. */
function endOf(nodes: Int32Array, node: number): number {
  return node + 1 + (1 << cutBits(nodes[node]!));
}

const VALUES = [
  0,
  1,
  2,
  8,
  400,
  WIDE_CUT,
  0x00ff_ffff,
  0x7fff_ffff,
  2 ** 31,
  2 ** 32 - 2,
  2 ** 32 - 1,
];

/** An input that changes some words. */
export function hostileInput(dice: World): Uint8Array {
  const changes = Array.from({ length: 1 + dice.below(4) }, () => {
    const value = dice.pick(dice.below(2 ** 32), dice.below(2000), dice.pick(...VALUES));
    return changed(dice.below(4), dice.below(2 ** 16), value);
  });
  return concat(Uint8Array.of(dice.below(2)), ...changes);
}

function changed(array: number, word: number, value: number): Uint8Array {
  const bytes = [value >>> 24, value >>> 16, value >>> 8, value];
  return Uint8Array.of(array, word >> 8, word, ...bytes);
}

export const search: Target = {
  name: 'search',
  lenMax: 50,
  seeds: () => [
    Uint8Array.of(0),
    Uint8Array.of(1),
    // To a place behind the nodes, and to one that is no node; by a word that keys do not have.
    concat(Uint8Array.of(0), changed(1, 0, WIDE_CUT)),
    concat(Uint8Array.of(0), changed(0, 1, 0x7fff_ffff)),
    concat(Uint8Array.of(1), changed(1, 0, 0x0f00_4000)),
    concat(Uint8Array.of(1), changed(0, 0, 0xffff_f800), changed(3, 15, 0x7fff_ffff)),
    concat(Uint8Array.of(1), changed(3, 1, 0xffff_ffff)),
  ],
  words: VALUES.map((value) => changed(0, 0, value).subarray(3)),
  create: () => {
    const all = searches().map(([, loops]) => new HostileTables(loops));
    return (input) => {
      for (const tables of all) tables.run(input);
    };
  },
};
