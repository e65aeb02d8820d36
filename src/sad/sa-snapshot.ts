import type { MomentReader, Moments } from '../base/moments.ts';
import type { Sa } from './sa.ts';
import type { SaList } from './sa-list.ts';
import { type SaView, viewOf } from './sa-view.ts';

/** Which SAs a reader wants, as they are at its moment. */
export type SaFilter = (spec: Sa['spec']) => boolean;

/**
 * The SAs that there were at one moment, and each as it was then, whatever becomes of them while
 * they are read. Nothing is copied but what changes in between. `return` must be called when it is
 * not read to its end.
 */
export class SaSnapshot implements IterableIterator<SaView>, MomentReader<Sa, SaView> {
  /** How many there are. */
  readonly length: number;
  readonly #moments: Moments<Sa, SaView>;
  readonly #moment: number;
  readonly #closed: (snapshot: SaSnapshot) => void;
  readonly #filter: SaFilter | undefined;
  /** The newest that belongs to it. */
  readonly #lastSerial: number;
  /** The last one that was passed, and the next in the chain. */
  #passedSerial = 0;
  #next: Sa | undefined;
  readonly #kept = new Map<Sa, SaView>();
  /** Those that have left the table, and which only this still knows: they come first. */
  readonly #gone: Sa[] = [];
  #remaining: number;
  #isOpen = true;

  /** `closed` is called once, when nothing more will be read. */
  constructor(
    all: SaList,
    lastSerial: number,
    moments: Moments<Sa, SaView>,
    filter: SaFilter | undefined,
    length: number,
    closed: (snapshot: SaSnapshot) => void,
  ) {
    this.#next = all.first;
    this.#lastSerial = lastSerial;
    this.#moments = moments;
    this.#filter = filter;
    this.length = length;
    this.#remaining = length;
    this.#closed = closed;
    this.#moment = moments.begin(this);
    if (length === 0) this.return();
  }

  get remaining(): number {
    return this.#remaining;
  }

  /** How many views are kept now. */
  get kept(): number {
    return this.#kept.size;
  }

  expects({ serial, spec, state }: Sa): boolean {
    if (serial <= this.#passedSerial || serial > this.#lastSerial) return false;
    // Something may still be counted to one that has left.
    return state !== 'dead' && (this.#filter === undefined || this.#filter(spec));
  }

  keep(sa: Sa, view: SaView): void {
    this.#kept.set(sa, view);
  }

  /** An SA is about to leave the table; what it looked like has been kept, if it was expected. */
  leaves(sa: Sa): void {
    if (this.#next === sa) this.#next = sa.newerOfAll;
    if (this.#kept.has(sa)) this.#gone.push(sa);
  }

  next(): IteratorResult<SaView, undefined> {
    let view = this.#takeGone();
    while (view === undefined && this.#next !== undefined) view = this.#takeNext(this.#next);
    if (view === undefined) return this.return();
    this.#remaining--;
    if (this.#remaining === 0) this.return();
    return { done: false, value: view };
  }

  return(): IteratorResult<SaView, undefined> {
    if (this.#isOpen) {
      this.#isOpen = false;
      this.#remaining = 0;
      this.#next = undefined;
      this.#kept.clear();
      this.#gone.length = 0;
      this.#moments.end(this);
      this.#closed(this);
    }
    return { done: true, value: undefined };
  }

  [Symbol.iterator](): this {
    return this;
  }

  #takeGone(): SaView | undefined {
    const sa = this.#gone.pop();
    return sa && this.#takeKept(sa);
  }

  /** Undefined for one that does not belong here. */
  #takeNext(sa: Sa): SaView | undefined {
    this.#passedSerial = sa.serial;
    this.#next = sa.newerOfAll;
    const kept = this.#takeKept(sa);
    if (kept !== undefined) return kept;
    // One that was not wanted as it was then is not, whatever it has become.
    if (sa.moment >= this.#moment || sa.serial > this.#lastSerial) return undefined;
    return this.#filter === undefined || this.#filter(sa.spec) ? viewOf(sa) : undefined;
  }

  #takeKept(sa: Sa): SaView | undefined {
    const kept = this.#kept.get(sa);
    if (kept !== undefined) this.#kept.delete(sa);
    return kept;
  }
}
