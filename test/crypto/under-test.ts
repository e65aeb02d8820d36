import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import type { CryptoProvider } from '../../src/crypto/provider.ts';

/**
 * The provider that transforms of tests are made by: node:crypto, unless a suite is run on another
 * one (test/drivers/native/suites.test.ts).
 */
let provider: CryptoProvider = nodeCrypto;

export function providerUnderTest(): CryptoProvider {
  return provider;
}

export function testWith(other: CryptoProvider): void {
  provider = other;
}
