import { timingSafeEqual } from 'node:crypto';
import type { Algorithm } from './algorithms.ts';
import type { Mac, TextCipher } from './primitive.ts';
import type { EspTransform } from './transform.ts';

/** A cipher with its row, or a MAC with its row. */
export interface Keyed<Primitive> {
  readonly row: Algorithm;
  readonly by: Primitive;
}

/**
 * ESP by a cipher and a MAC, one of which may be missing. Encrypt, then MAC (RFC 4303 §3.3.2): the
 * ICV covers header, IV and ciphertext, and the high half of an extended sequence number behind
 * them (§2.2.1).
 */
export class EspComposite implements EspTransform {
  readonly ivLen: number;
  readonly icvLen: number;
  readonly alignLen: number;
  readonly iv: EspTransform['iv'];
  readonly authenticates: boolean;
  readonly #cipher: TextCipher | undefined;
  readonly #mac: Mac | undefined;

  constructor(cipher: Keyed<TextCipher> | undefined, mac: Keyed<Mac> | undefined) {
    this.ivLen = cipher?.row.ivLen ?? 0;
    this.icvLen = mac?.row.icvLen ?? 0;
    this.alignLen = Math.max(4, cipher?.row.blockLen ?? 1);
    this.iv = cipher?.row.iv ?? 'none';
    this.authenticates = mac !== undefined;
    this.#cipher = cipher?.by;
    this.#mac = mac?.by;
  }

  seal(p: Uint8Array, at: number, end: number, seqHigh: number): void {
    this.#cipher?.encrypt(p, at + 8, at + 8 + this.ivLen, end);
    if (this.#mac) writeTag(this.#mac.compute(p, at, end, seqHigh), this.icvLen, p, end);
  }

  open(p: Uint8Array, at: number, end: number, seqHigh: number): boolean {
    const icvAt = end - this.icvLen;
    // First the ICV: what a stranger wrote is not decrypted, so that nothing can be learned from
    // what happens then.
    if (this.#mac) {
      const tag = this.#mac.compute(p, at, icvAt, seqHigh);
      if (!sameTag(tag, this.icvLen, p, icvAt)) return false;
    }
    this.#cipher?.decrypt(p, at + 8, at + 8 + this.ivLen, icvAt);
    return true;
  }

  wipe(): void {
    this.#cipher?.wipe();
    this.#mac?.wipe();
  }
}

/** Writes the first `len` octets of a MAC. */
export function writeTag(tag: Uint8Array, len: number, p: Uint8Array, at: number): void {
  for (let i = 0; i < len; i++) p[at + i] = tag[i]!;
}

/** Whether the first `len` octets of a MAC stand at `at`; in constant time. */
export function sameTag(tag: Uint8Array, len: number, p: Uint8Array, at: number): boolean {
  return timingSafeEqual(tag.subarray(0, len), p.subarray(at, at + len));
}
