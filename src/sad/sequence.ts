import { digest } from '../crypto/digest.ts';
import { toHex } from '../wire/bytes.ts';

/**
 * Who hands out sequence numbers, so that none is used twice under one key: not after a restart,
 * not after a crash, not when the same manual key is added again. Counter IVs (AES-GCM, AES-CTR)
 * are made from them, so this is what keeps nonces apart.
 */
export interface SequenceStore {
  /**
   * The lease for one key; the same material always leads to the same numbers. The material is not
   * kept.
   */
  lease(material: readonly Uint8Array[]): SequenceLease;
}

export interface SequenceLease {
  /** The first number that was never used. */
  readonly start: number;
  /**
   * Makes sure, durably, that numbers below the returned one are never handed out again; at least
   * `needed`. -1: it failed.
   */
  extend(needed: number): number;
  /** An orderly end: numbers from `next` on were not used. */
  release(next: number): void;
}

/** Remembers for the life of the process. */
export function memorySequences(): SequenceStore {
  const used = new Map<string, number>();
  return {
    lease(material) {
      const key = toHex(digest(material));
      return {
        start: used.get(key) ?? 1,
        extend(needed) {
          const limit = needed + 65_536;
          used.set(key, limit);
          return limit;
        },
        release(next) {
          used.set(key, next);
        },
      };
    },
  };
}
