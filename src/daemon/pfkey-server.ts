import { createServer, type Server, type Socket } from 'node:net';
import type { Log } from '../base/env.ts';
import type { KeyEngine } from '../key/engine.ts';
import type { Dialect } from '../wire/pfkey-message.ts';
import { isFromOwner } from './owner.ts';
import { PfkeyStream } from './pfkey-stream.ts';
import { listenPrivately } from './private-socket.ts';

const CLIENT_MAX = 64;

export interface PfkeyServerOptions {
  readonly engine: KeyEngine;
  /** Of the Unix socket. */
  readonly path: string;
  readonly log: Log;
  /** Whose numbers programs speak on it; Linux's unless said otherwise. */
  readonly dialect?: Dialect;
  readonly clientMax?: number;
}

/**
 * PF_KEY on a Unix stream socket, where a kernel has socket(PF_KEY, SOCK_RAW, PF_KEY_V2): messages
 * follow each other, each as long as its header says.
 */
export interface PfkeyServer {
  readonly path: string;
  readonly clients: number;
  /** Notices that were dropped because a client did not read, those of closed clients included. */
  readonly droppedNotices: number;
  close(): Promise<void>;
}

/** Throws KeyError when another host is listening there, or when the socket cannot be made. */
export async function startPfkeyServer(options: PfkeyServerOptions): Promise<PfkeyServer> {
  const { engine, path, log, dialect = 'linux', clientMax = CLIENT_MAX } = options;
  const connections = new Map<Socket, PfkeyStream>();
  let droppedBefore = 0;
  // A client may close its sending side and go on reading the answer to its last request.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    if (!isFromOwner(socket)) {
      log('warn', 'PF_KEY: a program of another user was turned away');
      socket.destroy();
      return;
    }
    if (connections.size >= clientMax) {
      log('warn', `PF_KEY: a client was turned away, there are ${clientMax} already`);
      socket.destroy();
      return;
    }
    const connection = new PfkeyStream(socket, engine, dialect, (why) => {
      log('warn', `PF_KEY: a client was disconnected: ${why}`);
    });
    connections.set(socket, connection);
    socket.once('close', () => {
      droppedBefore += connection.droppedNotices;
      connections.delete(socket);
    });
  });
  await listenPrivately(server, path);
  return {
    path,
    get clients() {
      return connections.size;
    },
    get droppedNotices() {
      let sum = droppedBefore;
      for (const connection of connections.values()) sum += connection.droppedNotices;
      return sum;
    },
    close: () => closeAll(server, connections.keys()),
  };
}

function closeAll(server: Server, sockets: Iterable<Socket>): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    for (const socket of sockets) socket.destroy();
  });
}
