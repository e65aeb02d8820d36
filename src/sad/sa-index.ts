import { type Address, sameAddress } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import type { Sa, SaProtocol } from './sa.ts';

/**
 * Where SAs are found: by SPI and destination for what comes in, by the pair of addresses for what
 * goes out. Both are chains through the SAs themselves: a table of a million of them has no room
 * for a million lists, and an SA leaves a long chain without anybody searching for it.
 */
export class SaIndex {
  /** The newest of each SPI and protocol; others differ in the destination. */
  readonly #bySpi = new Map<number, Sa>();
  /** The newest of each pair of addresses and protocol. */
  readonly #byPair = new Map<string, Sa>();

  link(sa: Sa): void {
    const key = spiKey(sa.spec.protocol, sa.spec.spi);
    sa.nextOfSpi = this.#bySpi.get(key);
    this.#bySpi.set(key, sa);
    this.#linkPair(sa);
  }

  unlink(sa: Sa): void {
    this.#unlinkSpi(sa);
    this.#unlinkPair(sa);
  }

  find(protocol: SaProtocol, spi: number, dst: Address): Sa | undefined {
    let sa = this.#bySpi.get(spiKey(protocol, spi));
    while (sa !== undefined && !sameAddress(sa.spec.dst, dst)) sa = sa.nextOfSpi;
    return sa;
  }

  ofSpi(protocol: SaProtocol, spi: number): readonly Sa[] {
    const found: Sa[] = [];
    let sa = this.#bySpi.get(spiKey(protocol, spi));
    for (; sa !== undefined; sa = sa.nextOfSpi) found.push(sa);
    return found;
  }

  /** As `find`, with the destination as it stands in a packet. */
  findAt(
    protocol: SaProtocol,
    spi: number,
    p: Uint8Array,
    dstAt: number,
    dstLen: number,
  ): Sa | undefined {
    let sa = this.#bySpi.get(spiKey(protocol, spi));
    while (sa !== undefined && !isAt(sa.spec.dst.bytes, p, dstAt, dstLen)) sa = sa.nextOfSpi;
    return sa;
  }

  /** The newest SA between two addresses; the others follow by `olderOfPair`. */
  newest(protocol: SaProtocol, src: Address, dst: Address): Sa | undefined {
    return this.#byPair.get(pairKey(protocol, src, dst));
  }

  /** In the order of arrival, also for an SA that comes here late, from other addresses. */
  #linkPair(sa: Sa): void {
    const { protocol, src, dst } = sa.spec;
    const key = pairKey(protocol, src, dst);
    let newer: Sa | undefined;
    let older = this.#byPair.get(key);
    while (older !== undefined && older.serial > sa.serial) {
      newer = older;
      older = older.olderOfPair;
    }
    sa.newerOfPair = newer;
    sa.olderOfPair = older;
    if (older !== undefined) older.newerOfPair = sa;
    if (newer !== undefined) newer.olderOfPair = sa;
    else this.#byPair.set(key, sa);
  }

  #unlinkPair(sa: Sa): void {
    const { newerOfPair, olderOfPair } = sa;
    if (olderOfPair !== undefined) olderOfPair.newerOfPair = newerOfPair;
    if (newerOfPair !== undefined) {
      newerOfPair.olderOfPair = olderOfPair;
    } else {
      const { protocol, src, dst } = sa.spec;
      const key = pairKey(protocol, src, dst);
      assert(this.#byPair.get(key) === sa, 'SA is linked by its addresses');
      if (olderOfPair === undefined) this.#byPair.delete(key);
      else this.#byPair.set(key, olderOfPair);
    }
    sa.newerOfPair = undefined;
    sa.olderOfPair = undefined;
  }

  #unlinkSpi(sa: Sa): void {
    const key = spiKey(sa.spec.protocol, sa.spec.spi);
    const next = sa.nextOfSpi;
    sa.nextOfSpi = undefined;
    let before = this.#bySpi.get(key);
    if (before === sa) {
      if (next === undefined) this.#bySpi.delete(key);
      else this.#bySpi.set(key, next);
      return;
    }
    while (before !== undefined && before.nextOfSpi !== sa) before = before.nextOfSpi;
    assert(before !== undefined, 'SA is linked by its SPI');
    before.nextOfSpi = next;
  }
}

function spiKey(protocol: SaProtocol, spi: number): number {
  return protocol === 'esp' ? spi : spi + 2 ** 32;
}

/** The octets of both addresses, two to a character. */
function pairKey(protocol: SaProtocol, src: Address, dst: Address): string {
  const head = protocol === 'esp' ? src.family : src.family | 8;
  return String.fromCharCode(head) + octetsKey(src.bytes) + octetsKey(dst.bytes);
}

function octetsKey(p: Uint8Array): string {
  const high = String.fromCharCode(pair(p, 0), pair(p, 2));
  if (p.length === 4) return high;
  const middle = String.fromCharCode(pair(p, 4), pair(p, 6), pair(p, 8));
  return high + middle + String.fromCharCode(pair(p, 10), pair(p, 12), pair(p, 14));
}

function pair(p: Uint8Array, at: number): number {
  return (p[at]! << 8) | p[at + 1]!;
}

function isAt(address: Uint8Array, p: Uint8Array, at: number, len: number): boolean {
  if (address.length !== len) return false;
  for (let i = 0; i < len; i++) if (address[i] !== p[at + i]) return false;
  return true;
}
