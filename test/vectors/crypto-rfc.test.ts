import { createHash, createSecretKey } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { aesCmac, aesXcbc } from '../../src/crypto/node-block-mac.ts';
import { ahOf, espOf, hex, octets } from '../crypto/make.ts';

/** The examples printed in the RFCs of the algorithms. */

const count = (len: number) => hex(Uint8Array.from({ length: len }, (_, i) => i));
const text = (words: string) => hex(new TextEncoder().encode(words));
const HEADER = '0102030400000005';

describe('AES-CTR, RFC 3686 §6', () => {
  test.each([
    [
      'AE6852F8121067CC4BF7A5765577F39E',
      '00000030',
      '0000000000000000',
      text('Single block msg'),
      'E4095D4FB7A7B3792D6175A3261311B8',
    ],
    [
      '7E24067817FAE0D743D6CE1F32539163',
      '006CB6DB',
      'C0543B59DA48D90B',
      count(32),
      '5104A106168A72D9790D41EE8EDAD388EB2E1EFC46DA57C8FCE630DF9141BE28',
    ],
    [
      '7691BE035E5020A8AC6E618529F9A0DC',
      '00E0017B',
      '27777F3F4A1786F0',
      count(36),
      'C1CF48A89F2FFDD9CF4652E9EFDB72D74540A42BDE6D7836D59A5CEAAEF3105325B2072F',
    ],
    [
      '16AF5B145FC9F579C175F93E3BFB0EED863D06CCFDB78515',
      '00000048',
      '36733C147D6D93CB',
      text('Single block msg'),
      '4B55384FE259C9C84E7935A003CBE928',
    ],
    [
      '776BEFF2851DB06F4C8A0542C8696F6C6A81AF1EEC96B4D37FC1D689E6C1C104',
      '00000060',
      'DB5672C97AA8F0B2',
      text('Single block msg'),
      '145AD01DBF824EC7560863DC71E3E0C0',
    ],
  ])('key %s', (key, nonce, iv, plain, expected) => {
    const esp = espOf({ cipher: 'aes-ctr', cipherKey: key + nonce });
    const p = octets(HEADER + iv + plain);
    esp.seal(p, 0, p.length, -1);
    expect(hex(p)).toBe((HEADER + iv + expected).toLowerCase());
  });
});

describe('AES-CBC, RFC 3602 §4', () => {
  test.each([
    [
      '06a9214036b8a15b512e03d534120006',
      '3dafba429d9eb430b422da802c9fac41',
      text('Single block msg'),
      'e353779c1079aeb82708942dbe77181a',
    ],
    [
      'c286696d887c9aa0611bbb3e2025a45a',
      '562e17996d093d28ddb3ba695a2e6f58',
      count(32),
      'd296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1',
    ],
  ])('key %s', (cipherKey, iv, plain, expected) => {
    const esp = espOf({ cipher: 'aes-cbc', cipherKey });
    const p = octets(HEADER + iv + plain);
    esp.seal(p, 0, p.length, -1);
    expect(hex(p)).toBe(HEADER + iv + expected);
  });
});

describe('AES-XCBC-MAC, RFC 3566 §4.6', () => {
  const mac = aesXcbc(createSecretKey(octets(count(16))));
  test.each([
    ['', '75f0251d528ac01c4573dfd584d79f29'],
    [count(3), '5b376580ae2f19afe7219ceef172756f'],
    [count(16), 'd2a246fa349b68a79998a4394ff7a263'],
    [count(20), '47f51b4564966215b8985c63055ed308'],
    [count(32), 'f54f0ec8d2b9f3d36807734bd5283fd4'],
    [count(34), 'becbb3bccdb518a30677d5481fb6b4d8'],
    ['00'.repeat(1000), 'f0dafee895db30253761103b5d84528f'],
  ])('%s', (message, expected) => {
    const p = octets(message);
    expect(hex(mac.compute(p, 0, p.length, -1))).toBe(expected);
    expect(ahTag('aes-xcbc-mac', count(16), message)).toBe(expected.slice(0, 24));
  });
});

describe('AES-CMAC, RFC 4493 §4 and RFC 4494 §4', () => {
  const key = '2b7e151628aed2a6abf7158809cf4f3c';
  const mac = aesCmac(createSecretKey(octets(key)));
  const message =
    '6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51' +
    '30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710';
  test.each([
    [0, 'bb1d6929e95937287fa37d129b756746'],
    [16, '070a16b46b4d4144f79bdd9dd04a287c'],
    [40, 'dfa66747de9ae63030ca32611497c827'],
    [64, '51f0bebf7e3b9d92fc49741779363cfe'],
  ])('%d octets', (len, expected) => {
    const p = octets(message);
    expect(hex(mac.compute(p, 0, len, -1))).toBe(expected);
    expect(ahTag('aes-cmac', key, message.slice(0, 2 * len))).toBe(expected.slice(0, 24));
  });
});

describe('HMACs over "Hi There": RFC 2202, RFC 2286, RFC 4868 §2.7.2', () => {
  test.each([
    ['hmac-md5', 16, '9294727a3638bb1c13f48ef8'],
    ['hmac-sha1', 20, 'b617318655057264e28bc0b6'],
    ['hmac-ripemd160', 20, '24cb4bd67d20fc1a5d2ed773'],
    ['hmac-sha256', 32, '198a607eb44bfbc69903a0f1cf2bbdc5'],
    ['hmac-sha256-96', 32, '198a607eb44bfbc69903a0f1'],
    ['hmac-sha384', 48, 'b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973'],
    ['hmac-sha512', 64, '637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8'],
  ])('%s', (name, keyLen, expected) => {
    expect(ahTag(name, '0b'.repeat(keyLen), text('Hi There'))).toBe(expected);
  });
});

test('ChaCha20-Poly1305, RFC 7634 appendix A', () => {
  const key = hex(Uint8Array.from({ length: 32 }, (_, i) => 0x80 + i));
  const esp = espOf({ cipher: 'chacha20-poly1305', cipherKey: `${key}a0a1a2a3` });
  const head = '01020304000000051011121314151617';
  const plain =
    '45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f' +
    '101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204';
  const sealed =
    '24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95df' +
    'ab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0' +
    '76aaa8266b7fb0f7b11b369907e1ad43';
  const p = octets(head + plain + '00'.repeat(16));
  esp.seal(p, 0, p.length - 16, -1);
  expect(hex(p)).toBe(head + sealed);
});

/** No RFC prints examples of these; the twin pads by the letter of RFC 1828 §2, in text. */
describe('keyed MD5 and keyed SHA-1, RFC 1828 and RFC 1852', () => {
  test.each([
    ['keyed-md5', 'md5', 16, '8000000000000000'],
    ['keyed-sha1', 'sha1', 20, '00000000000000a0'],
  ])('%s', (name, hash, keyLen, lengthField) => {
    const key = count(keyLen);
    const fill = `80${'00'.repeat(64 - keyLen - 1 - 8)}${lengthField}`;
    const message = text('what do ya want for nothing?');
    const twin = createHash(hash).update(octets(key + fill + message + key));
    expect(ahTag(name, key, message)).toBe(twin.digest('hex').slice(0, 24));
  });
});

function ahTag(name: string, key: string, message: string): string {
  const ah = ahOf({ mac: name, macKey: key });
  const p = octets(message);
  const icv = new Uint8Array(ah.icvLen);
  // Twice: what a transform keeps from one packet must not show in the next.
  ah.sign(octets('ff'.repeat(33)), 0, 33, 7, icv, 0);
  ah.sign(p, 0, p.length, -1, icv, 0);
  return hex(icv);
}
