import { timingSafeEqual } from 'node:crypto';
import type { Algorithm } from './algorithms.ts';
import type { Aead, NonceMac } from './primitive.ts';
import type { EspTransform } from './transform.ts';

/**
 * ESP by AES-GCM (RFC 4106), AES-CCM (RFC 4309) and ChaCha20-Poly1305 (RFC 7634), which agree on
 * everything here:
 *
 *   nonce   salt (4 octets; CCM: 3) | IV (8)
 *   AAD     SPI (4) | sequence number (4, or 8 if extended)
 */
export class EspAead implements EspTransform {
  readonly ivLen = 8;
  readonly icvLen: number;
  readonly alignLen = 4;
  readonly iv = 'unique';
  readonly authenticates = true;
  readonly #aead: Aead;
  readonly #nonce: Uint8Array;
  readonly #saltLen: number;
  readonly #aadExtended = new Uint8Array(12);

  constructor(row: Algorithm, aead: Aead, salt: Uint8Array) {
    this.icvLen = row.icvLen;
    this.#aead = aead;
    this.#saltLen = salt.length;
    this.#nonce = new Uint8Array(salt.length + 8);
    this.#nonce.set(salt);
  }

  seal(p: Uint8Array, at: number, end: number, seqHigh: number): void {
    setIv(this.#nonce, this.#saltLen, p, at + 8);
    this.#aead.seal(this.#nonce, this.#aad(p, at, seqHigh), p, at + 16, end);
  }

  open(p: Uint8Array, at: number, end: number, seqHigh: number): boolean {
    setIv(this.#nonce, this.#saltLen, p, at + 8);
    return this.#aead.open(this.#nonce, this.#aad(p, at, seqHigh), p, at + 16, end - this.icvLen);
  }

  wipe(): void {
    this.#nonce.fill(0);
    this.#aead.wipe();
  }

  #aad(p: Uint8Array, at: number, seqHigh: number): Uint8Array {
    if (seqHigh === -1) return p.subarray(at, at + 8);
    setExtendedHeader(this.#aadExtended, p, at, seqHigh);
    return this.#aadExtended;
  }
}

/**
 * ESP by AES-GMAC (RFC 4543 §3): the text is not encrypted; all of it is associated data of GCM,
 * behind the header and the IV.
 */
export class EspGmac implements EspTransform {
  readonly ivLen = 8;
  readonly icvLen: number;
  readonly alignLen = 4;
  readonly iv = 'unique';
  readonly authenticates = true;
  readonly #gmac: NonceMac;
  readonly #nonce = new Uint8Array(12);
  readonly #headExtended = new Uint8Array(12);

  constructor(row: Algorithm, gmac: NonceMac, salt: Uint8Array) {
    this.icvLen = row.icvLen;
    this.#gmac = gmac;
    this.#nonce.set(salt);
  }

  seal(p: Uint8Array, at: number, end: number, seqHigh: number): void {
    p.set(this.#tag(p, at, end, seqHigh), end);
  }

  open(p: Uint8Array, at: number, end: number, seqHigh: number): boolean {
    const icvAt = end - this.icvLen;
    return timingSafeEqual(this.#tag(p, at, icvAt, seqHigh), p.subarray(icvAt, end));
  }

  wipe(): void {
    this.#nonce.fill(0);
    this.#gmac.wipe();
  }

  #tag(p: Uint8Array, at: number, end: number, seqHigh: number): Uint8Array {
    setIv(this.#nonce, 4, p, at + 8);
    let head = p.subarray(at, at + 8);
    if (seqHigh !== -1) {
      setExtendedHeader(this.#headExtended, p, at, seqHigh);
      head = this.#headExtended;
    }
    return this.#gmac.compute(this.#nonce, head, p.subarray(at + 8, end));
  }
}

function setIv(nonce: Uint8Array, saltLen: number, p: Uint8Array, ivAt: number): void {
  for (let i = 0; i < 8; i++) nonce[saltLen + i] = p[ivAt + i]!;
}

/** SPI | high half | low half of the sequence number (RFC 4106 §5). */
function setExtendedHeader(to: Uint8Array, p: Uint8Array, at: number, seqHigh: number): void {
  for (let i = 0; i < 4; i++) {
    to[i] = p[at + i]!;
    to[4 + i] = seqHigh >>> (24 - 8 * i);
    to[8 + i] = p[at + 4 + i]!;
  }
}
