import type { Family } from '../base/address.ts';
import { u8 } from '../wire/bytes.ts';
import { type Cursor, isExtension } from '../wire/cursor.ts';
import { isLoopbackPacket } from '../wire/loopback.ts';
import { FlowCache, UNKNOWN } from './flow-cache.ts';
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

/** The policies of one direction and one family, ready to be asked about packets. */
export class PolicyIndex {
  readonly rules: RuleTable;
  readonly tree: RuleTree;
  readonly #counters: CacheCounters;
  readonly #cache: FlowCache | undefined;
  readonly #key: Int32Array;
  readonly #known: Int32Array;

  /** `flows`: places in the flow cache, a power of two; 0 is no cache. */
  constructor(family: Family, flows: number, counters: CacheCounters) {
    this.#counters = counters;
    this.rules = new RuleTable(family);
    this.tree = new RuleTree(this.rules);
    const { keyWords } = this.rules;
    if (flows > 0) this.#cache = new FlowCache(keyWords, flows);
    this.#key = new Int32Array(keyWords);
    this.#known = new Int32Array(keyWords);
  }

  /** The slot by which the policy is known here until it is removed. */
  add(policy: Policy, serial: number): number {
    const slot = this.rules.add(policy, serial);
    this.tree.add(slot);
    this.#cache?.clear();
    return slot;
  }

  remove(slot: number): void {
    this.tree.remove(slot);
    this.rules.remove(slot);
    this.#cache?.clear();
  }

  /** Puts a policy of the same selector and order in place of another. */
  replace(slot: number, policy: Policy): void {
    this.rules.policies[slot] = policy;
  }

  /** Takes in many at once, which makes a better tree than one after the other. */
  addAll(policies: readonly (readonly [Policy, number])[]): number[] {
    const slots = policies.map(([policy, serial]) => this.rules.add(policy, serial));
    this.tree.rebuild();
    this.#cache?.clear();
    return slots;
  }

  lookup(p: Uint8Array, cursor: Cursor): Lookup {
    const key = this.#key;
    writeKey(key, p, cursor);
    if (cursor.isFragment) return this.#lookupFragment(p, cursor);
    if (!cursor.portsKnown) {
      return this.#policyAt(this.tree.first(key, isLoopbackPacket(p, cursor), true));
    }
    const cache = this.#cache;
    if (cache === undefined) {
      return this.#policyAt(this.tree.first(key, isLoopbackPacket(p, cursor), false));
    }
    this.#counters.lookups++;
    let slot = cache.get(key);
    if (slot === UNKNOWN) {
      this.#counters.misses++;
      slot = this.tree.first(key, isLoopbackPacket(p, cursor), false);
      cache.set(key, slot);
    }
    return this.#policyAt(slot);
  }

  /**
   * All fragments of a datagram must get the same answer, so the ports of the first count as
   * unknown too.
   */
  #lookupFragment(p: Uint8Array, cursor: Cursor): Lookup {
    const known = this.#known.fill(-1);
    const portsAt = known.length - 2;
    known[portsAt] = 0;
    if (hidesProtocol(p, cursor)) known[portsAt + 1] = 0;
    const slot = this.tree.firstPossible(this.#key, known, isLoopbackPacket(p, cursor));
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

/**
 * IPv6: the fragment header names an extension header, so that only the first fragment knows the
 * upper protocol.
 */
export function hidesProtocol(p: Uint8Array, cursor: Cursor): boolean {
  return cursor.family === 6 && cursor.isFragment && isExtension(u8(p, cursor.fragmentHeaderAt));
}
