/**
 * What the engine sees of cryptography: objects with keys inside, made once per SA, that work in
 * place on a packet. Each knows no more of a packet than offsets. Providers (node:crypto, native)
 * make them from the rows of the algorithm table.
 *
 * `seqHigh` is the high half of an extended sequence number (RFC 4303 §2.2.1), or -1 for sequence
 * numbers of 32 bits.
 */

/** ESP: an AEAD, or a cipher and a MAC (either may be null). */
export interface EspTransform {
  /** Octets of IV between the ESP header and the text. */
  readonly ivLen: number;
  /** Octets of ICV behind the text. */
  readonly icvLen: number;
  /**
   * The text (payload, padding, pad length, next header) is a multiple of this; at least 4 (RFC
   * 4303 §2.4).
   */
  readonly alignLen: number;
  /**
   * How the IV that the caller writes must be chosen: never repeated, or not predictable (RFC 3602
   * §3).
   */
  readonly iv: 'none' | 'unique' | 'unpredictable';
  /** False when nothing protects integrity: then replays cannot be detected (RFC 4303 §3.4.3). */
  readonly authenticates: boolean;

  /**
   * Seals in place. At `at`: ESP header (8), IV (`ivLen`, already written), text up to `end`;
   * writes the ICV at `end`.
   */
  seal(p: Uint8Array, at: number, end: number, seqHigh: number): void;

  /**
   * Opens in place. At `at`: ESP header, IV, text, ICV up to `end`. The caller has checked that all
   * fit and that the text is a multiple of `alignLen`. False: the ICV is wrong (compared in
   * constant time), and the text is undefined.
   */
  open(p: Uint8Array, at: number, end: number, seqHigh: number): boolean;

  /** Zeroes the keys. The transform must not be used again. */
  wipe(): void;
}

/**
 * AH: a MAC over a packet whose mutable fields and ICV are zero (RFC 4302 §3.3.3). Of the ICV field
 * only the ICV itself is zero, `icvLen - ivLen` octets: an IV in front of it and padding behind it
 * are covered as they are sent (Linux does not zero its padding).
 */
export interface AhTransform {
  /** Octets of the ICV field, IV included (AES-GMAC puts its IV there, RFC 4543 §4). */
  readonly icvLen: number;
  /**
   * Octets of IV at the beginning of the ICV field; the signer writes it before `sign`. 0 for most.
   */
  readonly ivLen: number;

  /**
   * Computes over octets `at` to `end` (and `seqHigh` behind them, RFC 4302 §3.3.3.2.1) and writes
   * the ICV to `icv` at
   * `icvAt + ivLen`, where the IV stands at `icvAt`.
   */
  sign(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): void;

  /** Whether the ICV field at `icvAt` is that of octets `at` to `end`; in constant time. */
  verify(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): boolean;

  wipe(): void;
}
