import { type Cipher, createCipheriv, createSecretKey, type KeyObject } from 'node:crypto';
import { assert } from '../base/assert.ts';
import type { Mac } from './primitive.ts';

const BLOCK_LEN = 16;

/**
 * What is mixed into the last block: one key if the message fills it, the other if it had to be
 * padded.
 */
export interface LastBlockKeys {
  readonly full: Uint8Array;
  readonly padded: Uint8Array;
}

/** AES-XCBC-MAC. */
export function aesXcbc(key: KeyObject): Mac {
  const { chain, ...keys } = xcbcKeys(key);
  const mac = new AesBlockMac(createSecretKey(chain), keys);
  chain.fill(0);
  return mac;
}

/** AES-CMAC with a key of 128, 192 or 256 bits. */
export function aesCmac(key: KeyObject): Mac {
  return new AesBlockMac(key, cmacKeys(key));
}

/**
 * RFC 3566 §4: all three keys are derived from the given one, 128 bits. `chain` is the one that
 * blocks are encrypted with.
 */
export function xcbcKeys(key: KeyObject): LastBlockKeys & { readonly chain: Uint8Array } {
  const derived = new Uint8Array(3 * BLOCK_LEN);
  for (let i = 0; i < derived.length; i++) derived[i] = 1 + Math.floor(i / BLOCK_LEN);
  encryptBlocks(key, derived);
  const keys = {
    chain: derived.slice(0, BLOCK_LEN),
    full: derived.slice(BLOCK_LEN, 2 * BLOCK_LEN),
    padded: derived.slice(2 * BLOCK_LEN),
  };
  derived.fill(0);
  return keys;
}

/** RFC 4493 §2.3, NIST SP 800-38B §6.1: blocks are encrypted with the given key itself. */
export function cmacKeys(key: KeyObject): LastBlockKeys {
  const zero = new Uint8Array(BLOCK_LEN);
  encryptBlocks(key, zero);
  const full = doubled(zero);
  zero.fill(0);
  return { full, padded: doubled(full) };
}

/**
 * CBC-MAC with a masked last block, which is what XCBC and CMAC are. Like NodeCbc it keeps one
 * cipher object, and cancels the block before by mixing it into the first one; so a packet is
 * copied once and takes one call.
 */
class AesBlockMac implements Mac {
  readonly #keys: LastBlockKeys;
  readonly #last = new Uint8Array(BLOCK_LEN);
  #cipher: Cipher | undefined;
  /** The message with its padding. Grows to the longest packet seen. */
  #message = new Uint8Array(2048);

  constructor(key: KeyObject, keys: LastBlockKeys) {
    this.#keys = keys;
    this.#cipher = createCipheriv(aesName(key, 'cbc'), key, this.#last).setAutoPadding(false);
  }

  compute(p: Uint8Array, at: number, end: number, seqHigh: number): Uint8Array {
    assert(this.#cipher !== undefined, 'the MAC was not wiped');
    const paddedLen = this.#prepare(p, at, end, seqHigh);
    const text = this.#cipher.update(this.#message.subarray(0, paddedLen));
    this.#last.set(text.subarray(paddedLen - BLOCK_LEN));
    // The last block is text that everybody knows, xor a key.
    this.#message.fill(0, paddedLen - BLOCK_LEN, paddedLen);
    return this.#last;
  }

  wipe(): void {
    this.#keys.full.fill(0);
    this.#keys.padded.fill(0);
    this.#message.fill(0);
    this.#cipher = undefined;
  }

  /** Lays out the message, pads and masks it; returns its length. */
  #prepare(p: Uint8Array, at: number, end: number, seqHigh: number): number {
    const len = end - at + (seqHigh === -1 ? 0 : 4);
    const paddedLen = Math.max(1, Math.ceil(len / BLOCK_LEN)) * BLOCK_LEN;
    if (paddedLen > this.#message.length) this.#message = new Uint8Array(2 * paddedLen);
    const message = this.#message;
    message.set(p.subarray(at, end));
    if (seqHigh !== -1) {
      for (let i = 0; i < 4; i++) message[len - 4 + i] = seqHigh >>> (24 - 8 * i);
    }
    if (len < paddedLen) {
      message[len] = 0x80;
      message.fill(0, len + 1, paddedLen);
    }
    const mask = len < paddedLen ? this.#keys.padded : this.#keys.full;
    const lastAt = paddedLen - BLOCK_LEN;
    for (let i = 0; i < BLOCK_LEN; i++) {
      message[lastAt + i] = message[lastAt + i]! ^ mask[i]!;
    }
    for (let i = 0; i < BLOCK_LEN; i++) message[i] = message[i]! ^ this.#last[i]!;
    return paddedLen;
  }
}

/** Doubling in GF(2^128) (RFC 4493 §2.3), without a branch on the key's bit. */
function doubled(block: Uint8Array): Uint8Array {
  const twice = new Uint8Array(BLOCK_LEN);
  for (let i = 0; i < BLOCK_LEN; i++) {
    const carry = i + 1 < BLOCK_LEN ? block[i + 1]! >>> 7 : 0;
    twice[i] = (block[i]! << 1) | carry;
  }
  twice[BLOCK_LEN - 1] = twice[BLOCK_LEN - 1]! ^ (0x87 & -(block[0]! >>> 7));
  return twice;
}

function encryptBlocks(key: KeyObject, blocks: Uint8Array): void {
  const cipher = createCipheriv(aesName(key, 'ecb'), key, null).setAutoPadding(false);
  const encrypted = cipher.update(blocks);
  blocks.set(encrypted);
  encrypted.fill(0);
}

function aesName(key: KeyObject, mode: 'cbc' | 'ecb'): string {
  return `aes-${8 * (key.symmetricKeySize ?? 0)}-${mode}`;
}
