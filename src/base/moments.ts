/** Something that changes while others read it slowly. */
export interface Momentary {
  /** The last moment whose readers have got what they need of it; `Moments` alone changes it. */
  moment: number;
}

/** Who reads a table as it was at a moment, and takes its time. */
export interface MomentReader<Item, View> {
  /** Whether it has still to come to this one. */
  expects(item: Item): boolean;
  /** The one is about to change, and looked like this at the reader's moment. */
  keep(item: Item, view: View): void;
}

/**
 * Copy on write, for readers that each see a table as it was when they began: whoever changes
 * something compares `item.moment` with `now` first, one comparison of integers, and calls
 * `changing` where they differ. That happens once for each item after a reader has begun; what was
 * there is kept then for those readers that have not come to it yet, and for nobody when there are
 * none.
 */
export class Moments<Item extends Momentary, View> {
  now = 0;
  readonly #viewOf: (item: Item) => View;
  /** Each with the moment at which it began. */
  readonly #readers = new Map<MomentReader<Item, View>, number>();

  constructor(viewOf: (item: Item) => View) {
    this.#viewOf = viewOf;
  }

  /** How many are reading. */
  get readers(): number {
    return this.#readers.size;
  }

  /**
   * From now on until `end`, the reader is told what changes. Returns its moment: what has changed
   * since has that one, or a later one.
   */
  begin(reader: MomentReader<Item, View>): number {
    this.#readers.set(reader, ++this.now);
    return this.now;
  }

  end(reader: MomentReader<Item, View>): void {
    this.#readers.delete(reader);
  }

  /** To be called before something changes for the first time since a reader began. */
  changing(item: Item): void {
    let view: View | undefined;
    for (const [reader, moment] of this.#readers) {
      if (moment <= item.moment || !reader.expects(item)) continue;
      view ??= this.#viewOf(item);
      reader.keep(item, view);
    }
    item.moment = this.now;
  }
}
