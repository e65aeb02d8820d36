import { type Address, formatAddress } from '../base/address.ts';
import type { Env } from '../base/env.ts';
import { ERRNO } from '../base/errno.ts';
import { KeyError } from '../base/error.ts';
import { LazyCrypto } from '../crypto/lazy.ts';
import type { CryptoProvider } from '../crypto/provider.ts';
import type { Sa } from '../sad/sa.ts';
import type { Sad } from '../sad/sad.ts';
import { SharedValues } from '../sad/shared-values.ts';
import { Slab } from '../sad/slab.ts';
import type { Policy, Request } from '../spd/policy.ts';
import type { Spd } from '../spd/spd.ts';
import { decode, encode } from '../wire/pfkey.ts';
import type { Message, SaType } from '../wire/pfkey-message.ts';
import { AcquireList } from './acquire-list.ts';
import type { KeyClient } from './client.ts';
import type { Answer, Dump, KeyContext } from './context.ts';
import { fromDialect, toDialect } from './dialect.ts';
import {
  acquireEvent,
  expireEvent,
  newMappingEvent,
  policyExpireEvent,
  type Trigger,
} from './events.ts';
import { AUTO_REQID_MIN } from './policy-request.ts';
import { Session, without } from './session.ts';
import { defaultKeySettings, type KeySettings } from './settings.ts';
import { faultOfMessage, KeyStats } from './stats.ts';
import { checkMessage } from './table.ts';

export interface KeyEngineOptions {
  readonly env: Env;
  readonly sad: Sad;
  readonly spd: Spd;
  readonly crypto: CryptoProvider;
  /** Whether algorithms that RFC 8221 forbids may be used. */
  readonly allowLegacy: boolean;
  readonly settings?: KeySettings;
  /**
   * Called before a request takes away what packets may need that have come before it. A key
   * exchange deletes an SA when its peer has sent the last packet by it, and that packet may still
   * wait to be read; on a kernel it does not.
   */
  readonly takesAway?: () => void;
  /**
   * Called when a request has changed the databases, before its reply goes out: what the reply
   * promises must be true by then. Throws KeyError when it cannot be made true.
   */
  readonly applied?: () => void;
  /**
   * Called when replies go out, of several requests at once where they came so: what takes longer
   * for each than for all must be true by then.
   */
  readonly settled?: () => void;
  /** The policies that this engine's will replace; see `stage.ts`. */
  readonly previous?: Spd;
  /** The first reqid to give out by itself. */
  readonly firstReqid?: number;
}

/**
 * How many closed clients' reasons are kept: our tools ask after they have closed their PF_KEY
 * socket.
 */
const CLOSED_MAX = 16;

/**
 * The key management engine: what stands behind PF_KEY sockets (RFC 2367 with KAME's policy
 * messages). Every request gets exactly one reply; a DUMP gets one per entry; an ACQUIRE that
 * reports a failure gets none. It sets no timers: the SAD and the SPD announce what expires through
 * `expired` and `policyExpired`.
 */
export class KeyEngine {
  readonly context: KeyContext;
  readonly stats = new KeyStats();
  readonly #sessions = new Set<Session>();
  readonly #closed: Session[] = [];
  readonly #takesAway: (() => void) | undefined;
  readonly #applied: (() => void) | undefined;
  readonly #settled: (() => void) | undefined;
  #requests = 0;
  #refusals = 0;

  constructor(options: KeyEngineOptions) {
    const settings = options.settings ?? defaultKeySettings();
    const slab = new Slab();
    this.#takesAway = options.takesAway;
    this.#applied = options.applied;
    this.#settled = options.settled;
    this.context = {
      ...options,
      crypto: LazyCrypto.around(options.crypto),
      settings,
      slab,
      shared: new SharedValues(slab),
      acquires: new AcquireList(options.env.clock, settings),
      reqids: { next: options.firstReqid ?? AUTO_REQID_MIN },
    };
  }

