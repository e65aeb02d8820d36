import { readlinkSync } from 'node:fs';
import { KeyError } from '../base/error.ts';
import type { ControlServer, ControlStream } from './control-server.ts';
import type { Daemon } from './daemon.ts';
import { ExecServer } from './exec-server.ts';

/** What `testudo exec` learns; the session lasts as long as it keeps the request open. */
export interface ExecLine {
  /** The abstract address of the host, for programs in the same network namespace. */
  readonly name: string;
  readonly token: string;
  /** The host's network namespace, as /proc says it. */
  readonly netns: string;
}

/**
 * The commands that let a program in and show its sockets. The socket for programs is opened by the
 * first one: a host that needs none works where there is no koffi. Returns what closes it.
 */
export function addExecCommand(control: ControlServer, daemon: Daemon): () => void {
  let server: ExecServer | undefined;
  control.command('exec', async (_, stream) => {
    if (!daemon.isAttached) throw new KeyError('EAGAIN', 'the host is starting or stopping');
    server ??= openServer(daemon);
    const { name } = server;
    const { token, end } = server.open();
    const line: ExecLine = { name, token, netns: networkNamespace() };
    stream.send(line);
    await aborted(stream);
    end();
  });
  control.command('sockets', () => daemon.socketOptions.list());
  return () => server?.close();
}

export function networkNamespace(): string {
  try {
    return readlinkSync('/proc/self/ns/net');
  } catch {
    return 'unknown';
  }
}

function openServer(daemon: Daemon): ExecServer {
  const { env, keys } = daemon;
  try {
    const encapsulate = (ports: readonly number[]) => daemon.shareEncapsulation(ports);
    return new ExecServer({ engine: keys, env, sockets: daemon.socketOptions, encapsulate });
  } catch (error) {
    throw new KeyError('EOPNOTSUPP', error instanceof Error ? error.message : String(error));
  }
}

function aborted({ signal }: ControlStream): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
