import { createSecretKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { NodeAead, type NodeAeadName, NodeGmac } from '../../src/crypto/node-aead.ts';
import { aesCmac } from '../../src/crypto/node-block-mac.ts';
import { NodeHmac } from '../../src/crypto/node-hash-mac.ts';
import type { Aead } from '../../src/crypto/primitive.ts';
import { ahOf, espOf, hex, octets } from '../crypto/make.ts';

/**
 * Project Wycheproof. A case whose nonce, AAD and key are of ESP's or AH's shape drives the
 * transform; the others the primitive beneath it. Every case runs: the counts say so.
 */

interface AeadCase {
  readonly tcId: number;
  readonly key: string;
  readonly iv: string;
  readonly aad: string;
  readonly msg: string;
  readonly ct: string;
  readonly tag: string;
  readonly result: 'valid' | 'invalid' | 'acceptable';
}

interface MacCase {
  readonly tcId: number;
  readonly key: string;
  readonly iv?: string;
  readonly msg: string;
  readonly tag: string;
  readonly result: 'valid' | 'invalid' | 'acceptable';
}

interface Group<Case> {
  readonly keySize: number;
  readonly ivSize?: number;
  readonly tagSize: number;
  readonly tests: readonly Case[];
}

test('AES-GCM', () => {
  const count = runAeads('aes_gcm_test.json', (keyBits) => `aes-${keyBits}-gcm`, 'aes-gcm');
  expect(count).toEqual({ transform: 5, primitive: 302, refused: 9 });
});

test('AES-CCM', () => {
  const count = runAeads('aes_ccm_test.json', (keyBits) => `aes-${keyBits}-ccm`, 'aes-ccm');
  expect(count).toEqual({ transform: 9, primitive: 477, refused: 66 });
});

test('ChaCha20-Poly1305', () => {
  const count = runAeads(
    'chacha20_poly1305_test.json',
    () => 'chacha20-poly1305',
    'chacha20-poly1305',
  );
  expect(count).toEqual({ transform: 47, primitive: 269, refused: 9 });
});

test('AES-GMAC: by AH where the nonce is 96 bits', () => {
  const count = { transform: 0, primitive: 0 };
  for (const { group, one } of cases<MacCase>('aes_gmac_test.json')) {
    const msg = octets(one.msg);
    const iv = octets(one.iv!);
    let right: boolean;
    if (iv.length === 12) {
      const salt = hex(iv.subarray(0, 4));
      const ah = ahOf({ mac: `aes-gmac-${group.keySize}`, macKey: one.key + salt });
      const icv = octets(hex(iv.subarray(4)) + one.tag);
      right = ah.verify(msg, 0, msg.length, -1, icv, 0);
      const signed = icv.slice();
      signed.fill(0, 8);
      ah.sign(msg, 0, msg.length, -1, signed, 0);
      expect(hex(signed) === hex(icv), `${one.tcId} signed`).toBe(right);
      count.transform++;
    } else {
      const gmac = new NodeGmac(`aes-${group.keySize as 128}-gcm`, secret(one.key));
      right = hex(gmac.compute(iv, msg, new Uint8Array(0))) === one.tag;
      count.primitive++;
    }
    expect(right, `case ${one.tcId}`).toBe(one.result === 'valid');
  }
  expect(count).toEqual({ transform: 207, primitive: 207 });
});

test('AES-CMAC', () => {
  const count = { primitive: 0, refused: 0 };
  for (const { one } of cases<MacCase>('aes_cmac_test.json')) {
    const msg = octets(one.msg);
    if (![16, 24, 32].includes(one.key.length / 2)) {
      expect(() => ahOf({ mac: 'aes-cmac', macKey: one.key })).toThrow(/takes a key of 128/);
      count.refused++;
      continue;
    }
    const mac = aesCmac(secret(one.key));
    // Once more with the same object: the second message starts from another chaining block.
    for (let round = 0; round < 2; round++) {
      const tag = hex(mac.compute(msg, 0, msg.length, -1));
      expect(tag === one.tag, `case ${one.tcId}`).toBe(one.result === 'valid');
    }
    count.primitive++;
  }
  expect(count).toEqual({ primitive: 306, refused: 5 });
});

test.each([
  ['hmac_sha1_test.json', 'hmac-sha1', 170],
  ['hmac_sha256_test.json', 'hmac-sha256', 174],
  ['hmac_sha384_test.json', 'hmac-sha384', 174],
  ['hmac_sha512_test.json', 'hmac-sha512', 174],
])('%s', (file, name, all) => {
  const count = { transform: 0, primitive: 0 };
  for (const { group, one } of cases<MacCase>(file)) {
    const msg = octets(one.msg);
    const tag = octets(one.tag);
    const whole = new NodeHmac(name.slice(5), secret(one.key)).compute(msg, 0, msg.length, -1);
    let right = hex(whole.subarray(0, tag.length)) === one.tag;
    const bits = new Map([
      ['hmac-sha256', 128],
      ['hmac-sha384', 192],
      ['hmac-sha512', 256],
    ]).get(name);
    if (group.keySize === 2 * (bits ?? 0) && group.tagSize === bits) {
      right = ahOf({ mac: name, macKey: one.key }).verify(msg, 0, msg.length, -1, tag, 0);
      count.transform++;
    } else {
      count.primitive++;
    }
    expect(right, `case ${one.tcId}`).toBe(one.result === 'valid');
  }
  expect(count.transform + count.primitive).toBe(all);
  expect(count.transform).toBe(name === 'hmac-sha1' ? 0 : 81);
});

interface AeadCount {
  transform: number;
  primitive: number;
  refused: number;
}

function runAeads(
  file: string,
  openSslName: (keyBits: number) => string,
  family: string,
): AeadCount {
  const count: AeadCount = { transform: 0, primitive: 0, refused: 0 };
  for (const { group, one } of cases<AeadCase>(file)) {
    const tagLen = group.tagSize / 8;
    const name = openSslName(group.keySize) as NodeAeadName;
    if (fitsEsp(one, family, tagLen)) {
      runTransform(one, family === 'chacha20-poly1305' ? family : `${family}-${tagLen}`);
      count.transform++;
    } else if (runPrimitive(one, () => new NodeAead(name, secret(one.key), tagLen))) {
      count.primitive++;
    } else {
      // Nonces and tags of a length that the algorithm does not have, or longer than OpenSSL takes
      // (128 octets).
      const tooLong = one.iv.length > 256;
      expect(one.result === 'invalid' || tooLong, `case ${one.tcId} refused`).toBe(true);
      count.refused++;
    }
  }
  return count;
}

function fitsEsp(one: AeadCase, family: string, tagLen: number): boolean {
  const nonceLen = family === 'aes-ccm' ? 11 : 12;
  const tagLens = family === 'chacha20-poly1305' ? [16] : [8, 12, 16];
  return (
    one.iv.length === 2 * nonceLen &&
    (one.aad.length === 16 || one.aad.length === 24) &&
    tagLens.includes(tagLen)
  );
}

/** AAD is SPI and sequence number, nonce is salt and IV. */
function runTransform(one: AeadCase, name: string): void {
  const ivAt = one.iv.length - 16;
  const esp = espOf({ cipher: name, cipherKey: one.key + one.iv.slice(0, ivAt) });
  const extended = one.aad.length === 24;
  const seqHigh = extended ? Number.parseInt(one.aad.slice(8, 16), 16) : -1;
  const header = one.aad.slice(0, 8) + one.aad.slice(extended ? 16 : 8);
  const sealed = octets(header + one.iv.slice(ivAt) + one.ct + one.tag);
  const p = sealed.slice();
  expect(esp.open(p, 0, p.length, seqHigh), `case ${one.tcId}`).toBe(one.result === 'valid');
  if (one.result !== 'valid') return;
  const end = p.length - esp.icvLen;
  expect(hex(p.subarray(16, end))).toBe(one.msg);
  p.fill(0, end);
  esp.seal(p, 0, end, seqHigh);
  expect(hex(p)).toBe(hex(sealed));
}

/** False if the nonce is not one of the algorithm's. */
function runPrimitive(one: AeadCase, make: () => Aead): boolean {
  const nonce = octets(one.iv);
  const aad = octets(one.aad);
  const textLen = one.ct.length / 2;
  const p = octets(one.ct + one.tag);
  let right: boolean;
  try {
    right = make().open(nonce, aad, p, 0, textLen);
  } catch {
    return false;
  }
  expect(right, `case ${one.tcId}`).toBe(one.result === 'valid');
  if (!right) {
    expect(hex(p), `case ${one.tcId} left as it was`).toBe(one.ct + one.tag);
    return true;
  }
  expect(hex(p.subarray(0, textLen))).toBe(one.msg);
  p.fill(0, textLen);
  make().seal(nonce, aad, p, 0, textLen);
  expect(hex(p)).toBe(one.ct + one.tag);
  return true;
}

function secret(key: string) {
  return createSecretKey(octets(key));
}

function* cases<Case>(file: string): Generator<{ group: Group<Case>; one: Case }> {
  const url = new URL(`./data/wycheproof/${file}`, import.meta.url);
  const groups: readonly Group<Case>[] = JSON.parse(readFileSync(url, 'utf8')).testGroups;
  for (const group of groups) for (const one of group.tests) yield { group, one };
}
