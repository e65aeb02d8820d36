import { assert } from '../base/assert.ts';
import { KeyError } from '../base/error.ts';
import { type Algorithm, checkKeyLength } from './algorithms.ts';
import { isDegenerateTripleDesKey, isWeakDesKey } from './des-keys.ts';
import type { TransformSpec } from './provider.ts';

/** The rules for the cryptography of an SA that hold for every provider. Both throw KeyError. */

/** What remains of a spec for ESP: `null` and nothing given are the same from here on. */
export interface EspParts {
  readonly cipher: Algorithm | undefined;
  readonly mac: Algorithm | undefined;
}

export function checkEspSpec(spec: TransformSpec): EspParts {
  checkEncryption(spec);
  checkAuthentication(spec);
  const cipher = isNull(spec.cipher) ? undefined : spec.cipher;
  const mac = isNull(spec.mac) ? undefined : spec.mac;
  if (!cipher && !mac && !spec.allowLegacy) {
    throw new KeyError(
      'EINVAL',
      'ESP with neither encryption nor authentication protects nothing (RFC 4303 §3.2); for tests, start the host with --allow-legacy',
    );
  }
  if (mac && cipher?.kind === 'aead') {
    throw new KeyError(
      'EINVAL',
      `${cipher.name} authenticates by itself; it does not go with ${mac.name}`,
    );
  }
  // RFC 4543 §3: in ESP it is a "cipher" that does not encrypt, since there the IV has a place of
  // its own.
  if (mac && mac.ivLen > 0) {
    throw new KeyError('EINVAL', `${mac.name} is for AH; in ESP use aes-gmac as encryption`);
  }
  return { cipher, mac };
}

/** The MAC of a spec for AH. */
export function checkAhSpec(spec: TransformSpec): Algorithm {
  if (!isNull(spec.cipher) || spec.cipherKey.length > 0) {
    throw new KeyError('EINVAL', 'AH does not encrypt; it takes an authentication algorithm only');
  }
  const { mac } = spec;
  if (!mac || isNull(mac)) {
    throw new KeyError('EINVAL', 'AH needs an authentication algorithm; null is for ESP only');
  }
  checkAuthentication(spec);
  return mac;
}

export function notInThisBuild(of: Algorithm, provider: string): KeyError {
  return new KeyError('EOPNOTSUPP', `${of.name}: ${provider} does not have it`);
}

function checkEncryption({ cipher, cipherKey, allowLegacy }: TransformSpec): void {
  if (!cipher) {
    if (cipherKey.length > 0) {
      throw new KeyError('EINVAL', 'a key for encryption came without an encryption algorithm');
    }
    return;
  }
  assert(cipher.kind !== 'mac', 'encryption is by a cipher or an AEAD');
  checkLegacy(cipher, allowLegacy);
  checkKeyLength(cipher, 8 * cipherKey.length);
  if (cipher.name === 'des-cbc' && isWeakDesKey(cipherKey)) {
    throw new KeyError('EINVAL', 'des-cbc: this is one of the 16 weak keys of DES');
  }
  if (cipher.name === '3des-cbc' && !allowLegacy && isDegenerateTripleDesKey(cipherKey)) {
    throw new KeyError(
      'EINVAL',
      '3des-cbc: two neighbouring thirds of the key are the same, which is DES (RFC 2451 §2.3); start the host with --allow-legacy',
    );
  }
}

function checkAuthentication({ mac, macKey, allowLegacy }: TransformSpec): void {
  if (!mac) {
    if (macKey.length > 0) {
      throw new KeyError('EINVAL', 'a key for authentication came without an algorithm for it');
    }
    return;
  }
  assert(mac.kind === 'mac', 'authentication is by a MAC');
  if (mac.name === 'tcp-md5') {
    throw new KeyError('EOPNOTSUPP', 'tcp-md5 signs TCP segments (RFC 2385), not ESP or AH');
  }
  checkLegacy(mac, allowLegacy);
  checkKeyLength(mac, 8 * macKey.length);
}

function checkLegacy(of: Algorithm, allowLegacy: boolean): void {
  if (of.legacy && !allowLegacy) {
    throw new KeyError(
      'EOPNOTSUPP',
      `${of.name} is a legacy algorithm; start the host with --allow-legacy`,
    );
  }
}

function isNull(of: Algorithm | undefined): boolean {
  return !of || of.name === 'null';
}
