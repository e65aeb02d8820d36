import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { nodeCrypto } from '../../../src/crypto/node-provider.ts';
import { loadFastFrom } from '../../../src/drivers/native/fast-library.ts';
import { NativeProvider } from '../../../src/drivers/native/provider.ts';
import { CRYPTO_CHOICES, chooseCrypto, NODE_TIER } from '../../../src/drivers/native/tier.ts';
import { fast, ipsecMb, openSsl } from './natives.ts';

describe('the tier of cryptography', () => {
  test('node is what it is', () => {
    const { name, provider, describe: text } = chooseCrypto('node');
    expect([name, provider]).toEqual(['node', nodeCrypto]);
    expect(text()).toBe('node:crypto; as it was asked for');
    expect(NODE_TIER.describe()).toBe('node:crypto');
    expect(CRYPTO_CHOICES).toEqual(['auto', 'ipsec-mb', 'openssl', 'node']);
  });

  test.skipIf(!openSsl || !fast)('openssl', () => {
    const { name, provider, describe: text } = chooseCrypto('openssl');
    expect(name).toBe('openssl');
    expect(provider).toBeInstanceOf(NativeProvider);
    expect(text()).toBe(`Node's ${openSsl!.version}, a call a batch; as it was asked for`);
  });

  test.skipIf(!ipsecMb || !fast)('ipsec-mb, which is the best', () => {
    for (const choice of ['auto', 'ipsec-mb'] as const) {
      const { name, describe: text } = chooseCrypto(choice);
      expect(name).toBe('ipsec-mb');
      expect(text()).toMatch(
        /^intel-ipsec-mb 1\.3\.\d+ \([^)]+\) and Node's OpenSSL 3.*, a call a/,
      );
    }
  });

  const absent = (why: string) => () => ({ why });
  const nothing = {
    openSsl: absent('it is hidden'),
    imb: absent('it is gone'),
    fast: absent('nobody built it'),
  };

  test.skipIf(!openSsl)('says why it is not a better one', () => {
    const loaders = { ...nothing, openSsl: () => openSsl! };
    const { name, describe: text } = chooseCrypto('auto', loaders);
    expect(name).toBe('openssl');
    expect(text()).toBe(
      `Node's ${openSsl!.version}, calls for each packet, since nobody built it; ` +
        'not ipsec-mb: it is gone',
    );
    expect(() => chooseCrypto('ipsec-mb', loaders)).toThrow('no crypto by ipsec-mb: it is gone');
  });

  test('without anything native', () => {
    const { name, describe: text } = chooseCrypto('auto', nothing);
    expect(name).toBe('node');
    expect(text()).toBe('node:crypto; not ipsec-mb: it is hidden; not openssl: it is hidden');
  });

  test.skipIf(!openSsl)('one that cannot do AES-GCM is none', () => {
    // It opens nothing: the tag is never found.
    const cipherCtrl = () => 0;
    const broken = { ...openSsl!, cipherCtrl };
    const { name, describe: text } = chooseCrypto('auto', { ...nothing, openSsl: () => broken });
    expect(name).toBe('node');
    expect(text()).toContain(
      'not openssl: aes-gcm-16 by node:crypto, since other answers are wrong',
    );
  });
});

describe('the compiled loop', () => {
  test.each([
    ['/nowhere/testudo_fast.so', /cannot open shared object file/],
    // A library, but none of ours.
    [
      fileURLToPath(new URL('../../../native/build/libtestudo_pfkey.so', import.meta.url)),
      /testudo_fast.so: /,
    ],
  ])('%s is not used', (path, why) => {
    expect(loadFastFrom(path)).toEqual({ why: expect.stringMatching(why) });
  });
});
