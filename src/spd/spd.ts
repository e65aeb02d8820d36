import { ADDRESS_LEN, type Address, isLoopback } from '../base/address.ts';
import type { Clock } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import type { Cursor } from '../wire/cursor.ts';
import {
  type Direction,
  describeSelector,
  PORT_ANY,
  type Policy,
  type PolicySpec,
  PROTOCOL_ANY,
  type Selector,
  sameSelector,
} from './policy.ts';

/** Ids up to this one are the user's to choose (IPSEC_MANUAL_POLICYID_MAX of KAME). */
const MANUAL_ID_MAX = 0x3fff;

export interface SpdOptions {
  readonly clock: Clock;
  readonly policyMax?: number;
  readonly expired?: (policy: Policy) => void;
}

/** What `Spd.lookup` says: the policy, none, or that the answer hangs on ports that a fragment does not have. */
export type Lookup = Policy | 'none' | 'ports-unknown';

/**
 * The security policy database: per direction a list in the order of priority, then of arrival. `generation` changes with
 * every change.
 */
export class Spd {
  generation = 1;

  readonly #options: SpdOptions;
  readonly #lists: Record<Direction, Entry[]> = { in: [], out: [], fwd: [] };
  readonly #byId = new Map<number, Policy>();
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
    return this.#lists[direction].find((entry) => sameSelector(entry.policy.selector, selector))
      ?.policy;
  }

  /** EEXIST when a policy with that direction and selector exists (or that id), ENOBUFS when the table is full. */
  add(spec: PolicySpec, id = 0): Policy {
    const existing = this.find(spec.direction, spec.selector);
    if (existing) {
      throw new KeyError(
        'EEXIST',
        `policy ${existing.id} has the selector ${describeSelector(spec.selector)}`,
      );
    }
    if (id !== 0 && this.#byId.has(id)) throw new KeyError('EEXIST', `policy id ${id} is in use`);
    if (this.size >= (this.#options.policyMax ?? 1_000_000)) {
      throw new KeyError('ENOBUFS', `the table of ${this.size} policies is full`);
    }
    const policy = this.#born(spec, id === 0 ? this.#freeId() : id);
    this.#insert(policy);
    return policy;
  }

  /** Adds, or replaces the policy of that direction and selector, which keeps its id and its place among equals. */
  update(spec: PolicySpec): Policy {
    const existing = this.find(spec.direction, spec.selector);
    if (!existing) return this.add(spec);
    const policy = this.#born(spec, existing.id);
    if (spec.priority === existing.priority) {
      const list = this.#lists[spec.direction];
      list[list.findIndex((entry) => entry.policy === existing)] = new Entry(policy);
      this.#byId.set(policy.id, policy);
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
    list.splice(
      list.findIndex((entry) => entry.policy === policy),
      1,
    );
    this.#byId.delete(policy.id);
    this.generation++;
  }

  flush(): number {
    const count = this.size;
    for (const list of Object.values(this.#lists)) list.length = 0;
    this.#byId.clear();
    this.generation++;
    return count;
  }

  /**
   * The first policy that matches a decoded packet. Traffic of the loopback network is covered only by policies that name
   * it; otherwise a policy for everything would cut a host off from itself.
   */
  lookup(direction: Direction, p: Uint8Array, cursor: Cursor): Lookup {
    const list = this.#lists[direction];
    const loopback = isLoopbackPacket(p, cursor);
    for (let i = 0; i < list.length; i++) {
      const entry = list[i]!;
      if (loopback && !entry.namesLoopback) continue;
      if (!entry.matchesAddresses(p, cursor)) continue;
      const { protocol, sport, dport } = entry.policy.selector;
      if (protocol !== PROTOCOL_ANY && protocol !== cursor.protocol) continue;
      if (sport === PORT_ANY && dport === PORT_ANY) return entry.policy;
      if (!cursor.portsKnown) {
        // A protocol without ports cannot match a policy with ports; a fragment might.
        if (cursor.isFragment) return 'ports-unknown';
        continue;
      }
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
      if (nowMs >= endMs(policy)) {
        this.remove(policy);
        this.#options.expired?.(policy);
      } else {
        this.#schedule(policy);
      }
    }
    return this.#nextDueMs;
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
    this.#byId.set(policy.id, policy);
    this.#schedule(policy);
    this.generation++;
  }

  #freeId(): number {
    while (this.#byId.has(this.#nextId)) this.#nextId++;
    return this.#nextId++;
  }

  #schedule(policy: Policy): void {
    this.#nextDueMs = Math.min(this.#nextDueMs, endMs(policy));
  }
}

/** A policy with its prefixes as words and masks, so that a comparison is a few integer operations. */
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

function endMs(policy: Policy): number {
  const lifetime =
    policy.lifetimeSeconds > 0 ? policy.createdMs + policy.lifetimeSeconds * 1000 : Infinity;
  const idle = policy.idleSeconds > 0 ? policy.lastUsedMs + policy.idleSeconds * 1000 : Infinity;
  return Math.min(lifetime, idle);
}
