import { type Address, sameAddress } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import type { Sa, SaMode, SaProtocol } from './sa.ts';

/**
 * Where SAs are found: by SPI and destination for what comes in; for what goes out by the pair of
 * addresses, and there by mode and reqid. All are chains through the SAs themselves: a table of a
 * million of them has no room for a million lists, and an SA leaves a long chain without anybody
 * searching for it.
 */
export class SaIndex {
  /** The newest of each SPI and protocol; others differ in the destination. */
  readonly #bySpi = new Map<number, Sa>();
  /**
   * Of each pair of addresses and protocol, the newest SA of each group; without a table around it
   * while there is one group, as there is between most pairs.
   */
  readonly #byPair = new Map<string, Sa | Groups>();

  link(sa: Sa): void {
    const key = spiKey(sa.spec.protocol, sa.spec.spi);
    sa.nextOfSpi = this.#bySpi.get(key);
    this.#bySpi.set(key, sa);
    this.#linkGroup(sa);
  }

  unlink(sa: Sa): void {
    this.#unlinkSpi(sa);
    if (!sa.isRetired) this.#unlinkGroup(sa);
  }

  /** From now on it is found for packets that come in, and for nobody else. */
  retire(sa: Sa): void {
    this.#unlinkGroup(sa);
    sa.isRetired = true;
  }

  /** Whether a newer SA is there for whoever would use this one. */
  isReplaced(sa: Sa): boolean {
    let newer = sa.newerOfGroup;
    while (newer !== undefined && !newer.isUsable) newer = newer.newerOfGroup;
    return newer !== undefined;
  }

  find(protocol: SaProtocol, spi: number, dst: Address): Sa | undefined {
    let sa = this.#bySpi.get(spiKey(protocol, spi));
    while (sa !== undefined && (sa.isRetired || !sameAddress(sa.spec.dst, dst))) sa = sa.nextOfSpi;
    return sa;
  }

  retired(protocol: SaProtocol, spi: number, dst: Address): Sa | undefined {
    let sa = this.#bySpi.get(spiKey(protocol, spi));
    while (sa !== undefined && !(sa.isRetired && sameAddress(sa.spec.dst, dst))) sa = sa.nextOfSpi;
    return sa;
  }

  ofSpi(protocol: SaProtocol, spi: number): readonly Sa[] {
    const found: Sa[] = [];
    let sa = this.#bySpi.get(spiKey(protocol, spi));
    for (; sa !== undefined; sa = sa.nextOfSpi) if (!sa.isRetired) found.push(sa);
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

  /** All SAs between two addresses, in the order of their arrival. */
  between(protocol: SaProtocol, src: Address, dst: Address): Sa[] {
    const found: Sa[] = [];
    for (const newest of newestOf(this.#byPair.get(pairKey(protocol, src, dst)))) {
      let sa: Sa | undefined = newest;
      for (; sa !== undefined; sa = sa.olderOfGroup) found.push(sa);
    }
    return found.sort((a, b) => a.serial - b.serial);
  }

  /**
   * Of the SAs between two addresses that are for this mode and reqid (0: any), the best to send
   * with, as `Sad.outbound` has it. With a reqid, others do not make it slower.
   */
  outbound(
    protocol: SaProtocol,
    mode: Exclude<SaMode, 'any'>,
    src: Address,
    dst: Address,
    reqid: number,
    preferOld: boolean,
  ): Sa | undefined {
    const found = this.#byPair.get(pairKey(protocol, src, dst));
    if (found instanceof Map && reqid !== 0) {
      const exact = bestOf(found.get(groupKey(mode, reqid)), preferOld);
      return better(exact, bestOf(found.get(groupKey('any', reqid)), preferOld), preferOld);
    }
    let best: Sa | undefined;
    for (const newest of newestOf(found)) {
      const { spec } = newest;
      if (spec.mode !== mode && spec.mode !== 'any') continue;
      if (reqid !== 0 && spec.reqid !== reqid) continue;
      best = better(best, bestOf(newest, preferOld), preferOld);
    }
    return best;
  }

  /** In the order of arrival, also for an SA that comes here late, from other addresses. */
  #linkGroup(sa: Sa): void {
    const { protocol, src, dst } = sa.spec;
    const pair = pairKey(protocol, src, dst);
    const found = this.#byPair.get(pair);
    const group = groupOf(sa);
    let newer: Sa | undefined;
    let older = found instanceof Map ? found.get(group) : found;
    if (older !== undefined && groupOf(older) !== group) {
      this.#byPair.set(pair, new Map([[groupOf(older), older]]));
      older = undefined;
    }
    while (older !== undefined && older.serial > sa.serial) {
      newer = older;
      older = older.olderOfGroup;
    }
    sa.newerOfGroup = newer;
    sa.olderOfGroup = older;
    if (older !== undefined) older.newerOfGroup = sa;
    if (newer !== undefined) newer.olderOfGroup = sa;
    else this.#setNewest(pair, group, sa);
  }

  #unlinkGroup(sa: Sa): void {
    const { newerOfGroup, olderOfGroup } = sa;
    if (olderOfGroup !== undefined) olderOfGroup.newerOfGroup = newerOfGroup;
    if (newerOfGroup !== undefined) {
      newerOfGroup.olderOfGroup = olderOfGroup;
    } else {
      const { protocol, src, dst } = sa.spec;
      const pair = pairKey(protocol, src, dst);
      const group = groupOf(sa);
      const found = this.#byPair.get(pair);
      assert((found instanceof Map ? found.get(group) : found) === sa, 'SA is linked by its ends');
      this.#setNewest(pair, group, olderOfGroup);
    }
    sa.newerOfGroup = undefined;
    sa.olderOfGroup = undefined;
  }

  #setNewest(pair: string, group: number, sa: Sa | undefined): void {
    const found = this.#byPair.get(pair);
    if (found instanceof Map) {
      if (sa !== undefined) found.set(group, sa);
      else found.delete(group);
      if (found.size === 0) this.#byPair.delete(pair);
    } else if (sa !== undefined) {
      this.#byPair.set(pair, sa);
    } else {
      this.#byPair.delete(pair);
    }
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

/** The newest SA of each group. */
type Groups = Map<number, Sa>;

const MODE_NUMBER: Readonly<Record<SaMode, number>> = { any: 0, transport: 1, tunnel: 2 };
const MODES = 3;
/** Larval SAs wait apart, so that nobody who looks for one to send with has to pass them. */
const LARVAL = -1;

function groupOf({ spec }: Sa): number {
  const isLarval = spec.esp === undefined && spec.ah === undefined;
  return isLarval ? LARVAL : groupKey(spec.mode, spec.reqid);
}

function groupKey(mode: SaMode, reqid: number): number {
  return reqid * MODES + MODE_NUMBER[mode];
}

function newestOf(found: Sa | Groups | undefined): Iterable<Sa> {
  if (found instanceof Map) return found.values();
  return found === undefined ? [] : [found];
}

/** The best of one group. */
function bestOf(newest: Sa | undefined, preferOld: boolean): Sa | undefined {
  let best: Sa | undefined;
  for (let sa = newest; sa !== undefined; sa = sa.olderOfGroup) {
    if (!sa.isUsable) continue;
    if (!preferOld && sa.state === 'mature') return sa;
    best = better(best, sa, preferOld);
  }
  return best;
}

/** Mature before dying and new before old; or the other way round. */
function better(a: Sa | undefined, b: Sa | undefined, preferOld: boolean): Sa | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  if (a.state !== b.state) return (a.state === 'mature') === preferOld ? b : a;
  return a.serial < b.serial === preferOld ? a : b;
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
