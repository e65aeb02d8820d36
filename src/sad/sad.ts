import type { Address } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import { DueHeap } from '../base/due-heap.ts';
import type { Clock, Random } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import { Moments } from '../base/moments.ts';
import { countReached, dueMs, reached } from './lifetime.ts';
import { RandomWords } from './random-words.ts';
import { Sa, type SaMode, type SaProtocol, type SaSpec, type SaWorld } from './sa.ts';
import { checkSpec, checkSpi, describe, sameEnds } from './sa-checks.ts';
import { SaIndex } from './sa-index.ts';
import { SaList } from './sa-list.ts';
import { type SaSize, SaSizes } from './sa-sizes.ts';
import { type SaFilter, SaSnapshot } from './sa-snapshot.ts';
import { type SaView, viewOf } from './sa-view.ts';
import type { SequenceStore } from './sequence.ts';

/**
 * SAs that all snapshots together may still have to show: each may change or go before, and its old
 * view takes memory until then. One snapshot alone is always possible.
 */
const SNAPSHOT_SAS_MAX = 16_000_000;

/** How long a retired SA still receives, and how many there may be. */
const RETIRED_MS = 500;
const RETIRED_MAX = 1024;

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
  /** An SA came, went, retired, or is in another state or has other settings than before. */
  readonly changed?: (sa: Sa) => void;
  /** A use of an SA was counted. */
  readonly counted?: (sa: Sa) => void;
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
  readonly #all = new SaList();
  readonly #due = new DueHeap<Sa>();
  readonly #sizes = new SaSizes();
  /** Those that send in UDP, or get what comes in UDP. */
  readonly #encapsulated = new Set<Sa>();
  readonly #moments = new Moments<Sa, SaView>(viewOf);
  readonly #snapshots = new Set<SaSnapshot>();
  /** Until when, in monotonic milliseconds; the oldest first. */
  readonly #retired = new Map<Sa, number>();
  readonly #world: SaWorld;
  /** How many SAs have each reqid that is not 0. */
  readonly #reqids = new Map<number, number>();
  readonly #randomWords: RandomWords;
  #serial = 0;

  constructor(options: SadOptions) {
    this.#options = options;
    this.larvalSeconds = options.larvalSeconds ?? 30;
    this.#randomWords = new RandomWords(options.random);
    this.#world = {
      sequences: options.sequences,
      moments: this.#moments,
      // Not at once: others of the batch that is under way may still need its keys.
      outOfSeq: (sa) => this.#schedule(sa),
    };
  }

  get size(): number {
    return this.#all.size;
  }

  /** All SAs in the order of their arrival. A dead one is not among them. */
  all(): IterableIterator<Sa> {
    return this.#all.all();
  }

  /** Those with UDP encapsulation. */
  encapsulated(): Iterable<Sa> {
    return this.#encapsulated;
  }

  /** Snapshots that are being read. */
  get readers(): number {
    return this.#moments.readers;
  }

  /**
   * All SAs, or those of a protocol, or those that `filter` wants, each as it is now, to be read at
   * leisure; `return` must be called on one that is not read to its end. Costs nothing for each
   * SA, but for a look at each when there is a filter. ENOBUFS when too many SAs wait for other
   * readers.
   */
  snapshot(protocol?: SaProtocol, filter?: SaFilter): SaSnapshot {
    const wants = filterOf(protocol, filter);
    const length = filter === undefined ? this.#count(protocol) : this.#countOf(wants!);
    let waiting = 0;
    for (const { remaining } of this.#snapshots) waiting += remaining;
    if (waiting > 0 && waiting + length > SNAPSHOT_SAS_MAX) {
      throw new KeyError('ENOBUFS', `readers that do not read have ${waiting} SAs before them`);
    }
    const closed = (one: SaSnapshot) => void this.#snapshots.delete(one);
    const serial = this.#serial;
    const made = new SaSnapshot(this.#all, serial, this.#moments, wants, length, closed);
    if (length > 0) this.#snapshots.add(made);
    return made;
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
    sa.changing();
    this.#unlink(sa);
    sa.spec = spec;
    this.#link(sa);
    this.#options.changed?.(sa);
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
    return this.#index.outbound(protocol, mode, src, dst, reqid, preferOld);
  }

  /** Every SA with an SPI, whatever its destination. */
  ofSpi(protocol: SaProtocol, spi: number): readonly Sa[] {
    return this.#index.ofSpi(protocol, spi);
  }

  /** Every SA between two addresses, in any mode, in the order of their arrival. */
  between(protocol: SaProtocol, src: Address, dst: Address): readonly Sa[] {
    return this.#index.between(protocol, src, dst);
  }

  /** Which sizes the SAs with keys have: one of each kind. */
  sizes(): readonly SaSize[] {
    return this.#sizes.list();
  }

  hasReqid(reqid: number): boolean {
    return this.#reqids.has(reqid);
  }

  /** At once: its keys are zeroed. */
  remove(sa: Sa): void {
    if (sa.isRetired) {
      this.#index.unlink(sa);
      this.#retired.delete(sa);
      this.generation++;
    } else {
      this.#leave(sa);
      this.#unlink(sa);
    }
    this.#due.delete(sa);
    sa.die();
    this.#options.changed?.(sa);
  }

  /**
   * Takes an SA away that has received, and that a newer one has replaced: nobody is shown it any
   * more, and its name is free; but packets that are under way still get in for a moment. OpenIKED
   * tells its peer to delete the old SA before it sends by the new one, and under load there are
   * packets in between. Any other SA is removed at once.
   */
  retire(sa: Sa): void {
    const hasReceived = sa.usage.firstUseMs >= 0 && sa.sentSeq === 0;
    if (!hasReceived || !this.#index.isReplaced(sa)) return this.remove(sa);
    this.#leave(sa);
    this.#forget(sa);
    this.#index.retire(sa);
    this.#retired.set(sa, this.#options.clock.monotonicMs() + RETIRED_MS);
    this.#schedule(sa);
    this.#options.changed?.(sa);
    const [oldest] = this.#retired.keys();
    if (this.#retired.size > RETIRED_MAX) this.remove(oldest!);
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
    const doomed = [...this.#all.all()].filter(
      (sa) => protocol === undefined || sa.spec.protocol === protocol,
    );
    for (const sa of doomed) this.remove(sa);
    for (const sa of [...this.#retired.keys()]) {
      if (protocol === undefined || sa.spec.protocol === protocol) this.remove(sa);
    }
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
      const spi = min + Math.floor((this.#randomWords.next() / 2 ** 32) * (max - min + 1));
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
    this.#options.counted?.(sa);
  }

  /** Announces the limits of an SA that are now reached; at the hard one it dies. */
  settle(sa: Sa): void {
    const { hard, soft } = sa.spec;
    const counts = hard.packets + hard.bytes + soft.packets + soft.bytes;
    const isAtEndOfSeq = sa.state === 'mature' ? sa.runsOutOfSeq : sa.isOutOfSeq;
    if (counts === 0 && !isAtEndOfSeq) return;
    this.#age(sa, this.#options.clock.monotonicMs());
  }

  /** An SA was used: `count` and `settle`. */
  account(sa: Sa, packets: number, bytes: number): void {
    this.count(sa, packets, bytes);
    this.settle(sa);
  }

  /** As `poll`, for an SA that somebody else has counted for. */
  look(sa: Sa): void {
    this.#age(sa, this.#options.clock.monotonicMs());
    this.#schedule(sa);
  }

  /** What somebody else has found out about the limits of an SA. */
  become(sa: Sa, state: 'mature' | 'dying'): void {
    if (sa.state === state) return;
    sa.changing();
    sa.state = state;
    this.generation++;
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

  #checkRoom(more: number): void {
    const max = this.#options.saMax ?? 4_000_000;
    if (this.#all.size + more > max) {
      throw new KeyError('ENOBUFS', `the table of SAs is full: it has room for ${max}`);
    }
  }

  #insert(spec: SaSpec, state: 'larval' | 'mature'): Sa {
    const before = this.#index.retired(spec.protocol, spec.spi, spec.dst);
    if (before !== undefined) this.remove(before);
    const sa = new Sa(spec, state, {
      serial: ++this.#serial,
      monotonicMs: this.#options.clock.monotonicMs(),
      wallMs: this.#options.clock.wallMs(),
      world: this.#world,
    });
    this.#all.add(sa);
    this.#link(sa);
    this.#options.changed?.(sa);
    this.#schedule(sa);
    return sa;
  }

  /** It is no longer among all. */
  #leave(sa: Sa): void {
    sa.changing();
    for (const snapshot of this.#snapshots) snapshot.leaves(sa);
    this.#all.delete(sa);
  }

  #link(sa: Sa): void {
    const { reqid } = sa.spec;
    this.#index.link(sa);
    this.#sizes.add(sa.spec);
    if (sa.spec.encapsulation !== undefined) this.#encapsulated.add(sa);
    if (reqid !== 0) this.#reqids.set(reqid, (this.#reqids.get(reqid) ?? 0) + 1);
    this.generation++;
  }

  #unlink(sa: Sa): void {
    this.#index.unlink(sa);
    this.#forget(sa);
  }

  /** What is counted of all SAs is counted without it. */
  #forget(sa: Sa): void {
    const { reqid } = sa.spec;
    this.#sizes.remove(sa.spec);
    this.#encapsulated.delete(sa);
    const others = (this.#reqids.get(reqid) ?? 1) - 1;
    if (others === 0) this.#reqids.delete(reqid);
    else this.#reqids.set(reqid, others);
    this.generation++;
  }

  #age(sa: Sa, nowMs: number): void {
    const { spec, usage } = sa;
    // Whoever is told of an SA that expired may have removed this one meanwhile.
    if (sa.state === 'dead') return;
    if (sa.isRetired) {
      if (nowMs >= this.#retired.get(sa)! || reached(spec.hard, usage, nowMs)) this.remove(sa);
    } else if (sa.state === 'larval') {
      if (nowMs >= usage.addedMs + this.#larvalMs()) this.remove(sa);
    } else if (reached(spec.hard, usage, nowMs) || sa.isOutOfSeq) {
      // RFC 4303 §3.3.3: the counter must not cycle, so there is nothing left for it to do.
      this.remove(sa);
      this.#options.expired?.(sa, 'hard');
    } else if (sa.state === 'mature' && (reached(spec.soft, usage, nowMs) || sa.runsOutOfSeq)) {
      sa.changing();
      sa.state = 'dying';
      this.generation++;
      this.#options.changed?.(sa);
      this.#options.expired?.(sa, 'soft');
    }
  }

  #schedule(sa: Sa): void {
    if (sa.state !== 'dead') this.#due.set(sa, this.#dueMs(sa));
  }

  #dueMs(sa: Sa): number {
    const { state, spec, usage } = sa;
    if (sa.isRetired) return this.#retired.get(sa)!;
    if (state === 'larval') return usage.addedMs + this.#larvalMs();
    if (sa.isOutOfSeq) return -Infinity;
    const softMs = state === 'mature' ? dueMs(spec.soft, usage) : Infinity;
    return Math.min(dueMs(spec.hard, usage), softMs);
  }

  #count(protocol: SaProtocol | undefined): number {
    return protocol === undefined ? this.#all.size : this.#all.count(protocol);
  }

  #countOf(filter: SaFilter): number {
    let count = 0;
    for (let sa = this.#all.first; sa !== undefined; sa = sa.newerOfAll) {
      if (filter(sa.spec)) count++;
    }
    return count;
  }

  #larvalMs(): number {
    return this.larvalSeconds * 1000;
  }
}

function filterOf(
  protocol: SaProtocol | undefined,
  filter: SaFilter | undefined,
): SaFilter | undefined {
  if (protocol === undefined) return filter;
  return (spec) => spec.protocol === protocol && (filter === undefined || filter(spec));
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
