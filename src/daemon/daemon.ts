import type { Env } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import type { SearchLoops } from '../base/table-search.ts';
import { type Absent, isAbsent } from '../drivers/native/koffi.ts';
import { type CryptoTier, NODE_TIER } from '../drivers/native/tier.ts';
import type { Events } from '../engine/core.ts';
import { Host } from '../engine/host.ts';
import { Overhead } from '../engine/overhead.ts';
import { defaultSettings, type Settings } from '../engine/settings.ts';
import { SocketPolicies } from '../engine/socket-policies.ts';
import type { Stats } from '../engine/stats.ts';
import { engineVariables, Sysctl, useVariables } from '../engine/sysctl.ts';
import { KeyEngine } from '../key/engine.ts';
import { freeReqid } from '../key/policy-request.ts';
import { type StageResult, stage } from '../key/stage.ts';
import { keyVariables } from '../key/sysctl.ts';
import { Sad } from '../sad/sad.ts';
import type { SequenceStore } from '../sad/sequence.ts';
import { Spd } from '../spd/spd.ts';
import type { PacketSink } from '../wire/packet.ts';
import type { HostAttachment } from './attach.ts';
import { applyConfig, type Config } from './config.ts';
import type { ControlServer } from './control-server.ts';
import { PolicyDiversion } from './diversion.ts';
import { statVariables } from './netstat-command.ts';
import { Shards } from './shards/shards.ts';
import type { Threads } from './shards/threads.ts';
import { LocalAddresses } from './socket-locals.ts';
import { SocketOptions } from './socket-options.ts';
import type { SocketRegistry } from './socket-registry.ts';
import { openSocketService, type SocketService } from './socket-service.ts';

/**
 * The longest the timer sleeps: something new may be due earlier than what was known when it was
 * set.
 */
const TICK_MS = 1000;

export interface DaemonOptions {
  readonly env: Env;
  readonly settings?: Partial<Settings>;
  readonly allowLegacy: boolean;
  /** By node:crypto if not given. */
  readonly crypto?: CryptoTier | undefined;
  /** What large tables of policies are searched by, or why there is nothing. */
  readonly search?: SearchLoops | Absent | undefined;
  readonly sequences: SequenceStore;
}

/**
 * A host with everything that makes it run: databases, key engine, packet engine, one timer, and
 * from `attach` on a machine around it. Knows nothing of sockets for programs; `pfkey-server` and
 * `control` are set on top.
 */
