import type { Env } from '../../base/env.ts';
import type { SearchLoops } from '../../base/table-search.ts';
import type { CryptoProvider } from '../../crypto/provider.ts';
import { type BacklogCounts, NO_BACKLOG } from '../../drivers/backlog-counts.ts';
import { Host } from '../../engine/host.ts';
import { defaultSettings } from '../../engine/settings.ts';
import { Sad } from '../../sad/sad.ts';
import { Spd } from '../../spd/spd.ts';
import type { PacketSink } from '../../wire/packet.ts';
import type { Bells } from './bell.ts';
import type { MainControl } from './control.ts';
import { Exchange, type ExchangeSlots } from './exchange.ts';
import { ShardLeases } from './leases.ts';
import { Replica } from './replica.ts';
import type { RingReader, RingWriter } from './ring.ts';
import { numbersOf } from './shard-stats.ts';

/** So often in a row a shard looks for what others have left before its own links have a turn. */
export const ROUNDS_MAX = 8;

export interface ShardOptions {
  readonly self: number;
  readonly env: Env;
  readonly crypto: CryptoProvider;
  /** What large tables of policies are searched by, where there is something. */
  readonly search?: SearchLoops | undefined;
  readonly control: MainControl;
  readonly bells: Bells;
  readonly writers: readonly (RingWriter | undefined)[];
  readonly readers: readonly (RingReader | undefined)[];
  readonly slots: ExchangeSlots;
  readonly transmit: PacketSink;
  readonly deliver: PacketSink;
  /** What links could not send so far. */
  readonly refused: () => { readonly wire: number; readonly local: number };
  /** What has waited for the wire; nothing does if not given. */
  readonly backlog?: () => BacklogCounts;
  readonly readArrived: () => void;
  readonly stopped: () => void;
  /** See `ExchangeOptions`. */
  readonly pause?: (isPaused: boolean) => void;
  /** See `ShardLeases`. */
  readonly waiting?: () => void;
}

/**
 * A shard that is not the main one, whatever thread it is on: an engine over copies of the
 * databases, which uses the SAs that are its own and passes everything else on. Its links call
 * `input` and `output`; whoever wakes it calls `turn`.
 */
export class Shard {
  readonly host: Host;
  readonly sad: Sad;
  readonly #options: ShardOptions;
  readonly #replica: Replica;
  readonly #exchange: Exchange;
  #isTurning = false;
  #isStopped = false;

  constructor(options: ShardOptions) {
    const { self, env, crypto, control, bells } = options;
    this.#options = options;
    const leases = new ShardLeases(control.mailbox, () => bells.ring(0), options.waiting);
    this.sad = new Sad({
      clock: env.clock,
      random: env.random,
      sequences: leases,
      counted: (sa) => this.#replica.counted(sa),
      expired: (sa, limit) => this.#replica.expired(sa, limit),
    });
    const spd = new Spd({ clock: env.clock, search: options.search });
    const report = (read: boolean) => this.#report(read);
    const stop = () => this.#stop();
    this.#replica = new Replica({ self, sad: this.sad, spd, crypto, control, report, stop });
    this.#exchange = new Exchange({
      self,
      writers: options.writers,
      readers: options.readers,
      slots: options.slots,
      saOf: (slot) => this.#replica.saOf(slot),
      wake: (shard) => bells.ring(shard),
      beforePackets: () => control.drain(this.#replica.apply),
      ...(options.pause ? { pause: options.pause } : {}),
    });
    this.host = new Host({
      env,
      sad: this.sad,
      spd,
      settings: defaultSettings(),
      transmit: options.transmit,
      deliver: options.deliver,
      events: {
        natMapping: (sa, from, to) => control.send({ kind: 'moved', slot: sa.slot, from, to }),
      },
      shard: this.#exchange,
    });
    this.#replica.join(this.host, this.#exchange);
  }

  readonly input: PacketSink = (packets, count) => {
    this.host.input(packets, count);
    this.#endBatch();
    this.turn();
  };

  readonly output: PacketSink = (packets, count) => {
    this.host.output(packets, count);
    this.#endBatch();
    this.turn();
  };

  /**
   * Does what others have left for it. It may sleep afterwards: whoever has more wakes it.
   */
  turn(): void {
    if (this.#isTurning) return;
    this.#isTurning = true;
    const { self, bells } = this.#options;
    let rounds = 0;
    do {
      bells.sleep(self);
      // Something that comes after this look finds the shard asleep, and wakes it.
    } while (!this.#isStopped && this.#drain() && ++rounds < ROUNDS_MAX);
    // It is the turn of others; then it goes on.
    if (rounds === ROUNDS_MAX) bells.ring(self);
    this.#isTurning = false;
  }

  poll(nowMs: number): number {
    const due = this.host.poll(nowMs);
    this.#tellPolicies();
    this.#endBatch();
    return due;
  }

  #drain(): boolean {
    const hadSome = this.#exchange.drain(this.host);
    if (hadSome) this.#endBatch();
    return hadSome;
  }

  #endBatch(): void {
    this.#replica.publish();
  }

  #report(read: boolean): void {
    const { control, refused, readArrived, backlog = () => NO_BACKLOG } = this.#options;
    if (read) readArrived();
    this.#exchange.drainNow(this.host);
    this.#endBatch();
    this.#tellPolicies();
    const { passed, taken, refused: full } = this.#exchange;
    const { wire, local } = refused();
    const refusedBy = { refusedByWire: wire, refusedByLocal: local };
    const work = { passed, taken, refused: full, ...refusedBy, backlog: backlog() };
    const cache = structuredClone(this.host.spd.cacheCounters);
    control.send({ kind: 'stats', numbers: numbersOf(this.host.stats), work, cache });
  }

  #tellPolicies(): void {
    const used = this.#replica.policiesUsed();
    if (used.length === 0) return;
    const policies = used.map(({ id, lastUsedMs, lastUsedWallMs }) => {
      return { id, lastUsedMs, lastUsedWallMs };
    });
    this.#options.control.send({ kind: 'used', policies });
  }

  /** Keys are zeroed, numbers that were not used are given back. */
  #stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#options.stopped();
    this.sad.flush();
  }
}
