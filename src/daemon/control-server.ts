import { createServer, type Socket } from 'node:net';
import type { Log } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import { LineReader } from './line-reader.ts';
import { isFromOwner } from './owner.ts';
import { listenPrivately } from './private-socket.ts';

/**
 * What our own tools ask a running host, beyond PF_KEY: one JSON object per line each way.
 *
 *   > {"id":1,"cmd":"reason","pid":70,"seq":3}
 *   < {"id":1,"ok":true,"result":"SPI …"}
 *   < {"id":1,"ok":false,"errno":"EINVAL","error":"…"}
 *   < {"id":1,"line":…}              any number of these before the end, from commands that go on
 */

const LINE_LEN_MAX = 65_536;
const CLIENT_MAX = 64;
/** Requests of one client that may be under way; then it is not read from. */
const PENDING_MAX = 16;
/** Octets that may wait for a client before the lines of a command that goes on are dropped. */
const QUEUE_LEN = 1_048_576;

/**
 * The rest of the request, whose fields the handler checks. Throws or rejects with KeyError for
 * what is wrong.
 */
export type ControlHandler = (args: ControlArgs, stream: ControlStream) => unknown;
export type ControlArgs = Readonly<Record<string, unknown>>;

/** For commands that go on, such as a monitor. */
export interface ControlStream {
  /**
   * Sends a line before the result; false when it was dropped, because the client does not read.
   */
  send(line: unknown): boolean;
  /** Aborted when the client is gone, or has closed its sending side. */
  readonly signal: AbortSignal;
}

/** Who may connect may do everything: the socket answers its owner only, as that of PF_KEY. */
export class ControlServer {
  readonly #log: Log;
  readonly #commands = new Map<string, ControlHandler>();
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer({ allowHalfOpen: true }, (socket) => this.#connected(socket));

  constructor(log: Log) {
    this.#log = log;
  }

  /** Says what a command does. */
  command(name: string, handler: ControlHandler): void {
    this.#commands.set(name, handler);
  }

  /** Throws KeyError as `listenPrivately`. */
  listen(path: string): Promise<void> {
    return listenPrivately(this.#server, path);
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      for (const socket of this.#sockets) socket.destroy();
    });
  }

  #connected(socket: Socket): void {
    if (!isFromOwner(socket)) {
      this.#log('warn', 'control: a program of another user was turned away');
      const error = new KeyError('EPERM', 'the host answers root and its owner only');
      // It may not read that: nobody waits for it.
      socket.on('error', () => undefined);
      socket.end(toLine(failure(null, error)), () => socket.destroy());
      return;
    }
    if (this.#sockets.size >= CLIENT_MAX) {
      socket.end(toLine(failure(null, new KeyError('EBUSY', `there are ${CLIENT_MAX} clients`))));
      return;
    }
    this.#sockets.add(socket);
    const gone = new AbortController();
    const reader = new LineReader(LINE_LEN_MAX);
    let pending = 0;
    let hasEnded = false;
    const goOn = () => {
      while (pending < PENDING_MAX) {
        const line = reader.next();
        if (line === undefined) break;
        pending++;
        void this.#answer(socket, line, gone.signal).then(() => {
          pending--;
          goOn();
        });
      }
      if (reader.isTooLong) {
        if (!socket.writableEnded) refuseRest(socket);
      } else if (pending >= PENDING_MAX) socket.pause();
      else if (hasEnded && pending === 0) socket.end();
      else socket.resume();
    };
    socket.on('data', (chunk: Uint8Array) => {
      reader.add(chunk);
      goOn();
    });
    socket.on('end', () => {
      hasEnded = true;
      // On a Unix socket, a client that has gone looks like one that has only nothing more to ask.
      gone.abort();
      goOn();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#sockets.delete(socket);
      gone.abort();
    });
  }

  async #answer(socket: Socket, line: string, signal: AbortSignal): Promise<void> {
    let id: unknown = null;
    try {
      const { cmd, ...args } = parse(line);
      id = args.id ?? null;
      const handler = typeof cmd === 'string' ? this.#commands.get(cmd) : undefined;
      if (!handler) throw new KeyError('ENOSYS', this.#noSuch(cmd));
      const stream: ControlStream = {
        signal,
        send: (value) => {
          return socket.writableLength <= QUEUE_LEN && write(socket, { id, line: value });
        },
      };
      const result: unknown = await handler(args, stream);
      write(socket, { id, ok: true, result: result ?? null });
    } catch (error) {
      if (!(error instanceof KeyError)) {
        this.#log('error', `control: ${error instanceof Error ? error.stack : String(error)}`);
      }
      write(socket, failure(id, error));
    }
  }

  #noSuch(cmd: unknown): string {
    const known = [...this.#commands.keys()].sort().join(', ');
    if (typeof cmd !== 'string') return `"cmd" must be the name of a command: ${known}`;
    return `there is no command "${cmd.slice(0, 64)}"; there are ${known}`;
  }
}

function parse(line: string): { cmd?: unknown } & Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new KeyError('EINVAL', `the line is not JSON: ${why}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new KeyError('EINVAL', 'the line is JSON, but not an object');
  }
  return value as Record<string, unknown>;
}

function failure(id: unknown, error: unknown): object {
  const message = error instanceof Error ? error.message : String(error);
  return { id, ok: false, errno: error instanceof KeyError ? error.errno : 'EIO', error: message };
}

function refuseRest(socket: Socket): void {
  const error = new KeyError('EMSGSIZE', `a line is longer than ${LINE_LEN_MAX} octets`);
  socket.end(toLine(failure(null, error)), () => socket.destroy());
}

function write(socket: Socket, value: object): boolean {
  if (socket.destroyed || socket.writableEnded) return false;
  socket.write(toLine(value));
  return true;
}

function toLine(value: object): string {
  return `${JSON.stringify(value)}\n`;
}