  get counters(): KeyCounters {
    return { clients: this.#sessions.size, requests: this.#requests, refusals: this.#refusals };
  }

  /** To be called before replies, or anything that is said of changes, go out to a program. */
  settle(): void {
    this.#settled?.();
  }

  /** A program has opened a PF_KEY socket. */
  connect(client: KeyClient): KeySession {
    const session = new Session(client);
    this.#sessions.add(session);
    return {
      request: (message) => this.#request(session, message),
      refused: (pid, seq, error) => this.#refused(session, pid, seq, error),
      close: () => this.#close(session),
    };
  }

  /** Why a request was refused, if it was and that was not long ago. */
  reasonFor(pid: number, seq: number): string | undefined {
    for (const session of [...[...this.#sessions].reverse(), ...[...this.#closed].reverse()]) {
      const reason = session.reasons.of(pid, seq);
      if (reason !== undefined) return reason;
    }
    return undefined;
  }

  /** For `SadOptions.expired`. */
  expired(sa: Sa, limit: 'soft' | 'hard'): void {
    this.announce(expireEvent(sa, limit));
  }

  /** For `SpdOptions.expired`. */
  policyExpired(policy: Policy): void {
    this.announce(policyExpireEvent(policy));
  }

  /**
   * A packet needs an SA between these addresses. `asked`: registered programs were told now;
   * `waiting`: they were told a short time ago; `nobody`: none is registered.
   */
  acquire(
    policy: Policy,
    request: Request,
    src: Address,
    dst: Address,
    trigger: Trigger,
  ): 'asked' | 'waiting' | 'nobody' {
    const { protocol, mode, reqid } = request;
    // Without listeners no entry is made, so that the first program to register is asked at once.
    if (!this.isNegotiated(protocol)) return 'nobody';
    const key = `${protocol} ${mode} ${reqid} ${formatAddress(src)} ${formatAddress(dst)}`;
    const seq = this.context.acquires.want(key);
    if (seq === undefined) return 'waiting';
    this.announce(acquireEvent(this.context, seq, { policy, request, src, dst }, trigger));
    return 'asked';
  }

  /** Whether a program is registered to negotiate SAs of this protocol. */
  isNegotiated(protocol: Request['protocol']): boolean {
    for (const { registered } of this.#sessions) if (registered.has(protocol)) return true;
    return false;
  }

  /** For the engine's `natMapping`. */
  natMapping(sa: Sa, from: NatEndpoint, to: NatEndpoint): void {
    this.announce(newMappingEvent(sa, from, to));
  }

  /**
   * Tells every client that registered for the SA type; those of policies go to whoever registered
   * for anything.
   */
  announce(message: Message): void {
    this.stats.targets.registered++;
    this.#toOthers(message, 'registered', undefined);
    this.#toPromiscuous(message);
  }

  /** Tells every client of a change. */
  announceToAll(message: Message): void {
    this.stats.targets.all++;
    this.#toOthers(message, 'all', undefined);
    this.#toPromiscuous(message);
  }

  #request(session: Session, received: Message): KeyError | undefined {
    this.#requests++;
    const message = fromDialect(received, session.client.dialect);
    // A program that could not get us an SA (RFC 2367 §3.1.6) is the one case without a reply.
    if (message.type === 'ACQUIRE' && message.errno !== 0) {
      this.context.acquires.restart(message.seq);
      return undefined;
    }
    session.noteRequest(message);
    let answer: Answer;
    try {
      const row = checkMessage(message);
      if (row.takesAway) this.#takesAway?.();
      answer = row.handle(this.context, message, session);
      if (message.wrapped) this.#inject(session, message.wrapped);
      this.#applied?.();
    } catch (error) {
      if (!(error instanceof KeyError)) throw error;
      this.#refused(session, message.pid, message.seq, error);
      this.stats.fault(faultOfMessage(message, error.errno));
      this.stats.targets.one++;
      const reply = replyTo(message, [], ERRNO[error.errno]);
      session.reply(reply);
      this.#toPromiscuous(reply);
      return error;
    }
    if (answer.kind === 'dump') {
      session.client.deliverDump(this.#dumpMessages(session, message, answer.entries));
    } else if (answer.kind === 'reply') {
      const reply = replyTo(message, answer.extensions, 0);
      this.stats.targets[answer.to]++;
      session.reply(reply);
      if (answer.to !== 'one') this.#toOthers(reply, answer.to, session);
      this.#toPromiscuous(reply);
    }
    return undefined;
  }

  #refused(session: Session, pid: number, seq: number, error: KeyError): void {
    this.#refusals++;
    session.noteRefusal(pid, seq, error);
    this.context.env.log('info', `PF_KEY request ${seq} of process ${pid}: ${error.message}`);
  }

  #close(session: Session): void {
    if (!this.#sessions.delete(session)) return;
    this.#closed.push(session);
    if (this.#closed.length > CLOSED_MAX) this.#closed.shift();
  }

  /** X_PROMISC around a message: a program speaks to the other programs (RFC 2367 §3.1.11). */
  #inject(session: Session, octets: Uint8Array): void {
    const { dialect } = session.client;
    const inner = fromDialect(decode(octets, dialect), dialect);
    if (inner.wrapped) throw new KeyError('EINVAL', 'X_PROMISC within X_PROMISC');
    this.#toOthers(withoutKeys(inner), 'all', session);
  }

  /** Counts down to 0, which is how clients know the last one. */
  #dumpMessages(session: Session, request: Message, dump: Dump): Iterator<Message> {
    let seq = dump.length;
    return {
      next: () => {
        const { value } = dump.next();
        if (!value) return { done: true, value: undefined };
        seq--;
        const message: Message = { ...request, errno: 0, seq, ...value };
        this.stats.targets.one++;
        this.#toPromiscuous(message);
        return { done: false, value: toDialect(message, session.client.dialect) };
      },
      return: () => {
        dump.return();
        return { done: true, value: undefined };
      },
    };
  }

  #toOthers(message: Message, to: 'all' | 'registered', except: Session | undefined): void {
    const shown = withoutKeys(message);
    for (const session of this.#sessions) {
      if (session === except) continue;
      if (to === 'registered' && !isRegistered(session, message.satype)) continue;
      session.notify(shown);
    }
  }

  /** A copy of everything that is delivered to anyone, whole in an X_PROMISC message. */
  #toPromiscuous(message: Message): void {
    let shown: Message | undefined;
    for (const session of this.#sessions) {
      if (!session.promiscuous) continue;
      shown ??= withoutKeys(message);
      const copy = wrap(shown, session);
      if (copy) session.notify(copy);
    }
  }
}

