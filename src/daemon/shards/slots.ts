import type { Sa, SaSpec } from '../../sad/sa.ts';
import { Ledger } from './ledger.ts';

/**
 * The numbers by which all shards know SAs, and which of them have been told of. A number is used
 * again when every shard has forgotten the SA that had it.
 */
export class Slots {
  readonly #ledger: Ledger;
  /** There are more numbers. */
  readonly #grown: (chunk: SharedArrayBuffer) => void;
  readonly #sas: (Sa | undefined)[] = [];
  /** The spec that the other shards have. */
  readonly #specs: (SaSpec | undefined)[] = [];
  readonly #free: number[] = [];
  /** Of SAs that have gone, and that the others are being told to forget. */
  readonly #left: number[] = [];
  readonly #owned: number[];

  constructor(ledger: Ledger, shards: number, grown: (chunk: SharedArrayBuffer) => void) {
    this.#ledger = ledger;
    this.#grown = grown;
    this.#owned = new Array<number>(shards).fill(0);
  }

  /** How many SAs each shard owns. */
  get owned(): readonly number[] {
    return this.#owned;
  }

  saOf(slot: number): Sa | undefined {
    return this.#sas[slot];
  }

  /** Gives an SA its number and its owner. */
  assign(sa: Sa, owner: number): void {
    const slot = this.#free.pop() ?? this.#sas.length;
    if (slot >= this.#ledger.capacity) {
      const chunk = Ledger.chunk();
      this.#ledger.add(chunk);
      this.#grown(chunk);
    }
    sa.slot = slot;
    sa.owner = owner;
    this.#sas[slot] = sa;
    this.#specs[slot] = undefined;
    this.#owned[owner]!++;
    if (owner === 0) return;
    // Where its owner begins.
    this.#ledger.publish(sa);
    sa.keeper = this.#ledger;
  }

  isTold({ slot }: Sa): boolean {
    return this.#specs[slot] !== undefined;
  }

  toldSpec({ slot }: Sa): SaSpec | undefined {
    return this.#specs[slot];
  }

  told(sa: Sa): void {
    this.#specs[sa.slot] = sa.spec;
  }

  /** An SA has gone. */
  leave(sa: Sa): void {
    this.#sas[sa.slot] = undefined;
    this.#specs[sa.slot] = undefined;
    this.#owned[sa.owner]!--;
    this.#left.push(sa.slot);
    if (sa.keeper !== undefined) sa.keeper = this.#ledger.last(sa);
  }

  /** Every shard has forgotten those that have gone. */
  reclaim(): void {
    for (const slot of this.#left) this.#ledger.clear(slot);
    this.#free.push(...this.#left);
    this.#left.length = 0;
  }
}
