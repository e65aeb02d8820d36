import { ERRNO } from '../base/errno.ts';
import { KeyError } from '../base/error.ts';
import type { KeyClient } from '../key/client.ts';
import type { KeyEngine, KeySession } from '../key/engine.ts';
import { faultOfOctets, type KeyStats } from '../key/stats.ts';
import { decode, decodeHeader, encode, errorReply } from '../wire/pfkey.ts';
import type { Dialect, Message } from '../wire/pfkey-message.ts';
import { DumpTurns } from './dump-turns.ts';

/** Octets that may wait for a program. A dump stops above the first, requests above the second. */
const DUMP_QUEUE_LEN = 65_536;
/** Entries of a dump in one turn, about a millisecond: smaller writes cost half as much again. */
const SLICE_MAX = 256;
const REPLY_QUEUE_LEN = 262_144;

/** Of all programs, since they share one event loop. */
const DUMPS = new DumpTurns();

/** The way to a program: what is written arrives whole and in order, unless the program ends. */
export interface PfkeyOutlet {
  readonly isClosed: boolean;
  /** Octets that wait here because the program has not read what came before. */
  readonly waiting: number;
  /** While more octets wait, notices are dropped. */
  readonly noticeQueueLen: number;
  write(octets: Uint8Array): void;
  /** A part of a dump was written, out of any other turn. */
  dumped(): void;
}

/**
 * One program on a PF_KEY socket of any kind: whole requests in, messages to the engine, messages
 * out. A program that does not read is not to be read from either once its replies pile up, its
 * dumps wait, and notices for it are dropped and counted.
 */
export class PfkeyConnection implements KeyClient {
  readonly origin = 'client';
  readonly dialect: Dialect;
  droppedNotices = 0;

  readonly #outlet: PfkeyOutlet;
  readonly #session: KeySession;
  readonly #stats: KeyStats;
  #dump: Iterator<Message> | undefined;

  constructor(outlet: PfkeyOutlet, engine: KeyEngine, dialect: Dialect) {
    this.#outlet = outlet;
    this.dialect = dialect;
    this.#stats = engine.stats;
    this.#session = engine.connect(this);
  }

  /** Whether the program has to read before its next request is handled. */
  get mustWait(): boolean {
    return this.#dump !== undefined || this.#outlet.waiting > REPLY_QUEUE_LEN;
  }

  deliver(message: Message, kind: 'reply' | 'notice'): void {
    if (this.#outlet.isClosed) return;
    if (kind === 'notice' && this.#outlet.waiting > this.#outlet.noticeQueueLen) {
      this.#drop();
      return;
    }
    const octets = this.#encode(message, kind);
    if (octets) this.#write(octets);
  }

  deliverDump(entries: Iterator<Message>): void {
    // `handle`, which has called the engine, sends it.
    this.#dump = entries;
  }

  /** Sends more of a dump when it is its turn, as much as there is room for. */
  goOn(): void {
    if (this.#hasRoom) DUMPS.wait(this.#sendSlice);
  }

  /** Handles one whole message, and wipes it, since there may be keys in it. */
  handle(request: Uint8Array): void {
    this.#answer(request);
    request.fill(0);
    // As on a kernel, there is an answer when the program has written its request.
    this.#sendEntries();
    this.goOn();
  }

  close(): void {
    DUMPS.forget(this.#sendSlice);
    this.#dump?.return?.();
    this.#dump = undefined;
    this.#session.close();
  }

  get #hasRoom(): boolean {
    const { isClosed, waiting } = this.#outlet;
    return this.#dump !== undefined && !isClosed && waiting < DUMP_QUEUE_LEN;
  }

  readonly #sendSlice = (): void => {
    this.#sendEntries();
    this.#outlet.dumped();
  };

  #sendEntries(): void {
    for (let i = 0; i < SLICE_MAX && this.#hasRoom; i++) {
      const next = this.#dump!.next();
      if (next.done) this.#dump = undefined;
      else this.deliver(next.value, 'reply');
    }
  }

  #write(octets: Uint8Array): void {
    this.#stats.sent(octets);
    this.#outlet.write(octets);
  }

  #drop(): void {
    this.droppedNotices++;
    this.#stats.inNoMemory++;
  }

  #answer(request: Uint8Array): void {
    let message: Message;
    this.#stats.received(request);
    try {
      message = decode(request, this.dialect);
    } catch (error) {
      if (!(error instanceof KeyError)) throw error;
      const { pid, seq } = decodeHeader(request);
      this.#session.refused(pid, seq, error);
      this.#stats.fault(faultOfOctets(request, this.dialect));
      this.#stats.targets.one++;
      this.#write(errorReply(request, ERRNO[error.errno]));
      return;
    }
    this.#session.request(message);
    for (const one of message.extensions) {
      if (one.type === 'KEY_AUTH' || one.type === 'KEY_ENCRYPT') one.key.fill(0);
    }
  }

  /**
   * What the dialect cannot say, such as a reqid of 32 bits on BSD, is an error to the asker and
   * nothing to others.
   */
  #encode(message: Message, kind: 'reply' | 'notice'): Uint8Array | undefined {
    try {
      return encode(message, this.dialect);
    } catch (error) {
      if (!(error instanceof KeyError)) throw error;
      if (kind === 'notice') {
        this.#drop();
        return undefined;
      }
      this.#session.refused(message.pid, message.seq, error);
      return encode({ ...message, errno: ERRNO[error.errno], extensions: [] }, this.dialect);
    }
  }
}
