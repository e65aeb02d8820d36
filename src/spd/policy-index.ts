import type { Family } from '../base/address.ts';
import type { SearchLoops } from '../base/table-search.ts';
import { u8 } from '../wire/bytes.ts';
import { type Cursor, isExtension } from '../wire/cursor.ts';
import { isLoopbackPacket } from '../wire/loopback.ts';
import { BatchSearch, SEARCH_MAX } from './batch-search.ts';
import { DormantRules, hiderOf, layToSleep } from './dormant-rules.ts';
import { FlowCache, UNKNOWN } from './flow-cache.ts';
import { firstPossible } from './fragment-search.ts';
import { LOOPBACK, PORTLESS } from './leaf-pool.ts';
import type { Policy } from './policy.ts';
import { RuleTable, writeKey } from './rule-table.ts';
import { RuleTree } from './rule-tree.ts';

/**
 * What `Spd.lookup` says: the policy, none, or that the answer hangs on what only the whole
 * datagram has.
 */
export type Lookup = Policy | 'none' | 'ports-unknown';

/** How often the flow cache was asked, and how often it did not know. */
export interface CacheCounters {
  lookups: number;
  misses: number;
}

const NONE = -1;

/**
 * How many rules are looked at for the next tree with every change, and with every packet: a tenth
 * of a millisecond, and some microseconds.
 */
const WORK = { change: 256, packet: 64 } as const;
/** After so many lookups, and a quarter as many as there are policies, a better tree pays. */
const ASKED_MIN = 1024;

/** The policies of one direction and one family, ready to be asked about packets. */
export class PolicyIndex {
  readonly rules: RuleTable;
  #tree: RuleTree;
  /** A better one that is being made, a bit with every change and lookup; then it takes over. */
  #next: RuleTree | undefined;
  /** Rules that are in no tree, or will be in none soon. */
  readonly #dormant = new DormantRules();
  #asked = 0;
  readonly #counters: CacheCounters;
  readonly #cache: FlowCache | undefined;
  readonly #search: BatchSearch;
  // Of the packets that are looked up together: numbers among all packets, and places in the cache.
  readonly #numbers = new Int32Array(SEARCH_MAX);
  readonly #places = new Int32Array(SEARCH_MAX);
  /** Of a packet that is looked up alone, and which bits of it are known. */
  readonly #key: Int32Array;
  readonly #known: Int32Array;

  /**
   * `flows`: places in the flow cache, a power of two; 0 is no cache. `loops`: see `BatchSearch`.
   */
  constructor(family: Family, flows: number, counters: CacheCounters, loops?: SearchLoops) {
    this.#counters = counters;
    this.rules = new RuleTable(family);
    this.#tree = new RuleTree(this.rules);
    const { keyWords } = this.rules;
    if (flows > 0) this.#cache = new FlowCache(keyWords, flows);
    this.#search = new BatchSearch(keyWords, loops);
    this.#key = new Int32Array(keyWords);
    this.#known = new Int32Array(keyWords);
  }

  get tree(): RuleTree {
    return this.#tree;
  }

  /** Octets of memory, but for the policies themselves and the flow cache. */
  get octets(): number {
    const trees = this.#tree.octets + (this.#next?.octets ?? 0);
    return this.rules.octets + trees + this.#dormant.octets;
  }

  /** The slot by which the policy is known here until it is removed. */
  add(policy: Policy, serial: number): number {
    const slot = this.rules.add(policy, serial);
    this.#place(slot);
    this.#changed();
    return slot;
  }

