import {
  type Cipher,
  createCipheriv,
  createDecipheriv,
  type Decipher,
  type KeyObject,
} from 'node:crypto';
import { assert } from '../base/assert.ts';
import type { TextCipher } from './primitive.ts';

/**
 * CBC by one cipher object for the life of the SA. CBC encrypts a block as E(text xor previous
 * ciphertext), and the first block of a packet wants its IV as "previous". The object's own
 * previous block is the last one of the packet before, which we know: text xor IV xor last, fed to
 * the object, comes out as E(text xor IV). A new object per packet would cost 2 µs.
 */
export class NodeCbc implements TextCipher {
  readonly #name: string;
  readonly #blockLen: number;
  #key: KeyObject | undefined;
  /** Made on first use, since most SAs go one way. */
  #cipher: Cipher | undefined;
  #decipher: Decipher | undefined;
  /** The last block of ciphertext that each object has seen; its IV, zero, before the first. */
  readonly #sealedLast: Uint8Array;
  #openedLast: Uint8Array;
  #openedNext: Uint8Array;

  /** `name` is OpenSSL's, of a cipher in CBC mode with the key's length. */
  constructor(name: string, key: KeyObject, blockLen: number) {
    this.#name = name;
    this.#blockLen = blockLen;
    this.#key = key;
    this.#sealedLast = new Uint8Array(blockLen);
    this.#openedLast = new Uint8Array(blockLen);
    this.#openedNext = new Uint8Array(blockLen);
  }

  encrypt(p: Uint8Array, ivAt: number, at: number, end: number): void {
    assert(this.#fits(at, end), 'CBC text is whole blocks');
    this.#cipher ??= this.#newCipher();
    this.#mixFirst(p, ivAt, at, this.#sealedLast);
    p.set(this.#cipher.update(p.subarray(at, end)), at);
    this.#copyLast(p, end, this.#sealedLast);
  }

  decrypt(p: Uint8Array, ivAt: number, at: number, end: number): void {
    assert(this.#fits(at, end), 'CBC text is whole blocks');
    this.#decipher ??= this.#newDecipher();
    this.#copyLast(p, end, this.#openedNext);
    p.set(this.#decipher.update(p.subarray(at, end)), at);
    this.#mixFirst(p, ivAt, at, this.#openedLast);
    const seen = this.#openedLast;
    this.#openedLast = this.#openedNext;
    this.#openedNext = seen;
  }

  wipe(): void {
    this.#key = undefined;
    this.#cipher = undefined;
    this.#decipher = undefined;
  }

  #fits(at: number, end: number): boolean {
    return end > at && (end - at) % this.#blockLen === 0;
  }

  #mixFirst(p: Uint8Array, ivAt: number, at: number, last: Uint8Array): void {
    for (let i = 0; i < this.#blockLen; i++) p[at + i] = p[at + i]! ^ p[ivAt + i]! ^ last[i]!;
  }

  #copyLast(p: Uint8Array, end: number, to: Uint8Array): void {
    const from = end - this.#blockLen;
    for (let i = 0; i < this.#blockLen; i++) to[i] = p[from + i]!;
  }

  // Without automatic padding an object holds nothing back: blocks in, the same number out.
  #newCipher(): Cipher {
    assert(this.#key !== undefined, 'the cipher was not wiped');
    return createCipheriv(this.#name, this.#key, this.#sealedLast).setAutoPadding(false);
  }

  #newDecipher(): Decipher {
    assert(this.#key !== undefined, 'the cipher was not wiped');
    return createDecipheriv(this.#name, this.#key, this.#openedLast).setAutoPadding(false);
  }
}

/**
 * AES-CTR as RFC 3686 §4 has it: the counter block is nonce (4 octets, from the key), IV (8), and a
 * counter that begins with 1. Encryption and decryption are the same.
 */
export class NodeCtr implements TextCipher {
  readonly #name: string;
  readonly #counter = new Uint8Array(16);
  #key: KeyObject | undefined;

  constructor(name: string, key: KeyObject, nonce: Uint8Array) {
    this.#name = name;
    this.#key = key;
    this.#counter.set(nonce);
    this.#counter[15] = 1;
  }

  encrypt(p: Uint8Array, ivAt: number, at: number, end: number): void {
    assert(this.#key !== undefined, 'the cipher was not wiped');
    for (let i = 0; i < 8; i++) this.#counter[4 + i] = p[ivAt + i]!;
    const cipher = createCipheriv(this.#name, this.#key, this.#counter);
    p.set(cipher.update(p.subarray(at, end)), at);
  }

  decrypt(p: Uint8Array, ivAt: number, at: number, end: number): void {
    this.encrypt(p, ivAt, at, end);
  }

  wipe(): void {
    this.#key = undefined;
    this.#counter.fill(0);
  }
}
