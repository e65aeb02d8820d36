import type { Env } from '../base/env.ts';
import { ERRNO } from '../base/errno.ts';
import { KeyError } from '../base/error.ts';
import type { Credentials } from '../drivers/linux/credentials.ts';
import { libc } from '../drivers/linux/libc.ts';
import type { Watch } from '../drivers/linux/poll.ts';
import { listenSeqpacket, type SeqpacketSocket } from '../drivers/linux/seqpacket.ts';
import type { KeyEngine } from '../key/engine.ts';
import { toHex } from '../wire/bytes.ts';
import { encodeAnswer, type Greeting, type Operation, parseGreeting } from './exec-greeting.ts';
import { type ExecSession, ExecSessions } from './exec-sessions.ts';
import { PfkeySeqpacket } from './pfkey-seqpacket.ts';
import type { SocketOptions } from './socket-options.ts';

const CLIENT_MAX = 64;
/** Connections that have not shown a token yet. Anybody can make them; the oldest gives way. */
const STRANGER_MAX = 128;
const EPERM = ERRNO.EPERM;

export interface ExecServerOptions {
  readonly engine: KeyEngine;
  readonly env: Env;
  /** For policies of the programs' own sockets. */
  readonly sockets: SocketOptions;
  /**
   * From now on, ESP in UDP to these ports, which programs have bound, is the host's. Throws
   * KeyError where that cannot be.
   */
  readonly encapsulate: (ports: readonly number[]) => void;
}

/** Serves the programs that run under `testudo exec`; native/testudo_pfkey.c is in each of them. */
export class ExecServer {
  /** The abstract address, without its leading zero. */
  readonly name: string;
  readonly #options: ExecServerOptions;
  readonly #sessions: ExecSessions;
  readonly #listening: Watch;
  readonly #strangers = new Set<SeqpacketSocket>();
  readonly #clients = new Set<PfkeySeqpacket>();
  #isClosed = false;

  /** Throws an Error where there are no such sockets: not Linux, or without koffi. */
  constructor(options: ExecServerOptions) {
    const { env, encapsulate } = options;
    this.#options = options;
    this.#sessions = new ExecSessions(env, (ports) => {
      if (!this.#isClosed) encapsulate(ports);
    });
    const octets = new Uint8Array(8);
    env.random.fill(octets);
    this.name = `testudo-${toHex(octets)}`;
    const c = libc('testudo exec');
    this.#listening = listenSeqpacket(c, this.name, (socket) => this.#connected(socket));
  }

  /** A command begins; `end` must be called when it has ended. Throws KeyError EBUSY. */
  open(): { readonly token: string; readonly end: () => void } {
    const session = this.#sessions.open();
    return { token: toHex(session.token), end: () => this.#sessions.end(session) };
  }

  close(): void {
    this.#isClosed = true;
    this.#listening.close();
    for (const socket of this.#strangers) socket.close();
    for (const client of this.#clients) client.close();
    this.#sessions.close();
  }

  #connected(socket: SeqpacketSocket): void {
    if (this.#strangers.size >= STRANGER_MAX) {
      const [oldest] = this.#strangers;
      // In a crowd it may have said who it is, and we have not looked.
      this.#greeted(oldest!);
      if (this.#strangers.delete(oldest!)) oldest!.close();
    }
    this.#strangers.add(socket);
    socket.listen({ readable: () => this.#greeted(socket), writable: () => undefined });
  }

  #greeted(socket: SeqpacketSocket): void {
    const message = socket.take();
    if (message === undefined) return;
    this.#strangers.delete(socket);
    if (message === 'end') return socket.close();
    const { octets, fds } = message;
    try {
      const greeting = parseGreeting(octets);
      const session = greeting && this.#sessions.find(greeting.token);
      if (!session) {
        this.#options.env.log('warn', 'exec: a program without a valid token was turned away');
        this.#answer(socket, encodeAnswer(EPERM));
      } else if (greeting.operation === 'pfkey') {
        this.#welcome(socket, session);
      } else {
        this.#answer(socket, this.#option(socket, session, greeting, fds));
      }
    } finally {
      octets.fill(0);
      // A copy that we kept would delay the program's own close.
      for (const fd of fds) libc('testudo exec').close(fd);
    }
  }

  #answer(socket: SeqpacketSocket, answer: Uint8Array): void {
    socket.send(answer);
    socket.close();
  }

  #welcome(socket: SeqpacketSocket, session: ExecSession): void {
    if (this.#clients.size >= CLIENT_MAX) {
      this.#options.env.log('warn', `exec: ${CLIENT_MAX} PF_KEY sockets are open already`);
      return this.#answer(socket, encodeAnswer(ERRNO.ENOBUFS));
    }
    this.#sessions.connected(session);
    const client = new PfkeySeqpacket(socket, this.#options.engine, () => {
      this.#clients.delete(client);
      this.#sessions.disconnected(session);
    });
    this.#clients.add(client);
    socket.send(encodeAnswer(0));
  }

  /** What a program asks for, as one system call. */
  #option(
    socket: SeqpacketSocket,
    session: ExecSession,
    greeting: Greeting,
    fds: readonly number[],
  ): Uint8Array {
    const { operation } = greeting;
    try {
      if (operation === 'encapsulate') {
        this.#sessions.addPort(session, greeting.value);
        return encodeAnswer(0);
      }
      const [fd] = fds;
      if (fd === undefined) throw new KeyError('EINVAL', 'no socket came along');
      return encodeAnswer(0, this.#ask(operation, fd, greeting.details, socket.peer));
    } catch (error) {
      const { log } = this.#options.env;
      const isExpected = error instanceof KeyError && operation !== 'encapsulate';
      log(isExpected ? 'info' : 'warn', `exec: ${operation} of a program: ${messageOf(error)}`);
      return encodeAnswer(ERRNO[error instanceof KeyError ? error.errno : 'EIO']);
    }
  }

  #ask(
    operation: Operation,
    fd: number,
    details: Uint8Array,
    asker: Credentials,
  ): Uint8Array | undefined {
    const { sockets } = this.#options;
    switch (operation) {
      case 'set-policy':
        sockets.set(fd, details, asker);
        return undefined;
      case 'get-policy':
        return sockets.get(fd, details);
      case 'moved':
        sockets.moved(fd);
        return undefined;
      case 'status':
        return sockets.status(fd);
      default:
        throw new KeyError('EINVAL', 'it is no question about a socket');
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
