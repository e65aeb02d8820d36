import { describe, expect, test } from 'vitest';
import { KeyError } from '../../src/base/error.ts';
import { ALGORITHMS, type Algorithm } from '../../src/crypto/algorithms.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import { ahOf, espOf, type Named, someKey, specOf } from './make.ts';

const KEY = {
  aes: '000102030405060708090a0b0c0d0e0f',
  sha1: '000102030405060708090a0b0c0d0e0f10111213',
  gcm: '000102030405060708090a0b0c0d0e0f10111213',
};

describe('every algorithm of the table', () => {
  const missing = ['tcp-md5', 'twofish-cbc', 'blowfish-cbc', 'cast128-cbc'];

  test.each(ALGORITHMS.filter((row) => row.kind !== 'mac' && row.name !== 'null'))(
    '-E $name',
    (row) => {
      expectSupport(row, () => {
        const esp = espOf({ cipher: row.name, cipherKey: someKey(row) });
        expect(esp).toMatchObject({ ivLen: row.ivLen, icvLen: row.icvLen, iv: row.iv });
        expect(esp.alignLen).toBe(Math.max(4, row.blockLen));
        expect(esp.authenticates).toBe(row.kind === 'aead');
      });
    },
  );

  test.each(ALGORITHMS.filter((row) => row.kind === 'mac' && row.name !== 'null'))(
    '-A $name',
    (row) => {
      expectSupport(row, () => {
        const ah = ahOf({ mac: row.name, macKey: someKey(row) });
        expect(ah).toMatchObject({ icvLen: row.icvLen + row.ivLen, ivLen: row.ivLen });
        if (row.ivLen > 0) return;
        const esp = espOf({ mac: row.name, macKey: someKey(row) });
        expect(esp).toMatchObject({ ivLen: 0, icvLen: row.icvLen, alignLen: 4, iv: 'none' });
        expect(esp.authenticates).toBe(true);
      });
    },
  );

  /**
   * What `supports` says is what the constructors do. Node may be started with OpenSSL's legacy
   * module.
   */
  function expectSupport(row: Algorithm, construct: () => void): void {
    if (!missing.includes(row.name)) expect(nodeCrypto.supports(row)).toBe(true);
    if (nodeCrypto.supports(row)) construct();
    else expect(construct).toThrow(KeyError);
  }
});

describe('refused', () => {
  const spelled: readonly (readonly [string, 'esp' | 'ah', Named, string, string])[] = [
    [
      'a MAC beside an AEAD',
      'esp',
      { cipher: 'aes-gcm-16', cipherKey: KEY.gcm, mac: 'hmac-sha1', macKey: KEY.sha1 },
      'EINVAL',
      'aes-gcm-16 authenticates by itself; it does not go with hmac-sha1',
    ],
    [
      'a key for authentication beside an AEAD',
      'esp',
      { cipher: 'aes-gcm-16', cipherKey: KEY.gcm, macKey: KEY.sha1 },
      'EINVAL',
      'without an algorithm',
    ],
    [
      'a key without a cipher',
      'esp',
      { cipherKey: KEY.aes, mac: 'hmac-sha1', macKey: KEY.sha1 },
      'EINVAL',
      'without an encryption algorithm',
    ],
    ['a short key', 'esp', { cipher: 'aes-cbc', cipherKey: '0011' }, 'EINVAL', 'this one has 16'],
    [
      'a short key for the MAC',
      'esp',
      { cipher: 'null', mac: 'hmac-sha1', macKey: '00' },
      'EINVAL',
      'hmac-sha1 takes a key of 160 bits; this one has 8',
    ],
    [
      'GMAC of AH in ESP',
      'esp',
      { mac: 'aes-gmac-128', macKey: KEY.gcm },
      'EINVAL',
      'aes-gmac-128 is for AH',
    ],
    [
      'twofish-cbc',
      'esp',
      { cipher: 'twofish-cbc', cipherKey: KEY.aes },
      'EOPNOTSUPP',
      "twofish-cbc: Node's OpenSSL does not have it",
    ],
    ['tcp-md5', 'ah', { mac: 'tcp-md5', macKey: KEY.aes }, 'EOPNOTSUPP', 'TCP segments'],
    ['AH without a MAC', 'ah', {}, 'EINVAL', 'AH needs'],
    ['AH with null', 'ah', { mac: 'null' }, 'EINVAL', 'null is for ESP only'],
    [
      'AH that encrypts',
      'ah',
      { cipher: 'aes-cbc', cipherKey: KEY.aes, mac: 'hmac-sha1', macKey: KEY.sha1 },
      'EINVAL',
      'AH does not encrypt',
    ],
    [
      'a weak DES key',
      'esp',
      { cipher: 'des-cbc', cipherKey: 'fee0fee0fef1fef1' },
      'EINVAL',
      '16 weak keys',
    ],
    [
      'a weak DES key with other parity',
      'esp',
      { cipher: 'des-cbc', cipherKey: '0000000000000000' },
      'EINVAL',
      '16 weak keys',
    ],
  ];

  const unlessAllowed: typeof spelled = [
    ['nothing at all', 'esp', {}, 'EINVAL', 'protects nothing'],
    ['null twice', 'esp', { cipher: 'null', mac: 'null' }, 'EINVAL', 'protects nothing'],
    [
      '3DES with K1 = K2',
      'esp',
      { cipher: '3des-cbc', cipherKey: '000102030405060701000302050407060f1e2d3c4b5a6978' },
      'EINVAL',
      'which is DES',
    ],
    [
      '3DES with K2 = K3',
      'esp',
      { cipher: '3des-cbc', cipherKey: '0f1e2d3c4b5a697800010203040506070001020304050607' },
      'EINVAL',
      'which is DES',
    ],
  ];

  test.each(unlessAllowed)('%s unless legacy is allowed', (_, protocol, named, errno, sentence) => {
    const error = thrownBy(() => nodeCrypto[protocol](specOf(named, false)));
    expect(error.errno).toBe(errno);
    expect(error.message).toContain(sentence);
    expect(() => nodeCrypto[protocol](specOf(named, true))).not.toThrow();
  });

  test.each(spelled)('%s', (_, protocol, named, errno, sentence) => {
    const error = thrownBy(() => nodeCrypto[protocol](specOf(named)));
    expect(error.errno).toBe(errno);
    expect(error.message).toContain(sentence);
  });

  test.each(ALGORITHMS.filter((row) => row.legacy && row.name !== 'tcp-md5'))(
    '$name unless legacy algorithms are allowed',
    (row) => {
      const named: Named =
        row.kind === 'mac'
          ? { mac: row.name, macKey: someKey(row) }
          : { cipher: row.name, cipherKey: someKey(row) };
      const error = thrownBy(() => nodeCrypto.esp(specOf(named, false)));
      expect(error.errno).toBe('EOPNOTSUPP');
      expect(error.message).toBe(
        `${row.name} is a legacy algorithm; start the host with --allow-legacy`,
      );
    },
  );

  test('no error shows the key', () => {
    for (const [, protocol, named] of [...spelled, ...unlessAllowed]) {
      const { message } = thrownBy(() =>
        nodeCrypto[protocol](specOf(named, !unlessAllowed.some((row) => row[2] === named))),
      );
      expect(message).not.toMatch(/[0-9a-f]{8}/i);
    }
  });
});