  remove(slot: number): void {
    if (this.#dormant.has(slot)) this.#dormant.delete(slot);
    if (this.#tree.has(slot)) this.#tree.remove(slot);
    if (this.#next?.has(slot)) this.#next.remove(slot);
    this.rules.remove(slot);
    for (const woken of this.#dormant.wake(slot)) this.#place(woken);
    this.#changed();
  }

  /** Puts a policy of the same selector and order in place of another. */
  replace(slot: number, policy: Policy): void {
    this.rules.policies[slot] = policy;
  }

  /** Takes in many at once, which makes a better tree than one after the other. */
  addAll(policies: readonly (readonly [Policy, number])[]): number[] {
    const slots = policies.map(([policy, serial]) => this.rules.add(policy, serial));
    this.#begin('little');
    this.#work(Number.POSITIVE_INFINITY);
    this.#cache?.clear();
    return slots;
  }

  lookup(p: Uint8Array, cursor: Cursor): Lookup {
    this.#asking(1);
    if (cursor.isFragment) return this.#lookupFragment(p, cursor);
    const key = this.#key;
    writeKey(key, 0, p, cursor);
    const flags = flagsOf(p, cursor);
    const cache = this.#cache;
    if (cache === undefined || !cursor.portsKnown) {
      return this.#policyAt(this.#tree.first(key, 0, flags));
    }
    this.#counters.lookups++;
    const place = cache.placeOf(key, 0);
    let slot = cache.get(place, key, 0);
    if (slot === UNKNOWN) {
      this.#counters.misses++;
      slot = this.#tree.first(key, 0, flags);
      cache.set(place, key, 0, slot);
    }
    return this.#policyAt(slot);
  }

  /** As `Spd.lookupBatch`, for those of the packets that are of this family. */
  lookupBatch(
    packets: readonly { readonly bytes: Uint8Array }[],
    cursors: readonly Cursor[],
    count: number,
    answers: Lookup[],
  ): void {
    this.#asking(count);
    const { family } = this.rules;
    let waiting = 0;
    for (let i = 0; i < count; i++) {
      const cursor = cursors[i]!;
      if (cursor.family !== family) continue;
      if (waiting === SEARCH_MAX) {
        this.#answer(waiting, answers);
        waiting = 0;
      }
      const p = packets[i]!.bytes;
      if (cursor.isFragment) answers[i] = this.#lookupFragment(p, cursor);
      else if (!this.#isKnown(p, cursor, waiting, i, answers)) waiting++;
    }
    if (waiting > 0) this.#answer(waiting, answers);
  }

  /** Whether the cache knew the answer; otherwise the packet waits at `at`. */
  #isKnown(p: Uint8Array, cursor: Cursor, at: number, i: number, answers: Lookup[]): boolean {
    const k = at * this.rules.keyWords;
    const { keys, flags } = this.#search;
    writeKey(keys, k, p, cursor);
    flags[at] = flagsOf(p, cursor);
    this.#numbers[at] = i;
    this.#places[at] = NONE;
    const cache = this.#cache;
    if (cache === undefined || !cursor.portsKnown) return false;
    this.#counters.lookups++;
    const place = cache.placeOf(keys, k);
    const slot = cache.get(place, keys, k);
    if (slot !== UNKNOWN) {
      answers[i] = this.#policyAt(slot);
      return true;
    }
    this.#counters.misses++;
    this.#places[at] = place;
    return false;
  }

  #answer(count: number, answers: Lookup[]): void {
    const { keys, found } = this.#search;
    this.#search.run(this.#tree, count);
    for (let i = 0; i < count; i++) {
      const slot = found[i]!;
      answers[this.#numbers[i]!] = this.#policyAt(slot);
      const place = this.#places[i]!;
      if (place !== NONE) this.#cache!.set(place, keys, i * this.rules.keyWords, slot);
    }
  }

  #changed(): void {
    this.#cache?.clear();
    if (this.#next !== undefined) this.#work(WORK.change);
    else if (this.#tree.isOutgrown) this.#begin('little');
  }

  /** A table that is asked often is worth a better tree than changes alone would be. */
  #asking(count: number): void {
    if (this.#next !== undefined) return this.#work(WORK.packet * count);
    this.#asked += count;
    if (this.#asked > ASKED_MIN + this.rules.size / 4 && this.#tree.isAged) this.#begin('much');
  }

  #begin(effort: 'little' | 'much'): void {
    const slots = this.rules.slots().filter((slot) => !this.#dormant.has(slot));
    const awake = layToSleep(this.rules, slots, this.#dormant);
    this.#next = new RuleTree(this.rules, awake, effort);
    this.#asked = 0;
  }

  /** Into the trees, or to sleep. */
  #place(slot: number): void {
    const hider = hiderOf(this.rules, this.#tree, slot, this.#dormant);
    if (hider !== NONE) return this.#dormant.add(slot, hider);
    if (!this.#tree.has(slot)) this.#tree.add(slot);
    if (this.#next !== undefined && !this.#next.has(slot)) this.#next.add(slot);
  }

  #work(limit: number): void {
    if (this.#next === undefined || !this.#next.work(limit)) return;
    this.#tree = this.#next;
    this.#next = undefined;
  }

  /**
   * All fragments of a datagram must get the same answer, so the ports of the first count as
   * unknown too.
   */
  #lookupFragment(p: Uint8Array, cursor: Cursor): Lookup {
    writeKey(this.#key, 0, p, cursor);
    const known = this.#known.fill(-1);
    const portsAt = known.length - 2;
    known[portsAt] = 0;
    if (hidesProtocol(p, cursor)) known[portsAt + 1] = 0;
    const slot = firstPossible(
      this.rules,
      this.#tree,
      this.#key,
      known,
      isLoopbackPacket(p, cursor),
    );
    if (slot === NONE) return 'none';
    const masksAt = slot * 2 * known.length + 1;
    for (let word = portsAt; word < known.length; word++) {
      if ((this.rules.words[masksAt + 2 * word]! & ~known[word]!) !== 0) return 'ports-unknown';
    }
    return this.#policyAt(slot);
  }

  #policyAt(slot: number): Lookup {
    return slot === NONE ? 'none' : this.rules.policies[slot]!;
  }
}

function flagsOf(p: Uint8Array, cursor: Cursor): number {
  return (isLoopbackPacket(p, cursor) ? LOOPBACK : 0) | (cursor.portsKnown ? 0 : PORTLESS);
}

/**
 * IPv6: the fragment header names an extension header, so that only the first fragment knows the
 * upper protocol.
 */
export function hidesProtocol(p: Uint8Array, cursor: Cursor): boolean {
  return cursor.family === 6 && cursor.isFragment && isExtension(u8(p, cursor.fragmentHeaderAt));
}
