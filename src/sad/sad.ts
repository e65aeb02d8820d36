import { type Address, formatAddress, sameAddress } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import type { Clock, Random } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import { digest } from '../crypto/digest.ts';
import { u32 } from '../wire/bytes.ts';
import { countReached, dueMs, reached } from './lifetime.ts';
import { Sa, type SaMode, type SaProtocol, type SaSpec } from './sa.ts';
import type { SequenceStore } from './sequence.ts';

/** SPIs 1 to 255 are reserved (RFC 4303 §2.1); 0 never goes on the wire. */
export const SPI_MIN = 0x100;
export const SPI_MAX = 0xffff_ffff;

export interface SadOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly sequences: SequenceStore;
  /** How many SAs there may be; more are refused with ENOBUFS. */
  readonly saMax?: number;
  /** How long a reserved SPI waits for its keys. */
  readonly larvalSeconds?: number;
  /** An SA reached a limit: `soft`, then still usable; `hard`, then already dead. */
  readonly expired?: (sa: Sa, limit: 'soft' | 'hard') => void;
}

/**
 * The security association database. An SA is identified by SPI, protocol and destination (RFC 4301
 * §4.1); `generation` changes with every change, so that whoever caches an SA knows when to look
 * again.
 */
export class Sad {
  generation = 1;

  readonly #options: SadOptions;
  readonly #bySpi = new Map<number, Sa[]>();
  readonly #byPair = new Map<string, Sa[]>();
  readonly #all = new Set<Sa>();
  #serial = 0;
  #nextDueMs = Infinity;

  constructor(options: SadOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#all.size;
  }

  /** All SAs in the order of their arrival. A dead one is not among them. */
  all(): IterableIterator<Sa> {
    return this.#all.values();
  }

  /**
   * Throws EEXIST for an identity in use, EINVAL for a reserved SPI or mixed families, ENOBUFS when
   * the table is full.
   */
  add(spec: SaSpec, state: 'larval' | 'mature'): Sa {
    checkSpec(spec);
    const existing = this.get(spec.protocol, spec.spi, spec.dst);
    if (existing) throw new KeyError('EEXIST', `${describe(spec)} is in use (${existing.state})`);
    this.#checkRoom(1);
    return this.#insert(spec, state);
  }

  /**
   * Gives a larval SA its keys, or a living one its new settings. The object is another one if the
   * keys are new.
   */
  update(sa: Sa, spec: SaSpec): Sa {
    assert(sa.state !== 'dead' && sa.spec.spi === spec.spi, 'update of a living SA');
    if (sa.state !== 'larval') {
      this.#unlink(sa);
      sa.spec = spec;
      this.#link(sa);
      // A longer soft limit makes it young again.
      const nowMs = this.#options.clock.monotonicMs();
      if (sa.state === 'dying' && !reached(spec.soft, sa.usage, nowMs)) sa.state = 'mature';
      this.#schedule(sa);
      return sa;
    }
    this.remove(sa);
    return this.#insert(spec, 'mature');
  }

  get(protocol: SaProtocol, spi: number, dst: Address): Sa | undefined {
    return this.#bySpi.get(spiKey(protocol, spi))?.find((sa) => sameAddress(sa.spec.dst, dst));
  }

  /** The SA of an incoming packet, whatever its state: the destination is compared in place. */
  inbound(
    protocol: SaProtocol,
    spi: number,
    p: Uint8Array,
    dstAt: number,
    dstLen: number,
  ): Sa | undefined {
    const candidates = this.#bySpi.get(spiKey(protocol, spi));
    if (candidates === undefined) return undefined;
    for (let i = 0; i < candidates.length; i++) {
      if (isAt(candidates[i]!.spec.dst.bytes, p, dstAt, dstLen)) return candidates[i];
    }
    return undefined;
  }

  /**
   * The SA to send with: a mature one before a dying one, the newest first (or the oldest). A reqid
   * of 0 asks for any.
   */
  outbound(
    protocol: SaProtocol,
    mode: Exclude<SaMode, 'any'>,
    src: Address,
    dst: Address,
    reqid: number,
    preferOld = false,
  ): Sa | undefined {
    let best: Sa | undefined;
    for (const sa of this.#byPair.get(pairKey(protocol, src, dst)) ?? []) {
      if (!sa.isUsable || (sa.spec.mode !== mode && sa.spec.mode !== 'any')) continue;
      if (reqid !== 0 && sa.spec.reqid !== reqid) continue;
      if (best === undefined || isBetter(sa, best, preferOld)) best = sa;
    }
    return best;
  }

