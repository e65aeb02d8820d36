import type { Family } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import { DueHeap } from '../base/due-heap.ts';
import type { Clock } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import { Moments } from '../base/moments.ts';
import type { SearchLoops } from '../base/table-search.ts';
import type { Cursor } from '../wire/cursor.ts';
import { conflictsOf } from './conflicts.ts';
import {
  type Direction,
  describeSelector,
  PORT_ANY,
  type Policy,
  type PolicySpec,
  type Selector,
} from './policy.ts';
import { type CacheCounters, type Lookup, PolicyIndex } from './policy-index.ts';
import { PolicySnapshot, type PolicyTimes, timesOf } from './policy-snapshot.ts';

/** Ids up to this one are the user's to choose (IPSEC_MANUAL_POLICYID_MAX of KAME). */
export const MANUAL_ID_MAX = 0x3fff;

const FLOWS_USUAL = 4096;

export interface SpdOptions {
  readonly clock: Clock;
  readonly policyMax?: number;
  /**
   * How many flows the cache knows, per direction and family: a power of two; 0 is no cache. 4096.
   */
  readonly flows?: number;
  /** What large tables are searched by; otherwise and in small ones it is done here. */
  readonly search?: SearchLoops | undefined;
  readonly expired?: (policy: Policy) => void;
  /**
   * Called with every policy that comes into the table, and that leaves it: who counts them does
   * no more work than there was change.
   */
  readonly added?: (policy: Policy) => void;
  readonly removed?: (policy: Policy) => void;
  /** Gets a sentence about each policy that is odd among the others: unreachable, or ambiguous. */
  readonly warn?: (sentence: string) => void;
}

/** A policy to be, for `planReplaceAll`. */
export interface Replacement {
  readonly spec: PolicySpec;
  /** 0: a new one. */
  readonly id: number;
  /** A policy of the table that stays as it is, with its times. */
  readonly keep?: Policy;
}

type Indexes = Readonly<Record<Direction, Readonly<Record<Family, PolicyIndex>>>>;

/** A policy and where it is. */
interface Entry {
  readonly policy: Policy;
  /** Among policies of one priority, the smaller is looked at earlier. */
  readonly serial: number;
  readonly slot: number;
  /** See `DueHeap`. */
  heapAt: number;
}

/**
 * The security policy database: per direction the policies in the order of priority, then of
 * arrival, with an index that finds the first for a packet at nearly the same cost for few and for
 * many. `generation` changes with every change, and lookups are right from then on.
 */
export class Spd {
  generation = 1;
  /** Of the flow cache, by family. */
  readonly cacheCounters: Readonly<Record<Family, CacheCounters>> = {
    4: { lookups: 0, misses: 0 },
    6: { lookups: 0, misses: 0 },
  };

  readonly #options: SpdOptions;
  #indexes: Indexes;
  readonly #byId = new Map<number, Entry>();
  readonly #bySelector = new Map<string, Entry>();
  /** How many requests have each reqid that is not 0. */
  readonly #reqids = new Map<number, number>();
  readonly #counts: Record<Direction, number> = { in: 0, out: 0, fwd: 0 };
  /** The lists that somebody has asked for since the last change. */
  #lists: Partial<Record<Direction, readonly Policy[]>> = {};
  readonly #due = new DueHeap<Entry>();
  readonly #moments = new Moments<Policy, PolicyTimes>(timesOf);
  #nextId = MANUAL_ID_MAX + 1;
  #serial = 0;

  constructor(options: SpdOptions) {
    this.#options = options;
    this.#indexes = this.#emptyIndexes();
  }

  get size(): number {
    return this.#byId.size;
  }

  /** How many policies of one direction there are. */
  count(direction: Direction): number {
    return this.#counts[direction];
  }

  /** Policies of one direction in the order in which they are looked at. */
  list(direction: Direction): readonly Policy[] {
    this.#lists[direction] ??= this.#sorted(direction);
    return this.#lists[direction];
  }

  get(id: number): Policy | undefined {
    return this.#byId.get(id)?.policy;
  }

