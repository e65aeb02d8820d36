import { ADDRESS_LEN, type Address, isLoopback } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import type { Clock } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import { u8 } from '../wire/bytes.ts';
import { type Cursor, isExtension } from '../wire/cursor.ts';
import {
  type Direction,
  describeSelector,
  PORT_ANY,
  type Policy,
  type PolicySpec,
  PROTOCOL_ANY,
  type Selector,
} from './policy.ts';

/** Ids up to this one are the user's to choose (IPSEC_MANUAL_POLICYID_MAX of KAME). */
export const MANUAL_ID_MAX = 0x3fff;

export interface SpdOptions {
  readonly clock: Clock;
  readonly policyMax?: number;
  readonly expired?: (policy: Policy) => void;
}

/** A policy to be, for `planReplaceAll`. */
export interface Replacement {
  readonly spec: PolicySpec;
  /** 0: a new one. */
  readonly id: number;
  /** A policy of the table that stays as it is, with its times. */
  readonly keep?: Policy;
}

/**
 * What `Spd.lookup` says: the policy, none, or that the answer hangs on what only the whole
 * datagram has.
 */
export type Lookup = Policy | 'none' | 'ports-unknown';

/**
 * The security policy database: per direction a list in the order of priority, then of arrival.
 * `generation` changes with every change.
 */
export class Spd {
  generation = 1;

  readonly #options: SpdOptions;
  #lists: Record<Direction, Entry[]> = { in: [], out: [], fwd: [] };
  readonly #byId = new Map<number, Policy>();
  readonly #bySelector = new Map<string, Policy>();
  #nextId = MANUAL_ID_MAX + 1;
  #nextDueMs = Infinity;

  constructor(options: SpdOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#byId.size;
  }

  /** Policies of one direction in the order in which they are looked at. */
  list(direction: Direction): readonly Policy[] {
    return this.#lists[direction].map((entry) => entry.policy);
  }

  get(id: number): Policy | undefined {
    return this.#byId.get(id);
  }

  find(direction: Direction, selector: Selector): Policy | undefined {
    return this.#bySelector.get(selectorKey(direction, selector));
  }

  /**
   * EEXIST when a policy with that direction and selector exists (or that id), ENOBUFS when the
   * table is full.
   */
  add(spec: PolicySpec, id = 0): Policy {
    const existing = this.find(spec.direction, spec.selector);
    if (existing) {
      throw new KeyError(
        'EEXIST',
        `policy ${existing.id} has the selector ${describeSelector(spec.selector)}`,
      );
    }
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
    const existing = this.find(spec.direction, spec.selector);
    if (!existing) return this.add(spec);
    const policy = this.#born(spec, existing.id);
    if (spec.priority === existing.priority) {
      const list = this.#lists[spec.direction];
      list[list.findIndex((entry) => entry.policy === existing)] = new Entry(policy);
      this.#note(policy);
      this.generation++;
    } else {
      this.remove(existing);
      this.#insert(policy);
    }
    this.#schedule(policy);
    return policy;
  }

  remove(policy: Policy): void {
    const list = this.#lists[policy.direction];
    const at = list.findIndex((entry) => entry.policy === policy);
    assert(at >= 0, 'the policy is in the table');
    list.splice(at, 1);
    this.#byId.delete(policy.id);
    this.#bySelector.delete(selectorKey(policy.direction, policy.selector));
    this.generation++;
  }

