import { createSecretKey } from 'node:crypto';
import { assert } from '../../base/assert.ts';
import type { Algorithm } from '../../crypto/algorithms.ts';
import { cmacKeys, xcbcKeys } from '../../crypto/node-block-mac.ts';
import { openSslCipher } from '../../crypto/node-provider.ts';
import type { NativeContext } from './contexts.ts';
import type { IpsecMb } from './ipsec-mb.ts';
import * as layout from './layout.ts';
import { type NativeBlock, nativeBlock } from './memory.ts';
import { CTRL_SET_IV_LEN, CTRL_SET_TAG, HASHES, type OpenSsl } from './openssl.ts';
import type { CipherPlan, MacPlan } from './plans.ts';

const { CONTEXT } = layout;

const CCM_NONCE_LEN = 11;
/** No other cipher has one of that length. */
const DES_KEY_LEN = 8;
/** A key, or a block of a hash. */
const ROOM = 256;

/** Puts keys into contexts, in the forms that native code wants, and takes them out again. */
export class Keying {
  readonly #openSsl: OpenSsl;
  readonly #imb: IpsecMb | undefined;
  /** For what native code reads keys from; zero but during a call. */
  readonly #room: NativeBlock;

  constructor(openSsl: OpenSsl, imb: IpsecMb | undefined) {
    this.#openSsl = openSsl;
    this.#imb = imb;
    this.#room = nativeBlock(openSsl.koffi, ROOM);
  }

  /** `octets`: key and salt. `byImb`: intel-ipsec-mb does it, as far as the plan says it can. */
  setCipher(
    context: NativeContext,
    row: Algorithm,
    plan: CipherPlan,
    octets: Uint8Array,
    byImb: boolean,
  ): void {
    const key = octets.subarray(0, octets.length - row.saltLen);
    context.cipher = plan.kind;
    context.ivLen = row.ivLen;
    context.saltLen = row.saltLen;
    context.keyLen = key.length;
    context.blockLen = row.blockLen;
    if (row.icvLen > 0) context.icvLen = row.icvLen;
    context.bytes.set(octets.subarray(key.length), CONTEXT.salt);
    context.imbCipher = byImb ? plan.imb : layout.IMB_NONE;
    context.imbCipherMin = plan.imbMin;
    if (context.imbCipher !== layout.IMB_NONE) this.#setSchedule(context, key);
    // GCM and GMAC leave nothing to OpenSSL; other ciphers leave it what is too long for a job.
    if (context.imbCipher !== layout.IMB_GCM) this.#setOpenSsl(context, row, key);
  }

  /** As `setCipher`. */
  setMac(
    context: NativeContext,
    row: Algorithm,
    plan: MacPlan,
    octets: Uint8Array,
    byImb: boolean,
  ): void {
    context.mac = plan.kind;
    context.icvLen = row.icvLen;
    context.imbMac = byImb ? plan.imb : 0;
    context.imbMacMin = plan.imbMin;
    if (plan.hash === undefined) {
      this.#setBlockMac(context, row, octets);
      return;
    }
    context.hash = HASHES.indexOf(plan.hash);
    this.#setHmac(context, CONTEXT.inner, octets, 0x36);
    this.#setHmac(context, CONTEXT.outer, octets, 0x5c);
  }

  /** Frees what the context points to; OpenSSL zeroes its keys. */
  free(context: NativeContext): void {
    const { sealing, opening, chaining } = context;
    for (const ctx of new Set([sealing, opening, chaining])) {
      if (ctx !== 0) this.#openSsl.freeContext(ctx);
    }
    context.sealing = 0;
    context.opening = 0;
    context.chaining = 0;
  }

