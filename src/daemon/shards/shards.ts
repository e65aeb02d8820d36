import type { Address, Family } from '../../base/address.ts';
import type { Env } from '../../base/env.ts';
import type { BacklogCounts } from '../../drivers/backlog-counts.ts';
import type { Host } from '../../engine/host.ts';
import type { Shard as EngineShard } from '../../engine/shard.ts';
import { Stats } from '../../engine/stats.ts';
import type { KeyEngine } from '../../key/engine.ts';
import type { Sa } from '../../sad/sa.ts';
import type { Sad } from '../../sad/sad.ts';
import type { SequenceStore } from '../../sad/sequence.ts';
import type { Policy } from '../../spd/policy.ts';
import type { CacheCounters } from '../../spd/policy-index.ts';
import type { Spd } from '../../spd/spd.ts';
import type { Bells } from './bell.ts';
import type { ShardControl } from './control.ts';
import { Exchange, type ExchangeSlots } from './exchange.ts';
import { LeaseDesk } from './leases.ts';
import type { HostRecord, ShardReport, ShardWork, ToMain } from './messages.ts';
import { Replicator } from './replicator.ts';
import type { RingReader, RingWriter } from './ring.ts';
import { ROUNDS_MAX } from './shard.ts';
import { sumOf } from './shard-stats.ts';

/** A shard that has not done what it was told by then is not going to. */
const SETTLE_MS = 30_000;

/** The main shard's ends of what it shares with the others. */
export interface MainEnds {
  readonly bells: Bells;
  /** Of the other shards: shard `i + 1` is at `i`. */
  readonly controls: readonly ShardControl[];
  readonly writers: readonly (RingWriter | undefined)[];
  readonly readers: readonly (RingReader | undefined)[];
  readonly slots: ExchangeSlots;
}

export interface ShardsOptions extends MainEnds {
  readonly env: Env;
  readonly sad: Sad;
  readonly spd: Spd;
  readonly keys: Pick<KeyEngine, 'natMapping'>;
  readonly sequences: SequenceStore;
  readonly isLocal: (address: Address) => boolean;
  /** See `ExchangeOptions`. */
  readonly pause?: (isPaused: boolean) => void;
  /** Instead of stopping the thread while others work: tests run all shards on one. */
  readonly waiting?: () => void;
}

/** What `status` says of a shard. */
export interface ShardStatus {
  readonly shard: number;
  /** SAs that are its own. */
  readonly sas: number;
  /** Packets that its engine has sealed and opened. */
  readonly sealed: number;
  readonly opened: number;
  /** Packets that it has passed to others, taken over from them, and found no room for. */
  readonly passed: number;
  readonly taken: number;
  readonly refused: number;
}

/**
 * The main shard's side of a host that is divided: it alone has the databases, the programs and the
 * clock; the others have copies, and each the SAs that are its own.
 */
export class Shards {
  readonly #options: ShardsOptions;
  readonly #replicator: Replicator;
  readonly #exchange: Exchange;
  readonly #desks: readonly LeaseDesk[];
  readonly #reports: (ShardReport | undefined)[];
  #host: Host | undefined;
  #isTurning = false;
  #mainDelivers = false;

