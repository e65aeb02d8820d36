import type { Algorithm } from '../../crypto/algorithms.ts';
import { HASH } from '../../crypto/node-provider.ts';
import * as layout from './layout.ts';
import { HASHES, type HashName } from './openssl.ts';

/** How an algorithm is done by native code: what jobs.h calls it. */

export interface CipherPlan {
  readonly kind: number;
  /** What intel-ipsec-mb does of it; IMB_NONE: only OpenSSL has it. */
  readonly imb: number;
  /** From how many packets in a batch it is the faster one. */
  readonly imbMin: number;
}

export interface MacPlan {
  readonly kind: number;
  /** For MAC_HMAC. */
  readonly hash?: HashName;
  /** IMB_HASH_ALG, or 0. */
  readonly imb: number;
  readonly imbMin: number;
}

/**
 * Its number for an HMAC, and from how many packets in a batch its lanes are faster than OpenSSL's
 * one: measured with packets of 1400 octets on a processor with AVX-512 and instructions for SHA-1
 * and SHA-256.
 */
const IMB_HMAC: Readonly<Partial<Record<HashName, readonly [number, number]>>> = {
  sha1: [1, 8],
  sha256: [3, 12],
  sha384: [4, 4],
  sha512: [5, 4],
  md5: [7, 3],
};
const IMB_XCBC = 6;
const IMB_CMAC = 12;

/** Undefined: node:crypto does it. `keyLen` in octets, without the salt. */
export function cipherPlan(of: Algorithm, keyLen: number): CipherPlan | undefined {
  switch (of.name) {
    case 'aes-gcm-8':
    case 'aes-gcm-12':
    case 'aes-gcm-16':
      return { kind: layout.CIPHER_AEAD, imb: layout.IMB_GCM, imbMin: 1 };
    case 'chacha20-poly1305':
      return { kind: layout.CIPHER_AEAD, imb: layout.IMB_CHACHA, imbMin: 1 };
    case 'aes-ccm-8':
    case 'aes-ccm-12':
    case 'aes-ccm-16':
      // intel-ipsec-mb has no CCM with 192 bits.
      return {
        kind: layout.CIPHER_CCM,
        imb: keyLen === 24 ? layout.IMB_NONE : layout.IMB_CCM,
        imbMin: 2,
      };
    case 'aes-gmac':
    case 'aes-gmac-128':
    case 'aes-gmac-192':
    case 'aes-gmac-256':
      return { kind: layout.CIPHER_GMAC, imb: layout.IMB_GCM, imbMin: 1 };
    case 'aes-cbc':
      return { kind: layout.CIPHER_CBC, imb: layout.IMB_CBC, imbMin: 2 };
    case 'aes-ctr':
      return { kind: layout.CIPHER_CTR, imb: layout.IMB_CTR, imbMin: 1 };
    case 'camellia-cbc':
    case '3des-cbc':
    case 'des-cbc':
      return { kind: layout.CIPHER_CBC, imb: layout.IMB_NONE, imbMin: 1 };
    default:
      return undefined;
  }
}

export function macPlan(of: Algorithm): MacPlan | undefined {
  if (of.name === 'aes-xcbc-mac') return { kind: layout.MAC_BLOCK, imb: IMB_XCBC, imbMin: 2 };
  if (of.name === 'aes-cmac') return { kind: layout.MAC_BLOCK, imb: IMB_CMAC, imbMin: 2 };
  const hash = HASHES.find((name) => name === HASH[of.name]);
  if (hash === undefined || !of.name.startsWith('hmac-')) return undefined;
  const [imb, imbMin] = IMB_HMAC[hash] ?? [0, 0];
  return { kind: layout.MAC_HMAC, hash, imb, imbMin };
}
