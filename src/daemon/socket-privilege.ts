import { readFileSync, readlinkSync } from 'node:fs';
import type { Credentials } from '../drivers/linux/credentials.ts';

const CAP_NET_ADMIN = 12n;

/**
 * Whether a socket's policy may go around those of the host, which KAME asks when the socket is
 * made: its maker was root, or the user who runs the host and may change everything anyway; or who
 * asks now has CAP_NET_ADMIN.
 */
export function isPrivileged(makerUid: number, asker: Credentials): boolean {
  const isOwner = (uid: number) => uid === 0 || uid === process.getuid?.();
  return isOwner(makerUid) || isOwner(asker.uid) || hasNetAdmin(asker);
}

/** In our own user namespace: in one of its own, everybody has it. */
function hasNetAdmin({ pid, uid }: Credentials): boolean {
  try {
    if (readlinkSync(`/proc/${pid}/ns/user`) !== readlinkSync('/proc/self/ns/user')) return false;
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    // Of another user: the asker has ended, and its number was given out again.
    if (Number(/^Uid:\s*\d+\s+(\d+)/m.exec(status)?.[1]) !== uid) return false;
    const set = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
    return set !== undefined && ((BigInt(`0x${set}`) >> CAP_NET_ADMIN) & 1n) === 1n;
  } catch {
    // It has ended, or is none of our business.
    return false;
  }
}
