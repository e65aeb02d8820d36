/**
 * What the engine sees of cryptography: objects with keys inside, made once per SA, that work in
 * place on a packet. Each knows no more of a packet than offsets. Providers (node:crypto, native)
 * make them from the rows of the algorithm table.
 *
 * `seqHigh` is the high half of an extended sequence number (RFC 4303 §2.2.1), or -1 for sequence
 * numbers of 32 bits.
 *
 * A native provider also takes **jobs**: `sealLater` and its kin note down what is to be done, and
 * one `run` of the provider's queue does it for a whole batch, because a call out of JavaScript
 * costs as much as sealing a small packet, and because some hardware is only fast on many packets
 * at a time. The octets of a job belong to the queue until `run` returns. Transforms without a
 * queue are used one packet at a time.
 */

/**
 * The jobs of all transforms of one provider, whatever their algorithms. Jobs are independent of
 * each other: no two may touch the same octets.
 */
export interface JobQueue {
  /** How many jobs fit between two calls of `run`; at least 256. One more is a mistake of ours. */
  readonly capacity: number;
  /** Jobs noted down since the last `run`. */
  readonly count: number;
  /** Does all of them. Numbers begin again at 0 with the next job. */
  run(): void;
  /**
   * After `run` and until the next job is noted down: whether job `job` went well. For `openLater`
   * and `verifyLater` false means a wrong ICV, as with `open` and `verify`; for `sealLater` and
   * `signLater` it means that the library failed, and then the packet must not be sent.
   */
  ok(job: number): boolean;
  /** As `ok`: how many of jobs `job` to `job + count` went well before the first that did not. */
  countOk(job: number, count: number): number;
}

/** A packet whose octets a job is about: what it says of itself when the job is noted down. */
export interface JobPacket {
  readonly bytes: Uint8Array;
  readonly at: number;
}

/** ESP: an AEAD, or a cipher and a MAC (either may be null). */
export interface EspTransform {
  /** Octets of IV between the ESP header and the text. */
  readonly ivLen: number;
  /** Octets of ICV behind the text. */
  readonly icvLen: number;
  /**
   * The text (payload, padding, pad length, next header) is a multiple of this, a power of two; at
   * least 4 (RFC 4303 §2.4).
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

  /** Missing: `seal` and `open` are all there is. Present: so are the four below. */
  readonly queue?: JobQueue | undefined;
  /** As `seal`, at the next `run` of the queue. Returns the number of the job. */
  sealLater?(p: Uint8Array, at: number, end: number, seqHigh: number): number;
  /** As `open`, at the next `run` of the queue. Returns the number of the job. */
  openLater?(p: Uint8Array, at: number, end: number, seqHigh: number): number;
  /**
   * As `sealLater`, for packets `from` to `from + count` of a list: in each, ESP begins at
   * `at + by` and has `len` octets up to `end`. Their jobs have numbers in a row; returns the
   * first.
   */
  sealRowLater?(
    packets: readonly JobPacket[],
    from: number,
    count: number,
    by: number,
    len: number,
    seqHigh: number,
  ): number;
  /** As `sealRowLater`, for `openLater`. */
  openRowLater?(...row: Parameters<Required<EspTransform>['sealRowLater']>): number;

  /**
   * Zeroes the keys; those that jobs are waiting for, when the jobs are done. The transform must
   * not be used again.
   */
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

  /** Missing: `sign` and `verify` are all there is. Present: so are the two below. */
  readonly queue?: JobQueue | undefined;
  /** As `sign`, at the next `run` of the queue. Returns the number of the job. */
  signLater?(...packet: Parameters<AhTransform['sign']>): number;
  /** As `verify`, at the next `run` of the queue. Returns the number of the job. */
  verifyLater?(...packet: Parameters<AhTransform['verify']>): number;

  /** As for ESP. */
  wipe(): void;
}