export class Daemon {
  readonly env: Env;
  readonly sad: Sad;
  readonly spd: Spd;
  /** Sockets with policies of their own. */
  readonly sockets = new SocketPolicies({ isLocal: (...end) => this.#locals.has(...end) });
  readonly keys: KeyEngine;
  readonly crypto: CryptoTier;
  readonly search: SearchLoops | Absent;
  readonly settings: Settings;
  /** Call `sync` after a change, or it waits for the next tick. */
  readonly sysctl: Sysctl;
  /** Set by who opens it: attachments add commands of their own. */
  control: ControlServer | undefined;

  readonly #sequences: SequenceStore;
  readonly #locals = new LocalAddresses();
  /** Where the work is divided. */
  #shards: Shards | undefined;
  #threads: Threads | undefined;
  #ended: Promise<void> | undefined;
  #host: Host | undefined;
  #attachment: HostAttachment | undefined;
  readonly #diversion = new PolicyDiversion();
  /** Whether some of the diversion could not be done, or nobody knows. */
  #isBehind = false;
  #mustRefresh = false;
  #policiesSeen = 0;
  #sasSeen = 0;
  readonly #overhead: Overhead;
  #timer: NodeJS.Timeout | undefined;
  #sharedPorts: readonly number[] = [];
  #socketService: SocketService | undefined;
  /** Policies of programs' own sockets; works from `attach` on. */
  readonly socketOptions = new SocketOptions({
    host: () => this.host,
    keys: () => this.keys.context,
    registry: () => this.#registry(),
    known: () => this.#socketService?.registry,
  });

  constructor(options: DaemonOptions) {
    const { env, allowLegacy, sequences, crypto = NODE_TIER } = options;
    const { search = { why: 'not asked for' } } = options;
    const { clock, random } = env;
    this.env = env;
    this.crypto = crypto;
    this.search = search;
    this.#sequences = sequences;
    this.settings = { ...defaultSettings(), ...options.settings };
    this.sad = new Sad({
      clock,
      random,
      sequences,
      expired: (sa, limit) => this.keys.expired(sa, limit),
      changed: (sa) => this.#shards?.saChanged(sa),
    });
    this.spd = new Spd({
      clock,
      search: isAbsent(search) ? undefined : search,
      expired: (policy) => this.keys.policyExpired(policy),
      added: (policy) => {
        this.#overhead.added(policy);
        this.#diversion.added(policy);
        this.#shards?.policyChanged(policy);
      },
      removed: (policy) => {
        this.#overhead.removed(policy);
        this.#diversion.removed(policy);
        this.#shards?.policyChanged(policy);
      },
      warn: (sentence) => env.log('warn', sentence),
    });
    this.#overhead = new Overhead(this.sad);
    this.keys = new KeyEngine({
      env,
      sad: this.sad,
      spd: this.spd,
      crypto: crypto.provider,
      allowLegacy,
      takesAway: () => {
        this.#shards?.sync();
        this.#attachment?.handleArrived?.();
        this.#shards?.report(true);
      },
      applied: () => this.#applied(),
      settled: () => this.#tellShards(),
    });
    this.sysctl = new Sysctl([
      ...engineVariables(this.settings),
      ...useVariables(this.spd),
      ...keyVariables({
        settings: this.keys.context.settings,
        sad: this.sad,
        engine: this.settings,
      }),
      ...statVariables(this),
    ]);
  }

  get isAttached(): boolean {
    return this.#attachment !== undefined;
  }

  get host(): Host {
    return this.#host!;
  }

  get attachment(): HostAttachment {
    return this.#attachment!;
  }

  /** The counters of all threads. */
  get stats(): Stats {
    return this.#shards?.statsWith(this.host.stats) ?? this.host.stats;
  }

  get cacheCounters(): Spd['cacheCounters'] {
    return this.#shards?.cacheCountersWith(this.spd.cacheCounters) ?? this.spd.cacheCounters;
  }

  /** Where the work is divided, after `stats`. */
  get shards(): Shards | undefined {
    return this.#shards;
  }

  /**
   * Connects the host to its links and lets packets flow. Call it when the first policies are in
   * place. `threads`: those that do a part of the work.
   */
  attach(attachment: HostAttachment, threads?: Threads): void {
    const { wire, local, inspect, errors, wireMtu } = attachment;
    this.#attachment = attachment;
    this.#locals.set(attachment.addresses());
    this.#threads = threads;
    const shards = threads && this.#divide(threads);
    const host = new Host({
      env: this.env,
      sad: this.sad,
      spd: this.spd,
      settings: this.settings,
      events: this.#events(),
      mtu: wireMtu,
      forwards: inspect !== undefined,
      transmit: (packets, count) => wire.send(packets, count),
      deliver: (packets, count) => local.send(packets, count),
      sockets: this.sockets,
      ...(attachment.deliverToSockets ? { deliverToSockets: attachment.deliverToSockets } : {}),
      ...(shards ? { shard: shards.shard } : {}),
    });
    this.#host = host;
    if (shards) {
      this.#shards = shards;
      shards.join(host);
      threads.watch(() => shards.turn());
    }
    attachment.joined?.(host, (own) => freeReqid(this.keys.context, own));
    const input = this.#batches((packets, count) => host.input(packets, count));
    wire.receive(input);
    inspect?.receive(input);
    errors?.receive(this.#batches((packets, count) => host.overhear(packets, count)));
    local.receive(this.#batches((packets, count) => host.output(packets, count)));
    attachment.follow?.({
      changed: () => this.#networkChanged(),
      failed: (error) => {
        this.env.log('error', `the network has changed, and could not be followed: ${error}`);
        this.#mustRefresh = true;
      },
    });
    this.sync();
    this.#tick();
  }

  /**
   * Brings the machine in line with the databases: which packets are diverted to us, and how much
   * room they leave. Called after every request; the work is that of what has changed.
   */
  sync(): void {
    this.#follow();
    this.#tellShards();
  }

  #follow(): void {
    const attachment = this.#attachment;
    if (!attachment) return;
    const { table } = this.#diversion;
    table.all = this.#discardsByDefault();
    if (table.hasChanged) this.#divert();
    const isSame = this.#policiesSeen === this.spd.generation;
    if (isSame && this.#sasSeen === this.sad.generation) return;
    if (!isSame) {
      const warnings = this.#diversion.takeWarnings();
      for (const warning of attachment.inspect ? warnings : []) {
        this.env.log('warn', `${warning}: the kernel never shows us such packets`);
      }
    }
    this.#policiesSeen = this.spd.generation;
    this.#sasSeen = this.sad.generation;
    attachment.setOverhead(this.#overhead.most);
  }

  /**
   * ESP in UDP to these ports of programs is ours from now on, besides what comes to the host's own
   * ports. Throws KeyError where that cannot be; then it is as before.
   */
  shareEncapsulation(ports: readonly number[]): void {
    const { attachment } = this;
    if (!attachment.sharePorts) {
      throw new KeyError('EOPNOTSUPP', 'a host in user space does not share ports with programs');
    }
    try {
      attachment.sharePorts(ports);
    } catch (error) {
      throw new KeyError('EIO', `the machine did not follow: ${String(error)}`);
    }
    const own = this.settings.encapsulationPorts.filter(
      (port) => !this.#sharedPorts.includes(port),
    );
    this.#sharedPorts = ports;
    this.settings.encapsulationPorts = [...own, ...ports];
    this.#tellShards();
  }

  /**
   * Replaces what the configuration file made by what it says now, in one step. Throws ConfigError,
   * and changes nothing, when any entry is refused. What the old and the new file protect is
   * diverted all the time.
   */
  reload(config: Config): StageResult {
    const staged = stage(this.keys);
    let release: (() => void) | undefined;
    try {
      applyConfig(staged.engine, config);
      const { spd } = staged.engine.context;
      release = this.#diversion.hold([...spd.list('out'), ...spd.list('in')]);
      this.sync();
      const result = staged.commit();
      release();
      release = undefined;
      this.sync();
      return result;
    } catch (error) {
      staged.discard();
      release?.();
      throw error;
    }
  }

  /** The end: the machine is as before, and all keys are zeroed. */
  close(): void {
    clearTimeout(this.#timer);
    this.#socketService?.close();
    try {
      this.#shards?.stop();
    } finally {
      this.#shards = undefined;
      this.#ended = this.#threads?.close();
      this.#detach();
    }
  }

  /** After `close`: when no other thread runs any more. */
  get ended(): Promise<void> {
    return this.#ended ?? Promise.resolve();
  }

  #detach(): void {
    try {
      this.#attachment?.close();
    } finally {
      this.#attachment = undefined;
      this.sad.flush();
    }
  }

  #registry(): SocketRegistry | undefined {
    this.#shards?.deliverAtMain();
    this.#socketService ??= openSocketService(this.env, this.host, this.attachment);
    return this.#socketService?.registry;
  }

  #applied(): void {
    try {
      this.#follow();
      // Packets that wait must not overtake what is said of the SAs that they waited for.
      if (this.#host && this.#host.packetsHeld > 0) this.#shards?.sync();
      this.#host?.releaseHeld();
    } catch (error) {
      throw new KeyError('EIO', `the machine did not follow: ${String(error)}`);
    }
  }

  /** All threads go by the databases as they are now, when it returns. */
  #tellShards(): void {
    this.#shards?.sync();
    this.#shards?.settle();
  }

  #divide({ bells, controls, writers, readers, slots, pause }: Threads): Shards {
    const { env, sad, spd, keys } = this;
    return new Shards({
      ...{ env, sad, spd, keys, bells, controls, writers, readers, slots, pause },
      sequences: this.#sequences,
      isLocal: ({ family, bytes }) => this.#locals.has(family, bytes, 0),
    });
  }

  /** A sink that ends batches where others may have to be told of them. */
  #batches(sink: PacketSink): PacketSink {
    const shards = this.#shards;
    if (shards === undefined) return sink;
    return (packets, count) => {
      sink(packets, count);
      shards.endBatch();
    };
  }

  /** Then every packet has to come to us. */
  #discardsByDefault(): boolean {
    const { inet, inet6 } = this.settings;
    return inet.defPolicy === 'discard' || inet6.defPolicy === 'discard';
  }

