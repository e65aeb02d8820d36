import type { Socket } from 'node:net';
import { KeyError } from '../base/error.ts';
import type { KeyEngine } from '../key/engine.ts';
import type { KeyStats } from '../key/stats.ts';
import { messageLength } from '../wire/pfkey.ts';
import type { Dialect } from '../wire/pfkey-message.ts';
import { PfkeyConnection } from './pfkey-connection.ts';

/** A longer message is no request of ours, and a client that sends one is not speaking PF_KEY. */
const REQUEST_LEN_MAX = 65_536;
const NOTICE_QUEUE_LEN = 1_048_576;
/** Requests of one program in one turn of the event loop, so that packets get their turn too. */
const TURN_MAX = 128;

/** A program on a stream socket: messages follow each other, each as long as its header says. */
export class PfkeyStream {
  readonly #socket: Socket;
  readonly #engine: KeyEngine;
  readonly #connection: PfkeyConnection;
  readonly #stats: KeyStats;
  readonly #broken: (why: string) => void;
  #unread: Uint8Array = new Uint8Array(0);
  #hasEnded = false;
  /** Requests wait for the next turn of the event loop. */
  #isResting = false;
  /** Messages that go out together: a write of its own for each costs more than all else does. */
  #unsent: Uint8Array[] = [];
  #unsentLen = 0;

  /** `broken` is told why a connection is given up because of what it sent. */
  constructor(socket: Socket, engine: KeyEngine, dialect: Dialect, broken: (why: string) => void) {
    this.#socket = socket;
    this.#engine = engine;
    this.#stats = engine.stats;
    this.#broken = broken;
    const waiting = () => socket.writableLength + this.#unsentLen;
    const outlet = {
      noticeQueueLen: NOTICE_QUEUE_LEN,
      get isClosed() {
        return socket.destroyed || socket.writableEnded;
      },
      get waiting() {
        return waiting();
      },
      write: (octets: Uint8Array) => this.#write(octets),
      dumped: () => this.#goOn(),
    };
    this.#connection = new PfkeyConnection(outlet, engine, dialect);
    socket.on('data', (chunk: Uint8Array) => this.#arrived(chunk));
    socket.on('end', () => {
      this.#hasEnded = true;
      this.#goOn();
    });
    socket.on('close', () => this.#closed());
    // What a client does to its end is its business; `close` follows.
    socket.on('error', () => undefined);
  }

  get droppedNotices(): number {
    return this.#connection.droppedNotices;
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
    if (this.#socket.destroyed || this.#socket.writableEnded) return;
    const connection = this.#connection;
    connection.goOn();
    if (!this.#isResting) this.#handleSome();
    this.#flush();
    if (connection.mustWait || this.#isResting) this.#socket.pause();
    else if (this.#hasEnded) this.#socket.end();
    else this.#socket.resume();
  }

  #handleSome(): void {
    for (let i = 0; !this.#connection.mustWait; i++) {
      if (i === TURN_MAX) return this.#rest();
      const request = this.#nextRequest();
      if (!request) return;
      this.#connection.handle(request);
    }
  }

  #rest(): void {
    this.#isResting = true;
    setImmediate(() => {
      this.#isResting = false;
      this.#goOn();
    });
  }

  #write(octets: Uint8Array): void {
    // Also for what is said unasked, out of any other turn of the loop.
    if (this.#unsent.length === 0) queueMicrotask(() => this.#flush());
    this.#unsent.push(octets);
    this.#unsentLen += octets.length;
  }

  #flush(): void {
    if (this.#unsent.length === 0) return;
    this.#engine.settle();
    const octets = Buffer.concat(this.#unsent, this.#unsentLen);
    // There may be keys in it.
    for (const one of this.#unsent) one.fill(0);
    this.#unsent = [];
    this.#unsentLen = 0;
    if (this.#socket.destroyed) return;
    this.#socket.write(octets, () => {
      octets.fill(0);
      this.#goOn();
    });
  }

  /** The octets of one whole message, or undefined while there are not enough, or never will be. */
  #nextRequest(): Uint8Array | undefined {
    let length: number | undefined;
    try {
      length = messageLength(this.#unread);
    } catch (error) {
      if (!(error instanceof KeyError)) throw error;
      this.#stats.fault('tooshort');
      this.#giveUp(error.message);
      return undefined;
    }
    if (length === undefined) return undefined;
    if (length > REQUEST_LEN_MAX) {
      this.#stats.fault('invlen');
      this.#giveUp(`a message of ${length} octets, at most ${REQUEST_LEN_MAX} are taken`);
      return undefined;
    }
    if (this.#unread.length < length) return undefined;
    const request = this.#unread.subarray(0, length);
    this.#unread = this.#unread.subarray(length);
    return request;
  }

  #giveUp(why: string): void {
    this.#broken(why);
    // What came before was good, and is answered.
    this.#flush();
    this.#socket.destroy();
  }

  #closed(): void {
    this.#unread.fill(0);
    this.#flush();
    this.#connection.close();
  }
}
