import { type Address, formatAddress, sameAddress } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import { DueHeap } from '../base/due-heap.ts';
import type { Clock, Random } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import { u32 } from '../wire/bytes.ts';
import { countReached, dueMs, reached } from './lifetime.ts';
import { Sa, type SaMode, type SaProtocol, type SaSpec } from './sa.ts';
import { SaIndex } from './sa-index.ts';
import { type SaSize, SaSizes } from './sa-sizes.ts';
import type { SequenceStore } from './sequence.ts';

/** SPIs 1 to 255 are reserved (RFC 4303 §2.1); 0 never goes on the wire. */
export const SPI_MIN = 0x100;
export const SPI_MAX = 0xffff_ffff;

/** Octets drawn from the system at once. */
const RANDOM_LEN = 1024;

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
  /** How long a reserved SPI waits for its keys; for those reserved from then on. */
  larvalSeconds: number;

  readonly #options: SadOptions;
  readonly #index = new SaIndex();
  readonly #all = new Set<Sa>();
  readonly #due = new DueHeap<Sa>();
  readonly #sizes = new SaSizes();
  /** How many SAs have each reqid that is not 0. */
  readonly #reqids = new Map<number, number>();
  readonly #randomPool = new Uint8Array(RANDOM_LEN);
  #randomAt = RANDOM_LEN;
  #serial = 0;

  constructor(options: SadOptions) {
    this.#options = options;
    this.larvalSeconds = options.larvalSeconds ?? 30;
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
   * Gives a larval SA its keys, or a living one its new settings and addresses. The object is
   * another one if the keys are new. EEXIST when the SPI is in use at the new destination.
   */
  update(sa: Sa, spec: SaSpec): Sa {
    const { protocol, spi } = sa.spec;
    assert(sa.state !== 'dead' && protocol === spec.protocol && spi === spec.spi, 'a living SA');
    checkSpec(spec);
    const other = this.get(protocol, spi, spec.dst);
    if (other && other !== sa) throw new KeyError('EEXIST', `${describe(spec)} is in use`);
    if (sa.state === 'larval') {
      this.remove(sa);
      return this.#insert(spec, 'mature');
    }
    const before = sa.spec;
    this.#unlink(sa);
    sa.spec = spec;
    this.#link(sa);
    // A longer soft limit makes it young again.
    const isYoung = !reached(spec.soft, sa.usage, this.#options.clock.monotonicMs());
    if (sa.state === 'dying' && isYoung && !sa.runsOutOfSeq) sa.state = 'mature';
    if (!sameEnds(before, spec)) {
      // Who says where the peer is knows better than the packets that came from it before.
      sa.peer = undefined;
      sa.seenAt = undefined;
    }
    this.#schedule(sa);
    return sa;
  }

  get(protocol: SaProtocol, spi: number, dst: Address): Sa | undefined {
    return this.#index.find(protocol, spi, dst);
  }

  /** The SA of an incoming packet, whatever its state: the destination is compared in place. */
  inbound(
    protocol: SaProtocol,
    spi: number,
    p: Uint8Array,
    dstAt: number,
    dstLen: number,
  ): Sa | undefined {
    return this.#index.findAt(protocol, spi, p, dstAt, dstLen);
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
    let mature: Sa | undefined;
    let dying: Sa | undefined;
    let sa = this.#index.newest(protocol, src, dst);
    for (; sa !== undefined; sa = sa.olderOfPair) {
      if (misfit(sa, mode, reqid) !== undefined) continue;
      if (sa.state === 'mature' && !preferOld) return sa;
      if (sa.state === 'mature') mature = sa;
      else if (preferOld || dying === undefined) dying = sa;
    }
    return preferOld ? (dying ?? mature) : dying;
  }

  /** Every SA with an SPI, whatever its destination. */
  ofSpi(protocol: SaProtocol, spi: number): readonly Sa[] {
    return this.#index.ofSpi(protocol, spi);
  }

  /** Every SA between two addresses, in any mode, in the order of their arrival. */
  between(protocol: SaProtocol, src: Address, dst: Address): readonly Sa[] {
    const found: Sa[] = [];
    let sa = this.#index.newest(protocol, src, dst);
    for (; sa !== undefined; sa = sa.olderOfPair) found.push(sa);
    return found.reverse();
  }

  /** Which sizes the SAs with keys have: one of each kind. */
  sizes(): readonly SaSize[] {
    return this.#sizes.list();
  }

  hasReqid(reqid: number): boolean {
    return this.#reqids.has(reqid);
  }

  remove(sa: Sa): void {
    this.#unlink(sa);
    this.#all.delete(sa);
    this.#due.delete(sa);
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
    for (let i = 0; i < tries; i++) {
      const spi = min + Math.floor((this.#randomWord() / 2 ** 32) * (max - min + 1));
      if (!this.get(spec.protocol, spi, spec.dst)) return this.add({ ...spec, spi }, 'larval');
    }
    throw new KeyError('ENOBUFS', `no free SPI between ${min} and ${max} in ${tries} tries`);
  }

  /**
   * Whether an SA must not be used any more: a batch may reach its hard limit before `settle` ends
   * it.
   */
  isSpent(sa: Sa): boolean {
    return !sa.isUsable || countReached(sa.spec.hard, sa.usage);
  }

  /**
   * Counts a use of an SA without looking at its limits, for whoever still needs its keys. `settle`
   * must follow.
   */
  count(sa: Sa, packets: number, bytes: number): void {
    const { clock } = this.#options;
    const first = sa.usage.firstUseMs < 0;
    sa.account(packets, bytes, first ? clock.monotonicMs() : 0, first ? clock.wallMs() : 0);
    if (first) this.#schedule(sa);
  }

  /** Announces the limits of an SA that are now reached; at the hard one it dies. */
  settle(sa: Sa): void {
    const { hard, soft } = sa.spec;
    const counts = hard.packets + hard.bytes + soft.packets + soft.bytes;
    if (counts === 0 && (sa.state !== 'mature' || !sa.runsOutOfSeq)) return;
    this.#age(sa, this.#options.clock.monotonicMs());
  }

  /** An SA was used: `count` and `settle`. */
  account(sa: Sa, packets: number, bytes: number): void {
    this.count(sa, packets, bytes);
    this.settle(sa);
  }

  /**
   * Ends what is due, and returns when to be called again. Costs what is due, not what is there.
   */
  poll(nowMs: number): number {
    for (let sa = this.#due.first; sa && this.#due.nextMs <= nowMs; sa = this.#due.first) {
      this.#age(sa, nowMs);
      this.#schedule(sa);
    }
    return this.#due.nextMs;
  }

  /** 32 bits that nobody can predict, drawn many at a time. */
  #randomWord(): number {
    const pool = this.#randomPool;
    if (this.#randomAt === pool.length) {
      this.#options.random.fill(pool);
      this.#randomAt = 0;
    }
    this.#randomAt += 4;
    return u32(pool, this.#randomAt - 4);
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
      sequences: this.#options.sequences,
    });
    this.#all.add(sa);
    this.#link(sa);
    this.#schedule(sa);
    return sa;
  }

  #link(sa: Sa): void {
    const { reqid } = sa.spec;
    this.#index.link(sa);
    this.#sizes.add(sa.spec);
    if (reqid !== 0) this.#reqids.set(reqid, (this.#reqids.get(reqid) ?? 0) + 1);
    this.generation++;
  }

  #unlink(sa: Sa): void {
    const { reqid } = sa.spec;
    this.#index.unlink(sa);
    this.#sizes.remove(sa.spec);
    const others = (this.#reqids.get(reqid) ?? 1) - 1;
    if (others === 0) this.#reqids.delete(reqid);
    else this.#reqids.set(reqid, others);
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
    } else if (sa.state === 'mature' && (reached(spec.soft, usage, nowMs) || sa.runsOutOfSeq)) {
      sa.state = 'dying';
      this.generation++;
      this.#options.expired?.(sa, 'soft');
    }
  }

  #schedule(sa: Sa): void {
    if (sa.state !== 'dead') this.#due.set(sa, this.#dueMs(sa));
  }

  #dueMs({ state, spec, usage }: Sa): number {
    if (state === 'larval') return usage.addedMs + this.#larvalMs();
    const softMs = state === 'mature' ? dueMs(spec.soft, usage) : Infinity;
    return Math.min(dueMs(spec.hard, usage), softMs);
  }

  #larvalMs(): number {
    return this.larvalSeconds * 1000;
  }
}

/** Why an SA between the right addresses is not for a request; undefined: it is. */
export function misfit(
  sa: Sa,
  mode: Exclude<SaMode, 'any'>,
  reqid: number,
): 'state' | 'mode' | 'reqid' | undefined {
  if (!sa.isUsable) return 'state';
  if (sa.spec.mode !== mode && sa.spec.mode !== 'any') return 'mode';
  return reqid !== 0 && sa.spec.reqid !== reqid ? 'reqid' : undefined;
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

function sameEnds(a: SaSpec, b: SaSpec): boolean {
  const [before, after] = [a.encapsulation, b.encapsulation];
  const samePorts = before?.srcPort === after?.srcPort && before?.dstPort === after?.dstPort;
  return samePorts && sameAddress(a.src, b.src) && sameAddress(a.dst, b.dst);
}
