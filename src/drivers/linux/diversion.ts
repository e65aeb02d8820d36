import { type Address, type Family, maskPrefix, type Prefix, prefix } from '../../base/address.ts';

/**
 * Which packets of the host go through the engine instead of straight to and from the wire.
 *
 * Each destination and each pair is counted, since many policies ask for the same; and what has
 * changed is noted, so that the machine can be brought in line at the cost of the change and not of
 * the table.
 */
export class DiversionTable implements InDiversions {
  readonly #out = new Map<string, OutDiversion>();
  readonly #sources = new Map<string, number>();
  readonly #in = new Map<string, CountedPair>();
  readonly #counts: Record<Family, number> = { 4: 0, 6: 0 };
  #changed = new Set<string>();
  #hasInChanged = false;
  #all = false;

  /** Packets to a destination are routed into the TUN; some policy covers those from `source`. */
  addOut(destination: Prefix, source: Prefix): void {
    const key = prefixKey(destination);
    let diversion = this.#out.get(key);
    if (!diversion) {
      diversion = new OutDiversion(destination, key, this.#sources);
      this.#out.set(key, diversion);
      this.#counts[destination.address.family]++;
    }
    if (diversion.add(source)) this.#changed.add(key);
  }

  /** Takes back what `addOut` has said once. */
  removeOut(destination: Prefix, source: Prefix): void {
    const key = prefixKey(destination);
    const diversion = this.#out.get(key);
    if (!diversion?.remove(source)) return;
    this.#changed.add(key);
    if (!diversion.isEmpty) return;
    this.#out.delete(key);
    this.#counts[destination.address.family]--;
  }

  /** Clear packets of the wire between these are redirected to the inspection TUN. */
  addIn(source: Prefix, destination: Prefix): void {
    const key = prefixKey(source) + prefixKey(destination);
    const pair = this.#in.get(key);
    if (pair) {
      pair.count++;
      return;
    }
    this.#in.set(key, { source, destination, count: 1 });
    this.#hasInChanged = true;
  }

  removeIn(source: Prefix, destination: Prefix): void {
    const key = prefixKey(source) + prefixKey(destination);
    const pair = this.#in.get(key);
    if (!pair || --pair.count > 0) return;
    this.#in.delete(key);
    this.#hasInChanged = true;
  }

  /** Everything, in both directions: for a host whose default is to discard. */
  get all(): boolean {
    return this.#all;
  }

  set all(on: boolean) {
    if (on === this.#all) return;
    this.#all = on;
    this.#hasInChanged = true;
    for (const everything of [EVERYTHING[4], EVERYTHING[6]]) {
      if (on) this.addOut(everything, everything);
      else this.removeOut(everything, everything);
    }
  }

  /** What is diverted on its way out, by `prefixKey` of the destination. */
  get out(): ReadonlyMap<string, OutDiversion> {
    return this.#out;
  }

  get in(): Iterable<InDiversion> {
    return { [Symbol.iterator]: () => this.#in.values() };
  }

  /** How many destinations of a family there are. */
  outCount(family: Family): number {
    return this.#counts[family];
  }

  /** Whether there is something that `takeChanges` has not told yet. */
  get hasChanged(): boolean {
    return this.#hasInChanged || this.#changed.size > 0;
  }

  /**
   * What has changed since the last call: keys of destinations that came, went, or got other
   * sources; and whether `in` or `all` did.
   */
  takeChanges(): { readonly out: ReadonlySet<string>; readonly in: boolean } {
    const changes = { out: this.#changed, in: this.#hasInChanged };
    this.#changed = new Set();
    this.#hasInChanged = false;
    return changes;
  }
}

/** What a filter for clear packets is made from. */
export interface InDiversions {
  readonly in: Iterable<InDiversion>;
  readonly all: boolean;
}

export interface InDiversion {
  readonly source: Prefix;
  readonly destination: Prefix;
}

interface CountedPair extends InDiversion {
  count: number;
}

/** One destination, and the sources that policies for it name. */
export class OutDiversion {
  readonly destination: Prefix;
  readonly #key: string;
  /** Of all destinations: how often a source is named for one, by both keys. */
  readonly #named: Map<string, number>;
  /** The lengths of the sources, and how many different sources have each. */
  readonly #lengths: number[] = [];
  readonly #counts: number[] = [];

  constructor(destination: Prefix, key: string, named: Map<string, number>) {
    this.destination = destination;
    this.#key = key;
    this.#named = named;
  }

  get isEmpty(): boolean {
    return this.#lengths.length === 0;
  }

  /** Returns whether the source was not named before. */
  add(source: Prefix): boolean {
    const key = this.#key + prefixKey(source);
    const count = this.#named.get(key) ?? 0;
    this.#named.set(key, count + 1);
    if (count > 0) return false;
    const i = this.#lengths.indexOf(source.length);
    if (i >= 0) this.#counts[i]!++;
    else this.#counts[this.#lengths.push(source.length) - 1] = 1;
    return true;
  }

  /** Returns whether the source is not named any more. */
  remove(source: Prefix): boolean {
    const key = this.#key + prefixKey(source);
    const count = this.#named.get(key) ?? 0;
    if (count > 1) this.#named.set(key, count - 1);
    if (count !== 1) return false;
    this.#named.delete(key);
    const i = this.#lengths.indexOf(source.length);
    if (--this.#counts[i]! === 0) {
      this.#lengths.splice(i, 1);
      this.#counts.splice(i, 1);
    }
    return true;
  }

  /** Whether a policy for this destination covers packets from the address. */
  covers(source: Address): boolean {
    return this.#lengths.some((length) =>
      this.#named.has(this.#key + prefixKey(maskPrefix(source, length))),
    );
  }
}

export const EVERYTHING: Readonly<Record<Family, Prefix>> = {
  4: prefix('0.0.0.0/0'),
  6: prefix('::/0'),
};

/** The same text for the same prefix, and only for it; both families have their own lengths. */
export function prefixKey({ address, length }: Prefix): string {
  const { family, bytes } = address;
  let key = String.fromCharCode((family << 8) | length);
  for (let i = 0; i < bytes.length; i += 2) {
    key += String.fromCharCode((bytes[i]! << 8) | bytes[i + 1]!);
  }
  return key;
}
