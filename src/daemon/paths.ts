import { homedir } from 'node:os';
import { join } from 'node:path';

/**
 * Where the PF_KEY socket of a host is, unless told otherwise: TESTUDO_SOCKET; for root
 * /run/testudo/pfkey; for others $XDG_RUNTIME_DIR/testudo/pfkey, or ~/.testudo/pfkey where there is
 * no such directory.
 */
export function socketPath(environment: Readonly<Record<string, string | undefined>>): string {
  const { TESTUDO_SOCKET, XDG_RUNTIME_DIR } = environment;
  if (TESTUDO_SOCKET) return TESTUDO_SOCKET;
  if (process.getuid?.() === 0) return '/run/testudo/pfkey';
  if (XDG_RUNTIME_DIR) return join(XDG_RUNTIME_DIR, 'testudo', 'pfkey');
  return join(homedir(), '.testudo', 'pfkey');
}

/**
 * The socket beside it for everything that PF_KEY cannot say: one JSON object per line, in both
 * directions.
 */
export function controlPath(socket: string): string {
  return `${socket}.control`;
}

/** Where an attachment writes down what must be undone after a crash. */
export function attachmentStatePath(socket: string): string {
  return `${socket}.attachment.json`;
}

/**
 * Where a host keeps what must outlive it, unless told otherwise: the sequence numbers that are
 * used up. For root /var/lib/testudo; for others $XDG_STATE_HOME/testudo or ~/.local/state/testudo.
 */
export function stateFolder(environment: Readonly<Record<string, string | undefined>>): string {
  if (process.getuid?.() === 0) return '/var/lib/testudo';
  return join(environment.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'testudo');
}