test('an AEAD may come with null as its MAC, as some key daemons say it', () => {
  expect(espOf({ cipher: 'aes-gcm-16', cipherKey: KEY.gcm, mac: 'null' }).icvLen).toBe(16);
});

test('3DES with K1 = K3 is two-key 3DES, and allowed', () => {
  const cipherKey = '00010203040506070f1e2d3c4b5a69780001020304050607';
  expect(espOf({ cipher: '3des-cbc', cipherKey }).ivLen).toBe(8);
});

describe('wiped', () => {
  test.each([
    { cipher: 'aes-cbc', cipherKey: KEY.aes },
    { cipher: 'aes-ctr', cipherKey: KEY.gcm },
    { cipher: 'aes-gcm-16', cipherKey: KEY.gcm },
    { cipher: 'aes-gmac', cipherKey: KEY.gcm },
    { mac: 'hmac-sha1', macKey: KEY.sha1 },
    { mac: 'keyed-sha1', macKey: KEY.sha1 },
    { mac: 'aes-xcbc-mac', macKey: KEY.aes },
  ])('%o does not work any more', (named) => {
    const esp = espOf(named);
    const p = new Uint8Array(128);
    esp.seal(p, 0, 8 + esp.ivLen + 32, -1);
    esp.wipe();
    expect(() => esp.seal(p, 0, 8 + esp.ivLen + 32, -1)).toThrow('wiped');
  });

  test.each(['hmac-sha256', 'aes-gmac-128'])('AH by %s too', (mac) => {
    const ah = ahOf({ mac, macKey: someKey(specOf({ mac }).mac!) });
    ah.wipe();
    const icv = new Uint8Array(32);
    expect(() => ah.sign(new Uint8Array(64), 0, 64, -1, icv, 0)).toThrow('wiped');
  });

  test('the keys passed in are not kept', () => {
    const spec = specOf({ cipher: 'aes-gcm-16', cipherKey: KEY.gcm });
    const twin = espOf({ cipher: 'aes-gcm-16', cipherKey: KEY.gcm });
    const esp = nodeCrypto.esp(spec);
    spec.cipherKey.fill(0);
    const [p, q] = [new Uint8Array(64), new Uint8Array(64)];
    esp.seal(p, 0, 40, -1);
    twin.seal(q, 0, 40, -1);
    expect(p).toEqual(q);
  });
});

function thrownBy(work: () => unknown): KeyError {
  try {
    work();
  } catch (error) {
    if (error instanceof KeyError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}
