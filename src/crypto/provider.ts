import type { Algorithm } from './algorithms.ts';
import type { AhTransform, EspTransform } from './transform.ts';

/**
 * Somebody's implementation of the algorithms: node:crypto, or a native library behind the same
 * interface.
 */
export interface CryptoProvider {
  /** For people, in logs and in `testudo status`. */
  readonly name: string;
  /**
   * Whether SAs with this algorithm can be made here; what is not supported is left out of REGISTER
   * replies.
   */
  supports(algorithm: Algorithm): boolean;
  /**
   * Checks the whole spec; throws KeyError EINVAL, or EOPNOTSUPP for what is legacy or not in this
   * build.
   */
  esp(spec: TransformSpec): EspTransform;
  /** As `esp`. */
  ah(spec: TransformSpec): AhTransform;
}

/**
 * What an SA says about its cryptography. The keys are copied; whoever passes them wipes their own.
 */
export interface TransformSpec {
  /** A cipher or an AEAD; undefined is the same as null. Not for AH. */
  readonly cipher?: Algorithm | undefined;
  /** With the salt at its end, where the algorithm has one. Empty if there is none. */
  readonly cipherKey: Uint8Array;
  /** A MAC; undefined is the same as null. */
  readonly mac?: Algorithm | undefined;
  readonly macKey: Uint8Array;
  /** Algorithms that RFC 8221 forbids are refused unless this is set. */
  readonly allowLegacy: boolean;
}
