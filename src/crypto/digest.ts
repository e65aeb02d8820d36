import { createHash } from 'node:crypto';

/**
 * SHA-256 over the parts, each (below 64 KiB) preceded by its length, so that no two lists have the
 * same text.
 */
export function digest(parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash('sha256');
  for (const part of parts) {
    hash.update(Uint8Array.of(part.length >> 8, part.length));
    hash.update(part);
  }
  return new Uint8Array(hash.digest());
}
