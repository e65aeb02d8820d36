import type { Address } from '../base/address.ts';
import type { Lifetime } from './lifetime.ts';
import type { Slab } from './slab.ts';

/** Recent values are enough: SAs that have something in common are made one after the other. */
const RECENT_MAX = 256;

/**
 * Gives equal values of many SAs one object: a gateway is one end of all of its SAs, and they live
 * equally long.
 */
export class SharedValues {
  readonly #slab: Slab;
  readonly #addresses = new Map<string, Address>();
  readonly #lifetimes = new Map<string, Lifetime>();

  constructor(slab: Slab) {
    this.#slab = slab;
  }

  address(of: Address): Address {
    const key = String.fromCharCode(...of.bytes);
    const known = this.#addresses.get(key);
    if (known !== undefined) return known;
    const kept: Address = { family: of.family, bytes: this.#slab.copy(of.bytes) };
    remember(this.#addresses, key, kept);
    return kept;
  }

  lifetime(of: Lifetime): Lifetime {
    const key = `${of.packets} ${of.bytes} ${of.addSeconds} ${of.useSeconds}`;
    const known = this.#lifetimes.get(key);
    if (known !== undefined) return known;
    remember(this.#lifetimes, key, of);
    return of;
  }
}

function remember<Value>(map: Map<string, Value>, key: string, value: Value): void {
  if (map.size >= RECENT_MAX) {
    const [oldest] = map.keys();
    if (oldest !== undefined) map.delete(oldest);
  }
  map.set(key, value);
}
