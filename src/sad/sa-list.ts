import type { Sa, SaProtocol } from './sa.ts';

/**
 * All SAs in the order of their arrival, as a chain through the SAs themselves: a reader can stand
 * in it for as long as it likes, nothing has to be copied for it, and no table is ever made anew
 * because it has grown.
 */
export class SaList {
  readonly #counts: Record<SaProtocol, number> = { esp: 0, ah: 0 };
  #first: Sa | undefined;
  #last: Sa | undefined;

  get first(): Sa | undefined {
    return this.#first;
  }

  get size(): number {
    return this.#counts.esp + this.#counts.ah;
  }

  count(protocol: SaProtocol): number {
    return this.#counts[protocol];
  }

  /** Its serial is greater than all in the list. */
  add(sa: Sa): void {
    sa.olderOfAll = this.#last;
    if (this.#last === undefined) this.#first = sa;
    else this.#last.newerOfAll = sa;
    this.#last = sa;
    this.#counts[sa.spec.protocol]++;
  }

  delete(sa: Sa): void {
    const { olderOfAll, newerOfAll } = sa;
    if (olderOfAll === undefined) this.#first = newerOfAll;
    else olderOfAll.newerOfAll = newerOfAll;
    if (newerOfAll === undefined) this.#last = olderOfAll;
    else newerOfAll.olderOfAll = olderOfAll;
    // A dead SA that somebody still knows must not keep those alive that came after it.
    sa.olderOfAll = undefined;
    sa.newerOfAll = undefined;
    this.#counts[sa.spec.protocol]--;
  }

  /** Whoever gets an SA may remove it, and others, before asking for the next. */
  *all(): IterableIterator<Sa> {
    for (let sa = this.#first; sa !== undefined; ) {
      const next: Sa | undefined = sa.newerOfAll;
      yield sa;
      if (this.#has(sa)) sa = sa.newerOfAll;
      else if (next === undefined || this.#has(next)) sa = next;
      else sa = this.#firstAfter(sa.serial);
    }
  }

  #has(sa: Sa): boolean {
    return sa.newerOfAll !== undefined || sa === this.#last;
  }

  #firstAfter(serial: number): Sa | undefined {
    let sa = this.#first;
    while (sa !== undefined && sa.serial <= serial) sa = sa.newerOfAll;
    return sa;
  }
}