  /** Whether any policy asks for SAs of that number. */
  hasReqid(reqid: number): boolean {
    return this.#reqids.has(reqid);
  }

  find(direction: Direction, selector: Selector): Policy | undefined {
    return this.#bySelector.get(selectorKey(direction, selector))?.policy;
  }

  /**
   * EEXIST when a policy with that direction and selector exists (or that id), EINVAL for addresses
   * of two families, ENOBUFS when the table is full.
   */
  add(spec: PolicySpec, id = 0): Policy {
    const existing = this.find(spec.direction, spec.selector);
    if (existing) {
      throw new KeyError(
        'EEXIST',
        `policy ${existing.id} has the selector ${describeSelector(spec.selector)}`,
      );
    }
    checkFamilies(spec.selector);
    if (id !== 0 && this.#byId.has(id)) throw new KeyError('EEXIST', `policy id ${id} is in use`);
    this.#checkRoom(1);
    const policy = this.#born(spec, id === 0 ? this.#freeId() : id);
    this.#insert(policy);
    return policy;
  }

  /**
   * Adds, or replaces the policy of that direction and selector, which keeps its id and its place
   * among equals.
   */
  update(spec: PolicySpec): Policy {
    const entry = this.#bySelector.get(selectorKey(spec.direction, spec.selector));
    if (!entry) return this.add(spec);
    const policy = this.#born(spec, entry.policy.id);
    if (spec.priority === entry.policy.priority) {
      this.#forget(entry.policy);
      this.#note({ ...entry, policy });
      this.#indexOf(policy).replace(entry.slot, policy);
      this.#changed();
    } else {
      this.remove(entry.policy);
      this.#insert(policy);
    }
    return policy;
  }

  remove(policy: Policy): void {
    const entry = this.#byId.get(policy.id);
    assert(entry?.policy === policy, 'the policy is in the table');
    this.#indexOf(policy).remove(entry.slot);
    this.#forget(policy);
    this.#changed();
  }

  flush(): number {
    const count = this.size;
    this.#clear();
    this.#changed();
    return count;
  }

  /**
   * Plans to put other policies in place of all: throws as `add` does, and changes nothing. The
   * function returned does it, in one step that cannot fail, as long as nothing else has changed:
   * no lookup ever misses a policy that was there before and is there afterwards. It returns the
   * policies of the table in the order of `wanted`, which decides among equal priorities.
   */
  planReplaceAll(wanted: readonly Replacement[]): () => Policy[] {
    const names = new Set<string>();
    const ids = new Set<number>();
    for (const { spec, id } of wanted) {
      checkFamilies(spec.selector);
      const name = `${spec.direction} ${describeSelector(spec.selector)}`;
      if (names.has(name)) throw new KeyError('EEXIST', `there are two policies for ${name}`);
      names.add(name);
      if (id !== 0 && ids.has(id)) throw new KeyError('EEXIST', `policy id ${id} is in use`);
      ids.add(id);
    }
    this.#checkRoom(wanted.length - this.size);
    return () => {
      // Ids first, so that those given out are not those that somebody keeps.
      for (const id of ids) if (id !== 0) this.#nextId = Math.max(this.#nextId, id + 1);
      const policies = wanted.map(({ spec, id, keep }) => {
        return keep ?? this.#born(spec, id === 0 ? this.#freeId() : id);
      });
      this.#clear();
      this.#insertAll(policies);
      this.#changed();
      for (const [i, policy] of policies.entries()) {
        if (wanted[i]!.keep === undefined) this.#warnAbout(this.#byId.get(policy.id)!);
      }
      return policies;
    };
  }

  /**
   * The first policy that matches a decoded packet. Traffic of the loopback network is covered only
   * by policies that name it; otherwise a policy for everything would cut a host off from itself.
   */
  lookup(direction: Direction, p: Uint8Array, cursor: Cursor): Lookup {
    // Each by its name: a name that is computed costs as much as all of the search.
    const { in: incoming, out, fwd } = this.#indexes;
    const both = direction === 'out' ? out : direction === 'in' ? incoming : fwd;
    return (cursor.family === 4 ? both[4] : both[6]).lookup(p, cursor);
  }

  /**
   * As `lookup`, for `count` packets with their cursors, which is faster for each than alone, if
   * the table is large: their answers, in their order.
   */
  lookupBatch(
    direction: Direction,
    packets: readonly { readonly bytes: Uint8Array }[],
    cursors: readonly Cursor[],
    count: number,
    answers: Lookup[],
  ): void {
    const indexes = this.#indexes[direction];
    indexes[4].lookupBatch(packets, cursors, count, answers);
    indexes[6].lookupBatch(packets, cursors, count, answers);
  }

  /** Octets of memory of what finds the policies. */
  get indexOctets(): number {
    const pairs = Object.values(this.#indexes);
    return pairs.reduce((sum, pair) => sum + pair[4].octets + pair[6].octets, 0);
  }

  /** Snapshots that are being read. */
  get readers(): number {
    return this.#moments.readers;
  }

  /**
   * All policies, in, out and fwd, each list in the order in which they are looked at, each policy
   * as it is now, to be read at leisure; `return` must be called on one that is not read to its
   * end.
   */
  snapshot(): PolicySnapshot {
    const lists = (['in', 'out', 'fwd'] as const).map((direction) => this.list(direction));
    return new PolicySnapshot(lists, this.#moments);
  }

  /** Notes that a packet followed the policy, and when, by both clocks. */
  used(policy: Policy, nowMs: number, nowWallMs: number): void {
    if (policy.moment !== this.#moments.now) this.#moments.changing(policy);
    policy.lastUsedMs = nowMs;
    policy.lastUsedWallMs = nowWallMs;
  }

  /** Ends what is due, and returns when to be called again. */
  poll(nowMs: number): number {
    while (this.#due.nextMs <= nowMs) {
      const entry = this.#due.first!;
      const { policy } = entry;
      // One that ends for want of use may have been used since.
      if (endMs(policy) > nowMs) {
        this.#schedule(entry);
        continue;
      }
      this.remove(policy);
      this.#options.expired?.(policy);
    }
    return this.#due.nextMs;
  }

  #checkRoom(more: number): void {
    const max = this.#options.policyMax ?? 1_000_000;
    if (this.size + more > max) {
      throw new KeyError('ENOBUFS', `the table of policies is full: it has room for ${max}`);
    }
  }

  #born(spec: PolicySpec, id: number): Policy {
    const { clock } = this.#options;
    const createdMs = clock.monotonicMs();
    // Field by field: a spread makes objects that are slow to read and take more room.
    return {
      direction: spec.direction,
      selector: spec.selector,
      type: spec.type,
      priority: spec.priority,
      requests: spec.requests,
      lifetimeSeconds: spec.lifetimeSeconds,
      idleSeconds: spec.idleSeconds,
      origin: spec.origin,
      id,
      createdMs,
      createdWallMs: clock.wallMs(),
      lastUsedMs: createdMs,
      lastUsedWallMs: 0,
      moment: this.#moments.now,
    };
  }

  #insert(policy: Policy): void {
    const serial = ++this.#serial;
    const slot = this.#indexOf(policy).add(policy, serial);
    const entry = { policy, serial, slot, heapAt: -1 };
    this.#note(entry);
    this.#changed();
    this.#warnAbout(entry);
  }

  #insertAll(policies: readonly Policy[]): void {
    const groups = new Map<PolicyIndex, [Policy, number][]>();
    for (const policy of policies) {
      const index = this.#indexOf(policy);
      if (!groups.has(index)) groups.set(index, []);
      groups.get(index)!.push([policy, ++this.#serial]);
    }
    for (const [index, group] of groups) {
      const slots = index.addAll(group);
      for (const [i, [policy, serial]] of group.entries()) {
        this.#note({ policy, serial, slot: slots[i]!, heapAt: -1 });
      }
    }
  }

  #note(entry: Entry): void {
    const { policy } = entry;
    this.#byId.set(policy.id, entry);
    this.#bySelector.set(selectorKey(policy.direction, policy.selector), entry);
    this.#counts[policy.direction]++;
    for (const { reqid } of policy.requests) {
      if (reqid !== 0) this.#reqids.set(reqid, (this.#reqids.get(reqid) ?? 0) + 1);
    }
    this.#schedule(entry);
    this.#options.added?.(policy);
  }

  #forget(policy: Policy): void {
    this.#due.delete(this.#byId.get(policy.id)!);
    this.#byId.delete(policy.id);
    this.#bySelector.delete(selectorKey(policy.direction, policy.selector));
    this.#counts[policy.direction]--;
    for (const { reqid } of policy.requests) {
      const others = (this.#reqids.get(reqid) ?? 1) - 1;
      if (others === 0) this.#reqids.delete(reqid);
      else this.#reqids.set(reqid, others);
    }
    this.#options.removed?.(policy);
  }

  #clear(): void {
    const { removed } = this.#options;
    if (removed) for (const { policy } of this.#byId.values()) removed(policy);
    this.#byId.clear();
    this.#bySelector.clear();
    this.#reqids.clear();
    for (const direction of ['in', 'out', 'fwd'] as const) this.#counts[direction] = 0;
    this.#due.clear();
    this.#indexes = this.#emptyIndexes();
  }

  #changed(): void {
    this.#lists = {};
    this.generation++;
  }