  constructor(options: ShardsOptions) {
    const { controls, sequences, bells, writers, readers, slots } = options;
    this.#options = options;
    this.#reports = controls.map(() => undefined);
    this.#desks = controls.map(({ mailbox }) => new LeaseDesk(mailbox, sequences));
    this.#replicator = new Replicator({
      ...options,
      settle: () => this.settle(),
      host: () => this.#hostRecord(),
    });
    this.#exchange = new Exchange({
      ...{ self: 0, writers, readers, slots },
      saOf: (slot) => this.#replicator.slots.saOf(slot),
      wake: (shard) => bells.ring(shard),
      beforePackets: () => this.#listen(),
      peerMoved: (sa) => this.saChanged(sa),
      ...(options.pause ? { pause: options.pause } : {}),
    });
  }

  /** For the host of this shard. */
  get shard(): EngineShard {
    return this.#exchange;
  }

  /** How many shards there are, this one included. */
  get count(): number {
    return this.#options.controls.length + 1;
  }

  /**
   * There is a host, and nothing has gone through it: all that is in the databases gets owners, and
   * is told to the others.
   */
  join(host: Host): void {
    this.#host = host;
    const { sad, spd } = this.#options;
    for (const sa of sad.all()) this.saChanged(sa);
    for (const direction of ['in', 'out', 'fwd'] as const) {
      for (const policy of spd.list(direction)) this.policyChanged(policy);
    }
    this.sync();
    this.settle();
  }

  /** For `SadOptions.changed`. */
  saChanged(sa: Sa): void {
    if (this.#host !== undefined) this.#replicator.saChanged(sa);
  }

  /** For `SpdOptions.added` and `removed`. */
  policyChanged(policy: Policy): void {
    if (this.#host !== undefined) this.#replicator.policyChanged(policy);
  }

  /** From now on there may be sockets with policies of their own, which this shard alone knows. */
  deliverAtMain(): void {
    if (this.#mainDelivers) return;
    this.#mainDelivers = true;
    this.sync();
    this.settle();
  }

  /** Tells the others what has changed. */
  sync(): void {
    if (this.#host !== undefined) this.#replicator.sync();
  }

  /**
   * Waits until the others have done what they were told, and answers their questions meanwhile.
   * Throws an Error when one does not.
   */
  settle(): void {
    const { env, bells, controls, waiting } = this.#options;
    const endMs = env.clock.monotonicMs() + SETTLE_MS;
    for (;;) {
      const calls = bells.calls(0);
      this.serve();
      if (controls.every(({ isDone }) => isDone)) return;
      if (env.clock.monotonicMs() > endMs) throw new Error('a worker does not answer');
      if (waiting) waiting();
      else bells.wait(0, calls, 1000);
    }
  }

  /** Answers the questions of others, who may be waiting. */
  serve(): void {
    for (const desk of this.#desks) desk.serve();
  }

  /**
   * Has the others tell what they have not told yet. `read`: everybody has then worked on what had
   * come before; this shard itself must have read what was its own.
   */
  report(read: boolean): void {
    if (this.#host === undefined) return;
    for (let round = read ? 0 : 1; round < 2; round++) {
      for (const control of this.#options.controls)
        control.send({ kind: 'report', read: round === 0 });
      this.settle();
      this.turn();
    }
  }

  /** At the end of a batch of this shard. */
  endBatch(): void {
    if (this.#replicator.isDirty || this.#hasNewPaths) this.sync();
    this.turn();
  }

  /** Does what others have left for this shard. */
  turn(): void {
    if (this.#isTurning || this.#host === undefined) return;
    this.#isTurning = true;
    const { bells } = this.#options;
    let rounds = 0;
    do {
      bells.sleep(0);
      // Something that comes after this look finds the shard asleep, and wakes it.
    } while (this.#drain(this.#host) && ++rounds < ROUNDS_MAX);
    // It is the turn of programs and links; then it goes on.
    if (rounds === ROUNDS_MAX) bells.ring(0);
    this.#isTurning = false;
  }

  /** Before time passes for the databases: what others know of use is known here. */
  beforePoll(): void {
    this.report(false);
    const { ledger } = this.#replicator;
    for (const sa of this.#options.sad.encapsulated()) {
      if (sa.keeper === undefined) continue;
      sa.lastSentMs = Math.max(sa.lastSentMs, ledger.lastSentMs(sa));
    }
  }

  /** The counters of all shards, given those of this one. */
  statsWith(stats: Stats): Stats {
    this.report(false);
    return sumOf(
      stats,
      this.#known().map(({ numbers }) => numbers),
    );
  }

  cacheCountersWith(own: Readonly<Record<Family, CacheCounters>>) {
    const sum = structuredClone(own);
    for (const { cache } of this.#known()) {
      for (const family of [4, 6] as const) {
        sum[family].lookups += cache[family].lookups;
        sum[family].misses += cache[family].misses;
      }
    }
    return sum;
  }

  /** Packets that the links of the others could not send. */
  get refusedElsewhere(): { readonly wire: number; readonly local: number } {
    let [wire, local] = [0, 0];
    for (const { work } of this.#known()) {
      wire += work.refusedByWire;
      local += work.refusedByLocal;
    }
    return { wire, local };
  }

  /** What has waited for the wire at each of the others. */
  get backlogsElsewhere(): readonly BacklogCounts[] {
    return this.#known().map(({ work }) => work.backlog);
  }

  /** A row for each shard; as of the last report. */
  status(stats: Stats): ShardStatus[] {
    const { owned } = this.#replicator.slots;
    const { passed, taken, refused } = this.#exchange;
    const rows = [rowOf(0, owned, stats, { passed, taken, refused })];
    for (const [i, report] of this.#reports.entries()) {
      if (report === undefined) continue;
      rows.push(rowOf(i + 1, owned, sumOf(new Stats(), [report.numbers]), report.work));
    }
    return rows;
  }

  /** The others close their links, zero their keys and give back what they have not used. */
  stop(): void {
    for (const control of this.#options.controls) control.send({ kind: 'stop' });
    this.settle();
    this.#host = undefined;
  }

  get #hasNewPaths(): boolean {
    return this.#replicator.pathsTold !== this.#host?.pathsGeneration;
  }

  #drain(host: Host): boolean {
    const hadSome = this.#exchange.drain(host);
    if (this.#replicator.isDirty || this.#hasNewPaths) this.sync();
    return hadSome;
  }

  /** What others have asked and told. */
  #listen(): void {
    this.serve();
    for (const [i, control] of this.#options.controls.entries()) {
      for (let message = control.take(); message; message = control.take()) {
        if (message.kind === 'stats') this.#reports[i] = message;
        else this.#heard(message);
      }
    }
  }

  #heard(message: Exclude<ToMain, ShardReport>): void {
    const { sad, spd, keys } = this.#options;
    if (message.kind === 'used') {
      for (const { id, lastUsedMs, lastUsedWallMs } of message.policies) {
        const policy = spd.get(id);
        if (policy && policy.lastUsedMs < lastUsedMs) spd.used(policy, lastUsedMs, lastUsedWallMs);
      }
      return;
    }
    const sa = this.#replicator.slots.saOf(message.slot);
    if (sa === undefined) return;
    if (message.kind === 'look') {
      sad.look(sa);
    } else {
      keys.natMapping(sa, message.from, message.to);
      this.#host?.natMoved(sa, message.to);
    }
  }

  #hostRecord(): HostRecord {
    const host = this.#host!;
    // Keep-alives are sent by this shard.
    const settings = { ...host.settings, keepaliveSeconds: 0 };
    const { mtu, paths, pathsGeneration, sockets } = host;
    const mainDelivers = this.#mainDelivers || sockets.size > 0;
    return { settings, mtu, paths, pathsGeneration, mainDelivers };
  }

  #known(): ShardReport[] {
    return this.#reports.filter((report) => report !== undefined);
  }
}

function rowOf(
  shard: number,
  owned: readonly number[],
  { espSealed, ahSealed, espOpened, ahOpened }: Stats,
  { passed, taken, refused }: Pick<ShardWork, 'passed' | 'taken' | 'refused'>,
): ShardStatus {
  const [sealed, opened] = [espSealed + ahSealed, espOpened + ahOpened];
  return { shard, sas: owned[shard] ?? 0, sealed, opened, passed, taken, refused };
}
