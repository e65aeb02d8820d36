import type { SeqpacketSocket } from '../drivers/linux/seqpacket.ts';
import type { KeyEngine } from '../key/engine.ts';
import { parseGreeting } from './exec-greeting.ts';
import { PfkeyConnection, type PfkeyOutlet } from './pfkey-connection.ts';

/** Requests of one program in one turn of the event loop, so that packets get their turn too. */
const TURN_MAX = 32;
const HEADER_LEN = 16;
/** Bounds of what SO_RCVBUF may say: room for any one answer, and not for everything. */
const BUFFER_LEN_MIN = 16_384;
const BUFFER_LEN_MAX = 16_777_216;

/**
 * A program on a socket of whole messages, with the manners of a kernel: a request is handled, and
 * its answer queued, before it is taken off the socket, for which the program's write waits. What
 * the program does not read stays in the socket up to the size of its receive buffer. Beyond it,
 * notices are dropped; replies are not.
 */
export class PfkeySeqpacket {
  readonly #socket: SeqpacketSocket;
  readonly #outlet: Outlet;
  readonly #connection: PfkeyConnection;
  readonly #closed: () => void;

  /** Takes the socket over, and closes it when the program has; then `closed` is called. */
  constructor(socket: SeqpacketSocket, engine: KeyEngine, closed: () => void) {
    this.#socket = socket;
    this.#closed = closed;
    this.#outlet = new Outlet(
      socket,
      () => this.close(),
      () => this.#goOn(),
      () => engine.settle(),
    );
    this.#connection = new PfkeyConnection(this.#outlet, engine, 'linux');
    socket.listen({ readable: () => this.#readable(), writable: () => this.#writable() });
  }

  close(): void {
    if (this.#socket.isClosed) return;
    this.#socket.close();
    this.#outlet.close();
    this.#connection.close();
    this.#closed();
  }

  #readable(): void {
    const connection = this.#connection;
    for (let i = 0; i < TURN_MAX && !connection.mustWait && !this.#outlet.isClosed; i++) {
      const message = this.#socket.peek();
      if (message === undefined) break;
      if (message === 'end') return this.close();
      // A copy, since the engine sends to other programs meanwhile.
      const request = message.slice();
      message.fill(0);
      this.#handle(request);
      this.#socket.consume();
    }
    this.#socket.reading = !connection.mustWait;
  }

  #handle(request: Uint8Array): void {
    const greeting = parseGreeting(request);
    if (greeting?.operation === 'receive-buffer') {
      const len = Math.min(BUFFER_LEN_MAX, Math.max(BUFFER_LEN_MIN, greeting.value));
      this.#socket.setSendBuffer(len);
    } else if (request.length >= HEADER_LEN) {
      this.#connection.handle(request);
    }
  }

  #writable(): void {
    this.#outlet.flush();
    this.#goOn();
  }

  #goOn(): void {
    this.#connection.goOn();
    this.#socket.reading = !this.#connection.mustWait;
  }
}

/** What waits here does so because the socket is full. */
class Outlet implements PfkeyOutlet {
  /** The socket's own buffer is all that notices get, as with a kernel. */
  readonly noticeQueueLen = 0;
  waiting = 0;
  isClosed = false;
  readonly #socket: SeqpacketSocket;
  readonly #gone: () => void;
  readonly dumped: () => void;
  readonly #settle: () => void;
  readonly #queue: Uint8Array[] = [];

  constructor(socket: SeqpacketSocket, gone: () => void, dumped: () => void, settle: () => void) {
    this.#socket = socket;
    this.#gone = gone;
    this.dumped = dumped;
    this.#settle = settle;
  }

  write(octets: Uint8Array): void {
    if (this.isClosed) return;
    this.#settle();
    this.#queue.push(octets);
    this.waiting += octets.length;
    this.flush();
  }

  flush(): void {
    let result: 'sent' | 'full' | 'gone' = 'sent';
    while (this.#queue.length > 0 && result === 'sent') {
      const octets = this.#queue[0]!;
      result = this.#socket.send(octets);
      if (result !== 'sent') break;
      this.#queue.shift();
      this.waiting -= octets.length;
    }
    if (result === 'gone') this.#abandon();
    else this.#socket.wantsRoom = this.#queue.length > 0;
  }

  close(): void {
    this.isClosed = true;
    this.#queue.length = 0;
    this.waiting = 0;
  }

  #abandon(): void {
    this.close();
    // Not now: whoever writes is in the middle of another program's request.
    setImmediate(this.#gone);
  }
}
