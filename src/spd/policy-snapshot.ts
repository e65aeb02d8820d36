import type { MomentReader, Moments } from '../base/moments.ts';
import type { Policy } from './policy.ts';

/** All of a policy that changes while it is in the table. */
export type PolicyTimes = Pick<Policy, 'lastUsedMs' | 'lastUsedWallMs'>;

export function timesOf({ lastUsedMs, lastUsedWallMs }: Policy): PolicyTimes {
  return { lastUsedMs, lastUsedWallMs };
}

/**
 * The policies that there were at one moment, each with the times that it had then, whatever
 * becomes of them while they are read. Nothing is copied but what changes in between. `return` must
 * be called when it is not read to its end.
 */
export class PolicySnapshot implements IterableIterator<Policy>, MomentReader<Policy, PolicyTimes> {
  readonly length: number;
  readonly #moments: Moments<Policy, PolicyTimes>;
  /** Lists that nobody changes: the table makes new ones. */
  #lists: readonly (readonly Policy[])[];
  #list = 0;
  #at = 0;
  readonly #kept = new Map<Policy, PolicyTimes>();

  constructor(lists: readonly (readonly Policy[])[], moments: Moments<Policy, PolicyTimes>) {
    this.#lists = lists;
    this.length = lists.reduce((sum, list) => sum + list.length, 0);
    this.#moments = moments;
    moments.begin(this);
  }

  /** How many times are kept now. */
  get kept(): number {
    return this.#kept.size;
  }

  /** One that was passed does not say so: its times are kept once more, and are small. */
  expects(): boolean {
    return true;
  }

  keep(policy: Policy, times: PolicyTimes): void {
    this.#kept.set(policy, times);
  }

  next(): IteratorResult<Policy, undefined> {
    while (this.#list < this.#lists.length) {
      const policy = this.#lists[this.#list]![this.#at++];
      if (policy !== undefined) return { done: false, value: this.#asItWas(policy) };
      this.#list++;
      this.#at = 0;
    }
    return this.return();
  }

  return(): IteratorResult<Policy, undefined> {
    this.#moments.end(this);
    this.#lists = [];
    this.#kept.clear();
    return { done: true, value: undefined };
  }

  [Symbol.iterator](): this {
    return this;
  }

  #asItWas(policy: Policy): Policy {
    const times = this.#kept.get(policy);
    if (times === undefined) return policy;
    this.#kept.delete(policy);
    return { ...policy, ...times };
  }
}
