/**
 * The variables `net.key.*` of KAME, with its defaults unless said otherwise. Changed at run time.
 */
export interface KeySettings {
  /** How many SPIs GETSPI tries. */
  spiTry: number;
  /** The range that GETSPI takes from when the request has none. */
  spiMin: number;
  spiMax: number;
  /** After an ACQUIRE, as many packets are counted before it is repeated … */
  blockAcquireCount: number;
  /** … and after so many seconds it starts over with a new sequence number. */
  blockAcquireSeconds: number;
  /** Fewest key bits that an ACQUIRE proposes. */
  espKeyMin: number;
  ahKeyMin: number;
  /** Whether an ACQUIRE proposes a MAC with each cipher that does not authenticate by itself. */
  espAuth: boolean;
}

export function defaultKeySettings(): KeySettings {
  return {
    spiTry: 1000,
    spiMin: 0x100,
    spiMax: 0x0fff_ffff,
    blockAcquireCount: 10,
    blockAcquireSeconds: 20,
    // Deviation: KAME's 256 is from before AES, and would leave out every cipher with 128 bits.
    espKeyMin: 128,
    ahKeyMin: 128,
    // Deviation: KAME's is off, and RFC 8221 §4 forbids what it then asks for.
    espAuth: true,
  };
}