  #setSchedule(context: NativeContext, key: Uint8Array): void {
    const imb = this.#imb!;
    const schedule = context.address + CONTEXT.schedule;
    const size = key.length / 8 - 2;
    if (context.imbCipher === layout.IMB_CHACHA) {
      context.bytes.set(key, CONTEXT.schedule);
    } else if (context.imbCipher === layout.IMB_GCM) {
      this.#lend(key, (at) => imb.gcm[size]!.prepare(at, schedule));
    } else {
      const decryption = schedule + layout.DECRYPTION_AT;
      this.#lend(key, (at) => imb.expandKey[size]!(at, schedule, decryption));
    }
  }

  #setOpenSsl(context: NativeContext, row: Algorithm, key: Uint8Array): void {
    const name = openSslCipher(row, 8 * key.length)?.name;
    assert(name !== undefined, 'OpenSSL has a name for what it does');
    // CBC needs another schedule for decryption; CCM remembers in which direction it went.
    const isTwo = context.cipher === layout.CIPHER_CBC || context.cipher === layout.CIPHER_CCM;
    context.sealing = this.#keyed(name, key, context, 1);
    context.opening = isTwo ? this.#keyed(name, key, context, 0) : context.sealing;
  }

  #keyed(name: string, key: Uint8Array, context: NativeContext, encrypt: 0 | 1): number {
    const openSsl = this.#openSsl;
    const cipher = openSsl.cipherByName(name);
    assert(cipher !== 0, 'OpenSSL has the cipher that it offers to node:crypto');
    const ctx = openSsl.newContext();
    assert(ctx !== 0, 'OpenSSL has memory');
    let worked = openSsl.cipherInit(ctx, cipher, 0, 0, 0, encrypt) === 1;
    if (context.cipher === layout.CIPHER_CCM) {
      worked &&= openSsl.cipherCtrl(ctx, CTRL_SET_IV_LEN, CCM_NONCE_LEN, 0) === 1;
      worked &&= openSsl.cipherCtrl(ctx, CTRL_SET_TAG, context.icvLen, 0) === 1;
    }
    this.#lend(key, (at) => {
      this.#tripleDes(key.length);
      worked &&= openSsl.cipherInit(ctx, 0, 0, at, 0, encrypt) === 1;
    });
    openSsl.setPadding(ctx, 0);
    if (!worked) openSsl.freeContext(ctx);
    assert(worked, 'OpenSSL takes a key of the right length');
    return ctx;
  }

  /** DES is 3DES with three times the same key (node-provider.ts). */
  #tripleDes(len: number): void {
    if (len !== DES_KEY_LEN) return;
    this.#room.bytes.copyWithin(DES_KEY_LEN, 0, DES_KEY_LEN);
    this.#room.bytes.copyWithin(2 * DES_KEY_LEN, 0, DES_KEY_LEN);
  }

  /** The hash after the first block, the key xor `pad` (RFC 2104). */
  #setHmac(context: NativeContext, at: number, key: Uint8Array, pad: number): void {
    const { init, update, blockLen } = this.#openSsl.hashes[HASHES[context.hash]!];
    assert(key.length <= blockLen, 'keys for HMAC are no longer than a block');
    const state = context.address + at;
    this.#lend(key, (from) => {
      const { bytes } = this.#room;
      for (let i = 0; i < blockLen; i++) bytes[i] = bytes[i]! ^ pad;
      const isFed = init(state) === 1 && update(state, from, blockLen) === 1;
      assert(isFed, 'OpenSSL hashes a block');
    });
  }

  #setBlockMac(context: NativeContext, row: Algorithm, octets: Uint8Array): void {
    const key = createSecretKey(octets);
    const isXcbc = row.name === 'aes-xcbc-mac';
    const { chain, full, padded } = isXcbc
      ? xcbcKeys(key)
      : { chain: octets.slice(), ...cmacKeys(key) };
    context.bytes.set(full, CONTEXT.outer);
    context.bytes.set(padded, CONTEXT.outer + layout.BLOCK_LEN);
    if (context.imbMac !== 0) {
      const inner = context.address + CONTEXT.inner;
      // Round keys for decryption are not needed: they go where they do no harm.
      this.#lend(chain, (at) => this.#imb!.expandKey[0]!(at, inner, this.#room.address + 16));
    }
    context.chaining = this.#keyed(`aes-${8 * chain.length}-cbc`, chain, context, 1);
    for (const secret of [chain, full, padded]) secret.fill(0);
  }

  /** Secrets are not copied into small arrays, which leave traces where V8 moves them from. */
  #lend(secret: Uint8Array, use: (address: number) => void): void {
    this.#room.bytes.set(secret);
    try {
      use(this.#room.address);
    } finally {
      this.#room.bytes.fill(0);
    }
  }
}
