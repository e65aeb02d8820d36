/**
 * What a provider implements; the ESP and AH shapes around it (esp-aead.ts, esp-composite.ts,
 * ah-mac.ts) are the same for all. Each object holds one key and works on the octets that it is
 * given; whoever calls has checked all lengths.
 */

/** A cipher that keeps the length of the text. */
export interface TextCipher {
  /** Encrypts octets `at` to `end` in place, with the IV that stands at `ivAt`. */
  encrypt(p: Uint8Array, ivAt: number, at: number, end: number): void;
  decrypt(p: Uint8Array, ivAt: number, at: number, end: number): void;
  wipe(): void;
}

/** Authenticated encryption with associated data (RFC 5116). */
export interface Aead {
  /** Encrypts octets `at` to `end` in place and writes the tag at `end`. */
  seal(nonce: Uint8Array, aad: Uint8Array, p: Uint8Array, at: number, end: number): void;
  /**
   * Decrypts octets `at` to `end`, whose tag stands at `end`. False: wrong tag, and nothing was
   * written.
   */
  open(nonce: Uint8Array, aad: Uint8Array, p: Uint8Array, at: number, end: number): boolean;
  wipe(): void;
}

/** A MAC without nonce. */
export interface Mac {
  /**
   * The MAC of octets `at` to `end` and, unless it is -1, of `seqHigh` as 4 octets behind them. At
   * least as long as any truncation of it; valid until the next call.
   */
  compute(p: Uint8Array, at: number, end: number, seqHigh: number): Uint8Array;
  wipe(): void;
}

/** A MAC that needs a nonce (GMAC, NIST SP 800-38D). */
export interface NonceMac {
  /** The MAC of `first` followed by `second`; valid until the next call. */
  compute(nonce: Uint8Array, first: Uint8Array, second: Uint8Array): Uint8Array;
  wipe(): void;
}
