import type { Socket } from 'node:net';
import { ERRNO } from '../base/errno.ts';
import { KeyError } from '../base/error.ts';
import type { KeyClient } from '../key/client.ts';
import type { KeyEngine, KeySession } from '../key/engine.ts';
import { decode, decodeHeader, encode, errorReply, messageLength } from '../wire/pfkey.ts';
import type { Dialect, Message } from '../wire/pfkey-message.ts';

/** A longer message is no request of ours, and a client that sends one is not speaking PF_KEY. */
const REQUEST_LEN_MAX = 65_536;
/**
 * Octets that may wait for a client. A dump stops above the first, requests above the second,
 * notices above the third.
 */
const DUMP_QUEUE_LEN = 65_536;
const REPLY_QUEUE_LEN = 262_144;
const NOTICE_QUEUE_LEN = 1_048_576;

/**
 * One program on the PF_KEY socket: octets in, messages to the engine, messages out. A program that
 * does not read is not read from either once its replies pile up, its dumps wait, and notices for
 * it are dropped and counted.
 */
export class PfkeyConnection implements KeyClient {
  readonly origin = 'client';
  readonly dialect: Dialect;
  droppedNotices = 0;

  readonly #socket: Socket;
  readonly #session: KeySession;
  readonly #broken: (why: string) => void;
  #unread: Uint8Array = new Uint8Array(0);
  #dump: Iterator<Message> | undefined;
  #hasEnded = false;

  /** `broken` is told why a connection is given up because of what it sent. */
  constructor(socket: Socket, engine: KeyEngine, dialect: Dialect, broken: (why: string) => void) {
    this.#socket = socket;
    this.dialect = dialect;
    this.#broken = broken;
    this.#session = engine.connect(this);
    socket.on('data', (chunk: Uint8Array) => this.#arrived(chunk));
    socket.on('drain', () => this.#goOn());
    socket.on('end', () => {
      this.#hasEnded = true;
      this.#goOn();
    });
    socket.on('close', () => this.#closed());
    // What a client does to its end is its business; `close` follows.
    socket.on('error', () => undefined);
  }

  deliver(message: Message, kind: 'reply' | 'notice'): void {
    if (this.#socket.destroyed || this.#socket.writableEnded) return;
    if (kind === 'notice' && this.#socket.writableLength > NOTICE_QUEUE_LEN) {
      this.droppedNotices++;
      return;
    }
    const octets = this.#encode(message, kind);
    if (octets) this.#socket.write(octets);
  }

  deliverDump(entries: Iterator<Message>): void {
    // `#goOn`, which has called the engine, sends it.
    this.#dump = entries;
  }

  #arrived(chunk: Uint8Array): void {
    const before = this.#unread;
    this.#unread = new Uint8Array(before.length + chunk.length);
    this.#unread.set(before, 0);
    this.#unread.set(chunk, before.length);
    // There may be keys in it.
    before.fill(0);
    chunk.fill(0);
    this.#goOn();
  }

  /**
   * Does what can be done now: first the rest of a dump, then requests, as long as the client reads
   * what it asked for.
   */
  #goOn(): void {
    if (this.#socket.destroyed) return;
    this.#sendDump();
    while (!this.#mustWait()) {
      const request = this.#nextRequest();
      if (!request) break;
      this.#handle(request);
      request.fill(0);
      this.#sendDump();
    }
    if (this.#mustWait()) this.#socket.pause();
    else if (this.#hasEnded) this.#socket.end();
    else this.#socket.resume();
  }

  #mustWait(): boolean {
    return this.#dump !== undefined || this.#socket.writableLength > REPLY_QUEUE_LEN;
  }

  #sendDump(): void {
    while (this.#dump && this.#socket.writableLength < DUMP_QUEUE_LEN) {
      const next = this.#dump.next();
      if (next.done) this.#dump = undefined;
      else this.deliver(next.value, 'reply');
    }
  }

  /** The octets of one whole message, or undefined while there are not enough, or never will be. */
  #nextRequest(): Uint8Array | undefined {
    let length: number | undefined;
    try {
      length = messageLength(this.#unread);
    } catch (error) {
      if (!(error instanceof KeyError)) throw error;
      this.#giveUp(error.message);
      return undefined;
    }
    if (length === undefined) return undefined;
    if (length > REQUEST_LEN_MAX) {
      this.#giveUp(`a message of ${length} octets, at most ${REQUEST_LEN_MAX} are taken`);
      return undefined;
    }
    if (this.#unread.length < length) return undefined;
    const request = this.#unread.subarray(0, length);
    this.#unread = this.#unread.subarray(length);
    return request;
  }

  #handle(request: Uint8Array): void {
    let message: Message;
    try {
      message = decode(request, this.dialect);
    } catch (error) {
      if (!(error instanceof KeyError)) throw error;
      const { pid, seq } = decodeHeader(request);
      this.#session.refused(pid, seq, error);
      this.#socket.write(errorReply(request, ERRNO[error.errno]));
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
        this.droppedNotices++;
        return undefined;
      }
      this.#session.refused(message.pid, message.seq, error);
      return encode({ ...message, errno: ERRNO[error.errno], extensions: [] }, this.dialect);
    }
  }

  #giveUp(why: string): void {
    this.#broken(why);
    this.#socket.destroy();
  }

  #closed(): void {
    this.#dump?.return?.();
    this.#dump = undefined;
    this.#unread.fill(0);
    this.#session.close();
  }
}