  /** Every SA between two addresses, in any mode. */
  between(protocol: SaProtocol, src: Address, dst: Address): readonly Sa[] {
    return this.#byPair.get(pairKey(protocol, src, dst)) ?? [];
  }

  remove(sa: Sa): void {
    this.#unlink(sa);
    this.#all.delete(sa);
    sa.die();
  }

  /**
   * Plans to put mature SAs in place of others: throws as `add` does, and changes nothing. The
   * function returned does it, in one step that cannot fail, as long as nothing else has changed;
   * it returns the new SAs in the order of `specs`.
   */
  planReplace(gone: readonly Sa[], specs: readonly SaSpec[]): () => Sa[] {
    const leaving = new Set(gone);
    const seen = new Set<string>();
    for (const spec of specs) {
      checkSpec(spec);
      const existing = this.get(spec.protocol, spec.spi, spec.dst);
      const name = describe(spec);
      if ((existing && !leaving.has(existing)) || seen.has(name)) {
        throw new KeyError('EEXIST', `${name} is in use`);
      }
      seen.add(name);
    }
    this.#checkRoom(specs.length - leaving.size);
    return () => {
      for (const sa of leaving) this.remove(sa);
      return specs.map((spec) => this.#insert(spec, 'mature'));
    };
  }

  /** Removes all, or all of a protocol; returns how many. */
  flush(protocol?: SaProtocol): number {
    const doomed = [...this.#all].filter(
      (sa) => protocol === undefined || sa.spec.protocol === protocol,
    );
    for (const sa of doomed) this.remove(sa);
    return doomed.length;
  }

  /**
   * Reserves an SPI in [min, max] for an incoming SA: a larval SA that waits for its keys. EEXIST
   * when the only SPI allowed is in use, ENOBUFS when none was free in `tries` attempts.
   */
  reserve(spec: Omit<SaSpec, 'spi'>, min: number, max: number, tries = 1000): Sa {
    if (min > max) throw new KeyError('EINVAL', `SPI range ${min} to ${max} is empty`);
    checkSpi(min);
    if (min === max) return this.add({ ...spec, spi: min }, 'larval');
    const octets = new Uint8Array(4);
    for (let i = 0; i < tries; i++) {
      this.#options.random.fill(octets);
      const spi = min + Math.floor((u32(octets, 0) / 2 ** 32) * (max - min + 1));
      if (!this.get(spec.protocol, spi, spec.dst)) return this.add({ ...spec, spi }, 'larval');
    }
    throw new KeyError('ENOBUFS', `no free SPI between ${min} and ${max} in ${tries} tries`);
  }

  /**
   * Counts a use of an SA without looking at its limits, for whoever still needs its keys: false,
   * and nothing is counted, when a hard limit is reached already. `settle` must follow.
   */
  count(sa: Sa, packets: number, bytes: number): boolean {
    const { clock } = this.#options;
    if (!sa.isUsable || countReached(sa.spec.hard, sa.usage)) return false;
    const first = sa.usage.firstUseMs < 0;
    sa.account(packets, bytes, first ? clock.monotonicMs() : 0, first ? clock.wallMs() : 0);
    if (first) this.#schedule(sa);
    return true;
  }

  /** Announces the limits of an SA that are now reached; at the hard one it dies. */
  settle(sa: Sa): void {
    const { hard, soft } = sa.spec;
    if (hard.packets + hard.bytes + soft.packets + soft.bytes === 0) return;
    this.#age(sa, this.#options.clock.monotonicMs());
  }

  /** An SA was used: `count` and `settle`. */
  account(sa: Sa, packets: number, bytes: number): void {
    if (this.count(sa, packets, bytes)) this.settle(sa);
  }

  /** Ends what is due, and returns when to be called again. */
  poll(nowMs: number): number {
    if (nowMs < this.#nextDueMs) return this.#nextDueMs;
    this.#nextDueMs = Infinity;
    for (const sa of [...this.#all]) {
      this.#age(sa, nowMs);
      this.#schedule(sa);
    }
    return this.#nextDueMs;
  }

  #checkRoom(more: number): void {
    const max = this.#options.saMax ?? 4_000_000;
    if (this.#all.size + more > max) {
      throw new KeyError('ENOBUFS', `the table of SAs is full: it has room for ${max}`);
    }
  }

  #insert(spec: SaSpec, state: 'larval' | 'mature'): Sa {
    const sa = new Sa(spec, state, {
      serial: ++this.#serial,
      monotonicMs: this.#options.clock.monotonicMs(),
      wallMs: this.#options.clock.wallMs(),
      ivMask: ivMask(spec),
      sequences: this.#options.sequences,
    });
    this.#all.add(sa);
    this.#link(sa);
    this.#schedule(sa);
    return sa;
  }

  #link(sa: Sa): void {
    const { protocol, spi, src, dst } = sa.spec;
    push(this.#bySpi, spiKey(protocol, spi), sa);
    push(this.#byPair, pairKey(protocol, src, dst), sa);
    this.generation++;
  }

  #unlink(sa: Sa): void {
    const { protocol, spi, src, dst } = sa.spec;
    pull(this.#bySpi, spiKey(protocol, spi), sa);
    pull(this.#byPair, pairKey(protocol, src, dst), sa);
    this.generation++;
  }

  #age(sa: Sa, nowMs: number): void {
    const { spec, usage } = sa;
    // Whoever is told of an SA that expired may have removed this one meanwhile.
    if (sa.state === 'dead') return;
    if (sa.state === 'larval') {
      if (nowMs >= usage.addedMs + this.#larvalMs()) this.remove(sa);
    } else if (reached(spec.hard, usage, nowMs)) {
      this.remove(sa);
      this.#options.expired?.(sa, 'hard');
    } else if (sa.state === 'mature' && reached(spec.soft, usage, nowMs)) {
      sa.state = 'dying';
      this.generation++;
      this.#options.expired?.(sa, 'soft');
    }
  }

  #schedule(sa: Sa): void {
    if (sa.state === 'dead') return;
    const due =
      sa.state === 'larval'
        ? sa.usage.addedMs + this.#larvalMs()
        : Math.min(
            dueMs(sa.spec.hard, sa.usage),
            sa.state === 'mature' ? dueMs(sa.spec.soft, sa.usage) : Infinity,
          );
    this.#nextDueMs = Math.min(this.#nextDueMs, due);
  }

  #larvalMs(): number {
    return (this.#options.larvalSeconds ?? 30) * 1000;
  }
}

/** `esp SPI 0x00001001 to 10.0.0.2`, for messages. */
export function describe(spec: Pick<SaSpec, 'protocol' | 'spi' | 'dst'>): string {
  const spi = spec.spi.toString(16).padStart(8, '0');
  return `${spec.protocol} SPI 0x${spi} to ${formatAddress(spec.dst)}`;
}

function checkSpi(spi: number): void {
  if (spi < SPI_MIN || spi > SPI_MAX) {
    throw new KeyError('EINVAL', `SPI ${spi} is reserved: SPIs from ${SPI_MIN} up are for use`);
  }
}

function checkSpec({ spi, src, dst }: SaSpec): void {
  checkSpi(spi);
  // Both stand in one IP header.
  if (src.family !== dst.family) {
    throw new KeyError(
      'EINVAL',
      `source ${formatAddress(src)} and destination ${formatAddress(dst)} are of different families`,
    );
  }
}

function isBetter(sa: Sa, than: Sa, preferOld: boolean): boolean {
  if (preferOld) {
    if (sa.state !== than.state) return sa.state === 'dying';
    return sa.serial < than.serial;
  }
  if (sa.state !== than.state) return sa.state === 'mature';
  return sa.serial > than.serial;
}

/**
 * Both halves of a mask that only the SA's identity decides: see `engine/esp.ts` for what it is
 * good for.
 */
function ivMask(spec: SaSpec): Uint32Array {
  const spi = Uint8Array.of(spec.spi >>> 24, spec.spi >>> 16, spec.spi >>> 8, spec.spi);
  const octets = digest([spi, spec.src.bytes, spec.dst.bytes]);
  return Uint32Array.of(u32(octets, 0), u32(octets, 4));
}

function spiKey(protocol: SaProtocol, spi: number): number {
  return protocol === 'esp' ? spi : spi + 2 ** 32;
}

function pairKey(protocol: SaProtocol, src: Address, dst: Address): string {
  return `${protocol} ${String.fromCharCode(...src.bytes)} ${String.fromCharCode(...dst.bytes)}`;
}

function isAt(address: Uint8Array, p: Uint8Array, at: number, len: number): boolean {
  if (address.length !== len) return false;
  for (let i = 0; i < len; i++) if (address[i] !== p[at + i]) return false;
  return true;
}

function push<K>(map: Map<K, Sa[]>, key: K, sa: Sa): void {
  const list = map.get(key);
  if (list) list.push(sa);
  else map.set(key, [sa]);
}

function pull<K>(map: Map<K, Sa[]>, key: K, sa: Sa): void {
  const list = map.get(key);
  const at = list?.indexOf(sa) ?? -1;
  assert(list !== undefined && at >= 0, 'SA is linked');
  list.splice(at, 1);
  if (list.length === 0) map.delete(key);
}
