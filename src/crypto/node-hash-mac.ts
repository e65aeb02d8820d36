import { createHash, createHmac, type Hash, type KeyObject } from 'node:crypto';
import { assert } from '../base/assert.ts';
import type { Mac } from './primitive.ts';

/** HMAC (RFC 2104) by node:crypto. */
export class NodeHmac implements Mac {
  readonly #hash: string;
  readonly #seqHigh = new Uint8Array(4);
  #key: KeyObject | undefined;

  constructor(hash: string, key: KeyObject) {
    this.#hash = hash;
    this.#key = key;
  }

  compute(p: Uint8Array, at: number, end: number, seqHigh: number): Uint8Array {
    assert(this.#key !== undefined, 'the MAC was not wiped');
    const hmac = createHmac(this.#hash, this.#key).update(p.subarray(at, end));
    if (seqHigh !== -1) hmac.update(setSeqHigh(this.#seqHigh, seqHigh));
    return hmac.digest();
  }

  wipe(): void {
    this.#key = undefined;
  }
}

/**
 * Keyed MD5 (RFC 1828) and keyed SHA-1 (RFC 1852): hash(key, keyfill, text, key). The keyfill pads
 * the key to a whole block as the hash itself pads its end: a bit of 1, zeros, and the length of
 * the key in bits.
 */
export class NodeKeyedHash implements Mac {
  readonly #key: Uint8Array;
  readonly #seqHigh = new Uint8Array(4);
  #begun: Hash | undefined;

  /** The key is copied, and shorter than 56 octets. */
  constructor(hash: 'md5' | 'sha1', key: Uint8Array) {
    this.#key = key.slice();
    const block = new Uint8Array(64);
    block.set(key);
    block[key.length] = 0x80;
    // MD5 counts with the low octet first, SHA-1 with the high octet first.
    new DataView(block.buffer).setUint32(hash === 'md5' ? 56 : 60, 8 * key.length, hash === 'md5');
    this.#begun = createHash(hash).update(block);
    block.fill(0);
  }

  compute(p: Uint8Array, at: number, end: number, seqHigh: number): Uint8Array {
    assert(this.#begun !== undefined, 'the MAC was not wiped');
    const hash = this.#begun.copy().update(p.subarray(at, end));
    if (seqHigh !== -1) hash.update(setSeqHigh(this.#seqHigh, seqHigh));
    return hash.update(this.#key).digest();
  }

  wipe(): void {
    this.#key.fill(0);
    this.#begun = undefined;
  }
}

function setSeqHigh(to: Uint8Array, seqHigh: number): Uint8Array {
  for (let i = 0; i < 4; i++) to[i] = seqHigh >>> (24 - 8 * i);
  return to;
}
