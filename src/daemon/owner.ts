import type { Socket } from 'node:net';
import { credentialsOf } from '../drivers/linux/credentials.ts';
import { type Libc, libc } from '../drivers/linux/libc.ts';

let known: Libc | 'none' | undefined;

/**
 * Whether the program behind an accepted Unix socket belongs to root, or to the user who runs this
 * host: SO_PEERCRED, which the kernel vouches for, so that a socket whose file somebody has made
 * accessible, or has passed on by another name, lets nobody in all the same. Where the kernel
 * cannot be asked (not Linux, or no koffi), the mode of the file alone decides, and everyone that
 * it lets through passes.
 */
export function isFromOwner(socket: Socket): boolean {
  const uid = uidOf(socket);
  return uid === undefined || uid === 0 || uid === process.geteuid?.();
}

function uidOf(socket: Socket): number | undefined {
  known ??= load();
  if (known === 'none') return undefined;
  // Node has no other way to the descriptor of a socket.
  const { _handle: handle } = socket as { readonly _handle?: { readonly fd?: number } };
  const fd = handle?.fd ?? -1;
  // A socket that has closed by now is nobody's.
  return fd < 0 ? NOBODY : (credentialsOf(known, fd)?.uid ?? NOBODY);
}

/** The overflow user, who owns nothing. */
const NOBODY = 65_534;

function load(): Libc | 'none' {
  try {
    return libc('peer credentials');
  } catch {
    return 'none';
  }
}
