import type { Algorithm } from './algorithms.ts';
import { sameTag, writeTag } from './esp-composite.ts';
import type { Mac, NonceMac } from './primitive.ts';
import type { AhTransform } from './transform.ts';

/** AH by a MAC without nonce: the ICV is the beginning of the MAC. */
export class AhMac implements AhTransform {
  readonly icvLen: number;
  readonly ivLen = 0;
  readonly #mac: Mac;

  constructor(row: Algorithm, mac: Mac) {
    this.icvLen = row.icvLen;
    this.#mac = mac;
  }

  sign(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): void {
    writeTag(this.#mac.compute(p, at, end, seqHigh), this.icvLen, icv, icvAt);
  }

  verify(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): boolean {
    return sameTag(this.#mac.compute(p, at, end, seqHigh), this.icvLen, icv, icvAt);
  }

  wipe(): void {
    this.#mac.wipe();
  }
}

/**
 * AH by AES-GMAC (RFC 4543 §4): the ICV field begins with the 8 octets of IV, and the tag follows.
 */
export class AhGmac implements AhTransform {
  readonly icvLen: number;
  readonly ivLen: number;
  readonly #gmac: NonceMac;
  readonly #nonce = new Uint8Array(12);
  readonly #seqHigh = new Uint8Array(4);

  constructor(row: Algorithm, gmac: NonceMac, salt: Uint8Array) {
    this.ivLen = row.ivLen;
    this.icvLen = row.ivLen + row.icvLen;
    this.#gmac = gmac;
    this.#nonce.set(salt);
  }

  sign(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): void {
    const tag = this.#tag(p, at, end, seqHigh, icv, icvAt);
    writeTag(tag, this.icvLen - this.ivLen, icv, icvAt + this.ivLen);
  }

  verify(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): boolean {
    const tag = this.#tag(p, at, end, seqHigh, icv, icvAt);
    return sameTag(tag, this.icvLen - this.ivLen, icv, icvAt + this.ivLen);
  }

  wipe(): void {
    this.#nonce.fill(0);
    this.#gmac.wipe();
  }

  #tag(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): Uint8Array {
    for (let i = 0; i < 8; i++) this.#nonce[4 + i] = icv[icvAt + i]!;
    for (let i = 0; i < 4; i++) this.#seqHigh[i] = seqHigh >>> (24 - 8 * i);
    const behind = this.#seqHigh.subarray(0, seqHigh === -1 ? 0 : 4);
    return this.#gmac.compute(this.#nonce, p.subarray(at, end), behind);
  }
}
