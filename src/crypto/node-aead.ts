import {
  type CipherCCMTypes,
  type CipherGCMTypes,
  createCipheriv,
  createDecipheriv,
  type KeyObject,
} from 'node:crypto';
import { assert } from '../base/assert.ts';
import type { Aead, NonceMac } from './primitive.ts';

/**
 * AEADs by node:crypto. It has no way to give a cipher object a new nonce, so that there is one
 * object per packet, which is more than half of the time a packet takes. Keys are KeyObjects: since
 * Node 24 a key in octets costs 8 µs a call.
 */
export type NodeAeadName = CipherGCMTypes | CipherCCMTypes | 'chacha20-poly1305';

export class NodeAead implements Aead {
  readonly #name: CipherCCMTypes;
  readonly #options: { readonly authTagLength: number };
  #key: KeyObject | undefined;

  /** `tagLen` in octets. The key fits the name. */
  constructor(name: NodeAeadName, key: KeyObject, tagLen: number) {
    // One set of types for all three: CCM's, which asks for the length of the text; the others
    // ignore it.
    this.#name = name as CipherCCMTypes;
    this.#options = { authTagLength: tagLen };
    this.#key = key;
  }

  seal(nonce: Uint8Array, aad: Uint8Array, p: Uint8Array, at: number, end: number): void {
    assert(this.#key !== undefined, 'the AEAD was not wiped');
    const cipher = createCipheriv(this.#name, this.#key, nonce, this.#options);
    cipher.setAAD(aad, { plaintextLength: end - at });
    p.set(cipher.update(p.subarray(at, end)), at);
    cipher.final();
    p.set(cipher.getAuthTag(), end);
  }

  open(nonce: Uint8Array, aad: Uint8Array, p: Uint8Array, at: number, end: number): boolean {
    assert(this.#key !== undefined, 'the AEAD was not wiped');
    const decipher = createDecipheriv(this.#name, this.#key, nonce, this.#options);
    decipher.setAuthTag(p.subarray(end, end + this.#options.authTagLength));
    decipher.setAAD(aad, { plaintextLength: end - at });
    const text = decipher.update(p.subarray(at, end));
    try {
      decipher.final();
    } catch {
      // Every failure at this point is the tag: the only thing that final() does for an AEAD is to
      // compare it.
      return false;
    }
    p.set(text, at);
    return true;
  }

  wipe(): void {
    this.#key = undefined;
  }
}

/** GMAC: GCM that encrypts nothing. */
export class NodeGmac implements NonceMac {
  readonly #name: CipherGCMTypes;
  #key: KeyObject | undefined;

  constructor(name: CipherGCMTypes, key: KeyObject) {
    this.#name = name;
    this.#key = key;
  }

  compute(nonce: Uint8Array, first: Uint8Array, second: Uint8Array): Uint8Array {
    assert(this.#key !== undefined, 'the MAC was not wiped');
    const cipher = createCipheriv(this.#name, this.#key, nonce);
    cipher.setAAD(first);
    if (second.length > 0) cipher.setAAD(second);
    cipher.final();
    return cipher.getAuthTag();
  }

  wipe(): void {
    this.#key = undefined;
  }
}