  flush(): number {
    const count = this.size;
    for (const list of Object.values(this.#lists)) list.length = 0;
    this.#byId.clear();
    this.#bySelector.clear();
    this.generation++;
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
      const lists: Record<Direction, Entry[]> = { in: [], out: [], fwd: [] };
      this.#byId.clear();
      this.#bySelector.clear();
      for (const policy of policies) {
        lists[policy.direction].push(new Entry(policy));
        this.#note(policy);
        this.#schedule(policy);
      }
      for (const list of Object.values(lists)) {
        list.sort((a, b) => a.policy.priority - b.policy.priority);
      }
      this.#lists = lists;
      this.generation++;
      return policies;
    };
  }

  /**
   * The first policy that matches a decoded packet. Traffic of the loopback network is covered only
   * by policies that name it; otherwise a policy for everything would cut a host off from itself.
   */
  lookup(direction: Direction, p: Uint8Array, cursor: Cursor): Lookup {
    const list = this.#lists[direction];
    const loopback = isLoopbackPacket(p, cursor);
    const hidden = hidesProtocol(p, cursor);
    for (let i = 0; i < list.length; i++) {
      const entry = list[i]!;
      if (loopback && !entry.namesLoopback) continue;
      if (!entry.matchesAddresses(p, cursor)) continue;
      const { protocol, sport, dport } = entry.policy.selector;
      if (protocol !== PROTOCOL_ANY) {
        if (hidden) return 'ports-unknown';
        if (protocol !== cursor.protocol) continue;
      }
      if (sport === PORT_ANY && dport === PORT_ANY) return entry.policy;
      // Also for the first fragment, which has ports: all fragments must get the same answer.
      if (cursor.isFragment) return 'ports-unknown';
      if (!cursor.portsKnown) continue;
      if (sport !== PORT_ANY && sport !== cursor.sport) continue;
      if (dport !== PORT_ANY && dport !== cursor.dport) continue;
      return entry.policy;
    }
    return 'none';
  }

  /** Notes that a packet followed the policy. */
  used(policy: Policy): void {
    policy.lastUsedMs = this.#options.clock.monotonicMs();
    policy.lastUsedWallMs = this.#options.clock.wallMs();
  }

  /** Ends what is due, and returns when to be called again. */
  poll(nowMs: number): number {
    if (nowMs < this.#nextDueMs) return this.#nextDueMs;
    this.#nextDueMs = Infinity;
    for (const policy of [...this.#byId.values()]) {
      // Whoever is told of a policy that expired may have removed this one meanwhile.
      if (this.#byId.get(policy.id) !== policy) continue;
      if (nowMs >= endMs(policy)) {
        this.remove(policy);
        this.#options.expired?.(policy);
      } else {
        this.#schedule(policy);
      }
    }
    return this.#nextDueMs;
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
    const createdWallMs = clock.wallMs();
    return { ...spec, id, createdMs, createdWallMs, lastUsedMs: createdMs, lastUsedWallMs: 0 };
  }

  #insert(policy: Policy): void {
    const list = this.#lists[policy.direction];
    let at = list.length;
    while (at > 0 && list[at - 1]!.policy.priority > policy.priority) at--;
    list.splice(at, 0, new Entry(policy));
    this.#note(policy);
    this.#schedule(policy);
    this.generation++;
  }

  #note(policy: Policy): void {
    this.#byId.set(policy.id, policy);
    this.#bySelector.set(selectorKey(policy.direction, policy.selector), policy);
  }

  #freeId(): number {
    while (this.#byId.has(this.#nextId)) this.#nextId++;
    return this.#nextId++;
  }

  #schedule(policy: Policy): void {
    this.#nextDueMs = Math.min(this.#nextDueMs, endMs(policy));
  }
}

/**
 * A policy with its prefixes as words and masks, so that a comparison is a few integer operations.
 */
class Entry {
  readonly policy: Policy;
  readonly namesLoopback: boolean;
  readonly #addressLen: number;
  readonly #words: Uint8Array;
  readonly #masks: Uint8Array;

  constructor(policy: Policy) {
    const { src, dst } = policy.selector;
    this.policy = policy;
    this.namesLoopback =
      namesLoopback(src.address, src.length) || namesLoopback(dst.address, dst.length);
    const len = ADDRESS_LEN[src.address.family];
    this.#addressLen = len;
    this.#words = Uint8Array.of(...src.address.bytes, ...dst.address.bytes);
    this.#masks = Uint8Array.from({ length: 2 * len }, (_, i) => {
      const bits = i < len ? src.length - 8 * i : dst.length - 8 * (i - len);
      return (0xff00 >> Math.min(8, Math.max(0, bits))) & 0xff;
    });
  }

  matchesAddresses(p: Uint8Array, cursor: Cursor): boolean {
    const len = this.#addressLen;
    if (len !== (cursor.family === 4 ? 4 : 16)) return false;
    const { srcAt, dstAt } = cursor;
    for (let i = 0; i < len; i++) {
      if (((p[srcAt + i]! ^ this.#words[i]!) & this.#masks[i]!) !== 0) return false;
      if (((p[dstAt + i]! ^ this.#words[len + i]!) & this.#masks[len + i]!) !== 0) return false;
    }
    return true;
  }
}

/** The same text for the same selector, and only for it. */
function selectorKey(direction: Direction, selector: Selector): string {
  const { src, dst, protocol, sport, dport } = selector;
  const numbers = [protocol, sport, dport, src.length, dst.length];
  return `${direction} ${numbers.join(' ')} ${src.address.bytes} ${dst.address.bytes}`;
}

function namesLoopback(address: Address, length: number): boolean {
  return length >= 8 && isLoopback(address);
}

function isLoopbackPacket(p: Uint8Array, cursor: Cursor): boolean {
  if (cursor.family === 4) return p[cursor.srcAt] === 127 || p[cursor.dstAt] === 127;
  return isOne(p, cursor.srcAt) || isOne(p, cursor.dstAt);
}

function isOne(p: Uint8Array, at: number): boolean {
  if (p[at + 15] !== 1) return false;
  for (let i = 0; i < 15; i++) if (p[at + i] !== 0) return false;
  return true;
}

/**
 * IPv6: the fragment header names an extension header, so that only the first fragment knows the
 * upper protocol.
 */
function hidesProtocol(p: Uint8Array, cursor: Cursor): boolean {
  return cursor.family === 6 && cursor.isFragment && isExtension(u8(p, cursor.fragmentHeaderAt));
}

function endMs(policy: Policy): number {
  const lifetime =
    policy.lifetimeSeconds > 0 ? policy.createdMs + policy.lifetimeSeconds * 1000 : Infinity;
  const idle = policy.idleSeconds > 0 ? policy.lastUsedMs + policy.idleSeconds * 1000 : Infinity;
  return Math.min(lifetime, idle);
}