export interface KeyCounters {
  readonly clients: number;
  readonly requests: number;
  readonly refusals: number;
}

/** A client's side of the engine. */
export interface KeySession {
  /**
   * Handles one message: what there is to say goes to the client's `deliver`. Returns why it was
   * refused, if it was.
   */
  request(message: Message): KeyError | undefined;
  /** Notes a request that could not even be decoded; the caller answers it. */
  refused(pid: number, seq: number, error: KeyError): void;
  close(): void;
}

export interface NatEndpoint {
  readonly address: Address;
  readonly port: number;
}

function isRegistered(session: Session, satype: SaType): boolean {
  if (satype === 'esp' || satype === 'ah') return session.registered.has(satype);
  return session.registered.size > 0;
}

function replyTo(request: Message, extensions: Message['extensions'], errno: number): Message {
  const { type, satype, seq, pid } = request;
  return { type, errno, satype, seq, pid, reserved: 0, extensions };
}

/** Keys go to who asked for them, and to nobody else. */
function withoutKeys(message: Message): Message {
  return without(message, 'KEY_AUTH', 'KEY_ENCRYPT');
}

/** Undefined for what cannot be said in the listener's dialect. */
function wrap(message: Message, session: Session): Message | undefined {
  const { dialect } = session.client;
  const known = session.knowsTestudo ? message : without(message, 'X_TESTUDO');
  let wrapped: Uint8Array;
  try {
    wrapped = encode(toDialect(known, dialect), dialect);
  } catch (error) {
    if (error instanceof KeyError) return undefined;
    throw error;
  }
  const head = { type: 'X_PROMISC', errno: 0, satype: 'unspec', seq: 0, reserved: 0 } as const;
  return { ...head, pid: message.pid, extensions: [], wrapped };
}
