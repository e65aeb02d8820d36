import type { Env } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import { nodeCrypto } from '../crypto/node-provider.ts';
import { type Diversion, NO_DIVERSION } from '../drivers/linux/diversion.ts';
import type { Events } from '../engine/core.ts';
import { Host } from '../engine/host.ts';
import { Overhead } from '../engine/overhead.ts';
import { defaultSettings, type Settings } from '../engine/settings.ts';
import { engineVariables, Sysctl } from '../engine/sysctl.ts';
import { KeyEngine } from '../key/engine.ts';
import { type StageResult, stage } from '../key/stage.ts';
import { keyVariables } from '../key/sysctl.ts';
import { Sad } from '../sad/sad.ts';
import type { SequenceStore } from '../sad/sequence.ts';
import { Spd } from '../spd/spd.ts';
import type { HostAttachment } from './attach.ts';
import { applyConfig, type Config } from './config.ts';
import type { ControlServer } from './control-server.ts';
import { diversionOf, sameDiversion, unionOf, unreachablePolicies } from './diversion.ts';
import { statVariables } from './netstat-command.ts';

/**
 * The longest the timer sleeps: something new may be due earlier than what was known when it was
 * set.
 */
const TICK_MS = 1000;

export interface DaemonOptions {
  readonly env: Env;
  readonly settings?: Partial<Settings>;
  readonly allowLegacy: boolean;
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
  readonly keys: KeyEngine;
  readonly settings: Settings;
  /** Call `sync` after a change, or it waits for the next tick. */
  readonly sysctl: Sysctl;
  /** Set by who opens it: attachments add commands of their own. */
  control: ControlServer | undefined;

  #host: Host | undefined;
  #attachment: HostAttachment | undefined;
  #diversion: Diversion = NO_DIVERSION;
  #policiesSeen = 0;
  #sasSeen = 0;
  readonly #overhead: Overhead;
  #timer: NodeJS.Timeout | undefined;
  #sharedPorts: readonly number[] = [];

  constructor(options: DaemonOptions) {
    const { env, allowLegacy, sequences } = options;
    const { clock, random } = env;
    this.env = env;
    this.settings = { ...defaultSettings(), ...options.settings };
    this.sad = new Sad({
      clock,
      random,
      sequences,
      expired: (sa, limit) => this.keys.expired(sa, limit),
    });
    this.spd = new Spd({
      clock,
      expired: (policy) => this.keys.policyExpired(policy),
      warn: (sentence) => env.log('warn', sentence),
    });
    this.#overhead = new Overhead(this.spd, this.sad);
    this.keys = new KeyEngine({
      env,
      sad: this.sad,
      spd: this.spd,
      crypto: nodeCrypto,
      allowLegacy,
      applied: () => this.#applied(),
    });
    this.sysctl = new Sysctl([
      ...engineVariables(this.settings),
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

  /**
   * Connects the host to its links and lets packets flow. Call it when the first policies are in
   * place.
   */
  attach(attachment: HostAttachment): void {
    const { wire, local, inspect, errors, wireMtu } = attachment;
    this.#attachment = attachment;
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
    });
    this.#host = host;
    wire.receive((packets, count) => host.input(packets, count));
    inspect?.receive((packets, count) => host.input(packets, count));
    errors?.receive((packets, count) => host.overhear(packets, count));
    local.receive((packets, count) => host.output(packets, count));
    this.sync();
    this.#tick();
  }

  /**
   * Brings the machine in line with the databases: which packets are diverted to us, and how much
   * room they leave. Called after every request; does nothing when nothing changed that matters.
   */
  sync(): void {
    const attachment = this.#attachment;
    if (!attachment) return;
    const isSettled = this.#diversion.all === this.#discardsByDefault();
    const isSame = this.#policiesSeen === this.spd.generation && isSettled;
    if (isSame && this.#sasSeen === this.sad.generation) return;
    if (!isSame) {
      for (const warning of unreachablePolicies(this.spd)) {
        if (attachment.inspect)
          this.env.log('warn', `${warning}: the kernel never shows us such packets`);
      }
      this.#divert(this.#wanted());
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
  }

  /** Devices or addresses changed: routes follow, and the MTU. */
  refresh(): void {
    const attachment = this.#attachment;
    if (!attachment) return;
    attachment.refresh();
    this.host.mtu = attachment.wireMtu;
    this.#policiesSeen = 0;
    this.sync();
  }

  /**
   * Replaces what the configuration file made by what it says now, in one step. Throws ConfigError,
   * and changes nothing, when any entry is refused. What the old and the new file protect is
   * diverted all the time.
   */
  reload(config: Config): StageResult {
    const staged = stage(this.keys);
    try {
      applyConfig(staged.engine, config);
      const next = this.#diversionOf(staged.engine.context.spd);
      if (this.#attachment) this.#divert(unionOf(this.#diversion, next));
      const result = staged.commit();
      this.sync();
      return result;
    } catch (error) {
      staged.discard();
      throw error;
    }
  }

  /** The end: the machine is as before, and all keys are zeroed. */
  close(): void {
    clearTimeout(this.#timer);
    try {
      this.#attachment?.close();
    } finally {
      this.#attachment = undefined;
      this.sad.flush();
    }
  }

  #applied(): void {
    try {
      this.sync();
      this.#host?.releaseHeld();
    } catch (error) {
      throw new KeyError('EIO', `the machine did not follow: ${String(error)}`);
    }
  }

  #wanted(): Diversion {
    return this.#diversionOf(this.spd);
  }

  #diversionOf(spd: Spd): Diversion {
    return diversionOf(spd, this.#attachment?.addresses() ?? [], this.#discardsByDefault());
  }

  /** Then every packet has to come to us. */
  #discardsByDefault(): boolean {
    const { inet, inet6 } = this.settings;
    return inet.defPolicy === 'discard' || inet6.defPolicy === 'discard';
  }

  #divert(next: Diversion): void {
    if (sameDiversion(next, this.#diversion)) return;
    this.attachment.divert(next);
    this.#diversion = next;
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
    const dueMs = Math.max(1, Math.min(this.host.poll(now) - now, TICK_MS));
    this.#timer = setTimeout(() => {
      try {
        this.sync();
      } catch (error) {
        // What is diverted already still is; the next tick tries again.
        this.env.log('error', `the machine did not follow: ${String(error)}`);
      }
      this.#tick();
    }, dueMs);
  }
}
