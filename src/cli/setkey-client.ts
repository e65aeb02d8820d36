import { createConnection, type Socket } from 'node:net';
import { KeyError } from '../base/error.ts';
import { decode, encode, messageLength } from '../wire/pfkey.ts';
import type { Message } from '../wire/pfkey-message.ts';

/**
 * How long a host may take for one message. It answers in milliseconds; a longer silence means that
 * it is stuck.
 */
const ANSWER_MS = 10_000;

/**
 * So many messages are kept for a slow terminal; then the host has to wait, as it does for every
 * slow reader.
 */
const PENDING_MAX = 1000;

/** Sees every message, as octets, in both directions. */
export type Observer = (direction: 'sent' | 'received', octets: Uint8Array) => void;

/**
 * PF_KEY over the stream socket of a host, in the linux dialect. Messages are framed by their own
 * length.
 */
export class PfkeyClient {
  readonly #socket: Socket;
  readonly #pid: number;
  readonly #observe: Observer;
  readonly #pending: Uint8Array[] = [];
  #rest: Uint8Array = new Uint8Array(0);
  #wake: (() => void) | undefined;
  #failure: Error | undefined;

  private constructor(socket: Socket, pid: number, observe: Observer) {
    this.#socket = socket;
    this.#pid = pid;
    this.#observe = observe;
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('the host closed the connection')));
  }

  /** Connects; throws Error in words when nobody listens at `path`. */
  static async connect(path: string, pid: number, observe: Observer): Promise<PfkeyClient> {
    const socket = createConnection(path);
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve);
        socket.once('error', reject);
      });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EACCES') throw new Error(`no permission for the socket ${path}`);
      throw new Error(`no host is listening on ${path}: start one with "testudo up"`);
    }
    socket.removeAllListeners('error');
    return new PfkeyClient(socket, pid, observe);
  }

  send(message: Message): void {
    const octets = encode({ ...message, pid: this.#pid }, 'linux');
    this.#observe('sent', octets);
    this.#socket.write(octets);
  }

  /** Sends a request and returns its one answer, whatever its errno. */
  async request(message: Message): Promise<Message> {
    this.send(message);
    return await this.#answer(message.type);
  }

  /**
   * Sends a DUMP and yields its answers up to the one with sequence number 0, or the one with an
   * errno.
   */
  async *dump(message: Message): AsyncGenerator<Message> {
    this.send(message);
    for (;;) {
      const answer = await this.#answer(message.type);
      yield answer;
      if (answer.seq === 0 || answer.errno !== 0) return;
    }
  }

  /** Every message, for ever. */
  async *messages(): AsyncGenerator<Uint8Array> {
    for (;;) yield await this.#next(undefined);
  }

  close(): void {
    this.#socket.removeAllListeners('close');
    this.#socket.destroy();
  }

  /** The next answer to us; what others asked and what the host announces passes by. */
  async #answer(type: Message['type']): Promise<Message> {
    for (;;) {
      const octets = await this.#next(ANSWER_MS);
      const message = tryDecode(octets);
      if (message && message.type === type && message.pid === this.#pid) return message;
    }
  }

  async #next(timeoutMs: number | undefined): Promise<Uint8Array> {
    for (;;) {
      const octets = this.#pending.shift();
      if (octets) return octets;
      if (this.#failure) throw this.#failure;
      this.#socket.resume();
      await this.#arrival(timeoutMs);
    }
  }

  #arrival(timeoutMs: number | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer =
        timeoutMs === undefined
          ? undefined
          : setTimeout(() => {
              this.#wake = undefined;
              reject(new Error(`the host did not answer within ${timeoutMs / 1000} seconds`));
            }, timeoutMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #receive(chunk: Uint8Array): void {
    let data = chunk;
    if (this.#rest.length > 0) {
      data = new Uint8Array(this.#rest.length + chunk.length);
      data.set(this.#rest);
      data.set(chunk, this.#rest.length);
    }
    let at = 0;
    try {
      for (let len = messageLength(data, at); len !== undefined && at + len <= data.length; ) {
        const octets = data.slice(at, at + len);
        this.#observe('received', octets);
        this.#pending.push(octets);
        at += len;
        len = messageLength(data, at);
      }
    } catch (error) {
      return this.#fail(error as Error);
    }
    this.#rest = data.slice(at);
    if (this.#pending.length > PENDING_MAX) this.#socket.pause();
    this.#wakeUp();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#socket.destroy();
    this.#wakeUp();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

/** Messages that we do not know are for others: skipped, not fatal. */
export function tryDecode(octets: Uint8Array): Message | undefined {
  try {
    return decode(octets, 'linux');
  } catch (error) {
    if (error instanceof KeyError) return undefined;
    throw error;
  }
}