  #freeId(): number {
    while (this.#byId.has(this.#nextId)) this.#nextId++;
    return this.#nextId++;
  }

  #schedule(entry: Entry): void {
    this.#due.set(entry, endMs(entry.policy));
  }

  #warnAbout({ policy, slot }: Entry): void {
    const { warn } = this.#options;
    if (warn) for (const sentence of conflictsOf(this.#indexOf(policy), slot)) warn(sentence);
  }

  #indexOf({ direction, selector }: Policy): PolicyIndex {
    return this.#indexes[direction][selector.src.address.family];
  }

  #sorted(direction: Direction): Policy[] {
    const entries = [...this.#byId.values()].filter(({ policy }) => policy.direction === direction);
    entries.sort((a, b) => a.policy.priority - b.policy.priority || a.serial - b.serial);
    return entries.map(({ policy }) => policy);
  }

  #emptyIndexes(): Indexes {
    const { flows = FLOWS_USUAL, search } = this.#options;
    const both = () => ({
      4: new PolicyIndex(4, flows, this.cacheCounters[4], search),
      6: new PolicyIndex(6, flows, this.cacheCounters[6], search),
    });
    return { in: both(), out: both(), fwd: both() };
  }
}

/** Both stand in one IP header. */
function checkFamilies(selector: Selector): void {
  if (selector.src.address.family === selector.dst.address.family) return;
  const what = describeSelector(selector);
  throw new KeyError('EINVAL', `the addresses of a selector must be of one family: ${what}`);
}

/** The same text for the same selector, and only for it. */
function selectorKey(direction: Direction, selector: Selector): string {
  const { src, dst, protocol, sport, dport } = selector;
  const head = String.fromCharCode(
    protocol,
    sport & 0xffff,
    dport & 0xffff,
    src.length,
    dst.length,
  );
  const anyPorts = (sport === PORT_ANY ? 1 : 0) + (dport === PORT_ANY ? 2 : 0);
  return direction + anyPorts + head + octetsKey(src.address.bytes) + octetsKey(dst.address.bytes);
}

function octetsKey(octets: Uint8Array): string {
  let key = '';
  for (let i = 0; i < octets.length; i += 2) {
    key += String.fromCharCode((octets[i]! << 8) | octets[i + 1]!);
  }
  return key;
}

function endMs(policy: Policy): number {
  const lifetime =
    policy.lifetimeSeconds > 0 ? policy.createdMs + policy.lifetimeSeconds * 1000 : Infinity;
  const idle = policy.idleSeconds > 0 ? policy.lastUsedMs + policy.idleSeconds * 1000 : Infinity;
  return Math.min(lifetime, idle);
}
