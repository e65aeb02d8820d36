import {
  type Algorithm,
  authenticationByName,
  encryptionByName,
} from '../../src/crypto/algorithms.ts';
import type { TransformSpec } from '../../src/crypto/provider.ts';
import type { AhTransform, EspTransform } from '../../src/crypto/transform.ts';
import { providerUnderTest } from './under-test.ts';

/** What the tests of src/crypto build transforms from: setkey names and hexadecimal keys. */

export interface Named {
  readonly cipher?: string;
  readonly cipherKey?: string | Uint8Array;
  readonly mac?: string;
  readonly macKey?: string | Uint8Array;
}

export function specOf(named: Named, allowLegacy = true): TransformSpec {
  return {
    cipher: named.cipher === undefined ? undefined : row(encryptionByName, named.cipher),
    cipherKey: octets(named.cipherKey ?? ''),
    mac: named.mac === undefined ? undefined : row(authenticationByName, named.mac),
    macKey: octets(named.macKey ?? ''),
    allowLegacy,
  };
}

export function espOf(named: Named): EspTransform {
  return providerUnderTest().esp(specOf(named));
}

export function ahOf(named: Named): AhTransform {
  return providerUnderTest().ah(specOf(named));
}

export function octets(of: string | Uint8Array): Uint8Array {
  return typeof of === 'string' ? Uint8Array.from(Buffer.from(of, 'hex')) : of;
}

export function hex(of: Uint8Array): string {
  return Buffer.from(of).toString('hex');
}

/**
 * A key of the row's shortest length, or of `bits`; no two octets in a row alike, so that DES takes
 * it.
 */
export function someKey(of: Algorithm, bits = of.keyBits.min): Uint8Array {
  return Uint8Array.from({ length: bits / 8 }, (_, i) => (i * 37 + 11) & 255);
}

function row(lookup: (name: string) => Algorithm | undefined, name: string): Algorithm {
  const found = lookup(name);
  if (!found) throw new Error(`no algorithm "${name}"`);
  return found;
}