  #divert(): void {
    try {
      this.attachment.divert(this.#diversion.table);
    } catch (error) {
      this.#isBehind = true;
      throw error;
    }
  }

  /** What could not be done before. */
  #catchUp(): void {
    if (this.#mustRefresh) {
      this.#attachment?.refresh();
      this.#mustRefresh = false;
      this.#networkChanged();
    }
    if (!this.#isBehind || this.#diversion.table.hasChanged) return;
    this.#divert();
    this.#isBehind = false;
  }

  #networkChanged(): void {
    this.#locals.set(this.attachment.addresses());
    this.host.mtu = this.attachment.wireMtu;
    this.attachment.setOverhead(this.#overhead.most);
  }

  #events(): Events {
    return {
      acquire: (policy, request, src, dst, trigger) =>
        this.keys.acquire(policy, request, src, dst, trigger),
      natMapping: (sa, from, to) => this.keys.natMapping(sa, from, to),
    };
  }

  #tick(): void {
    const now = this.env.clock.monotonicMs();
    this.#shards?.beforePoll();
    const dueMs = Math.max(1, Math.min(this.host.poll(now) - now, TICK_MS));
    this.#shards?.endBatch();
    this.#timer = setTimeout(() => {
      try {
        this.#catchUp();
        this.sync();
      } catch (error) {
        // What is diverted already still is; the next tick tries again.
        this.env.log('error', `the machine did not follow: ${String(error)}`);
      }
      this.#tick();
    }, dueMs);
  }
}
