import { connect, type Socket } from 'node:net';
import { ERRNO, type Errno } from '../base/errno.ts';
import { KeyError } from '../base/error.ts';
import { LineReader } from './line-reader.ts';

/** Results are lists of SAs and policies, so they may be long. */
const LINE_LEN_MAX = 268_435_456;
const TIMEOUT_MS = 10_000;

export interface ControlOptions {
  /** How long to wait for each line; 0 is for ever. */
  readonly timeoutMs?: number;
  /** Gets the lines of a command that goes on. */
  readonly onLine?: (line: unknown) => void;
  /** Ends a command that goes on; the promise is then resolved with undefined. */
  readonly signal?: AbortSignal;
}

/**
 * Asks the host whose control socket is at `path`. Rejects with KeyError: what the host says,
 * ENOENT when none is running, EACCES when it is somebody else's, ETIMEDOUT, EIO when it goes away
 * or answers nonsense.
 */
export function request(
  path: string,
  cmd: string,
  args: Readonly<Record<string, unknown>> = {},
  options: ControlOptions = {},
): Promise<unknown> {
  const { timeoutMs = TIMEOUT_MS, onLine, signal } = options;
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    const reader = new LineReader(LINE_LEN_MAX);
    const end = (settle: () => void) => {
      signal?.removeEventListener('abort', abort);
      socket.destroy();
      settle();
    };
    const fail = (errno: Errno, why: string) => end(() => reject(new KeyError(errno, why)));
    const abort = () => end(() => resolve(undefined));
    signal?.addEventListener('abort', abort);
    socket.setTimeout(timeoutMs, () => {
      fail('ETIMEDOUT', `the host on ${path} has not answered "${cmd}" in ${timeoutMs} ms`);
    });
    socket.on('connect', () => socket.write(`${JSON.stringify({ ...args, id: 1, cmd })}\n`));
    socket.on('error', (error: NodeJS.ErrnoException) => fail(...failedSocket(path, error)));
    socket.on('close', () => fail('EIO', goneAway(path)));
    socket.on('data', (chunk: Uint8Array) => {
      reader.add(chunk);
      readAnswers(socket, reader, onLine, (answer) => {
        if (answer instanceof KeyError) fail(answer.errno, answer.message);
        else end(() => resolve(answer));
      });
    });
  });
}

function readAnswers(
  socket: Socket,
  reader: LineReader,
  onLine: ((line: unknown) => void) | undefined,
  done: (answer: unknown) => void,
): void {
  for (let line = reader.next(); line !== undefined; line = reader.next()) {
    const answer = parse(line);
    if (answer && 'line' in answer) {
      onLine?.(answer.line);
      if (socket.destroyed) return;
      continue;
    }
    if (answer?.ok === true) done(answer.result);
    else if (answer?.ok === false) done(errorOf(answer));
    else done(new KeyError('EIO', `the host answered what is no answer: ${line.slice(0, 80)}`));
    return;
  }
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

function errorOf({ errno, error }: Record<string, unknown>): KeyError {
  const name = typeof errno === 'string' && errno in ERRNO ? (errno as Errno) : 'EIO';
  return new KeyError(name, typeof error === 'string' ? error : 'the host gave no reason');
}

function failedSocket(path: string, error: NodeJS.ErrnoException): [Errno, string] {
  if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') {
    return ['ENOENT', `no host is listening on ${path}: start one with "testudo up"`];
  }
  if (error.code === 'EACCES' || error.code === 'EPERM') {
    return ['EACCES', `the host on ${path} belongs to another user`];
  }
  if (error.code === 'EPIPE' || error.code === 'ECONNRESET') return ['EIO', goneAway(path)];
  return ['EIO', `the host on ${path}: ${error.message}`];
}

function goneAway(path: string): string {
  return `the host on ${path} has gone away`;
}
