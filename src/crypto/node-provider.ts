import {
  type CipherGCMTypes,
  createSecretKey,
  getCipherInfo,
  getHashes,
  type KeyObject,
} from 'node:crypto';
import { AhGmac, AhMac } from './ah-mac.ts';
import type { Algorithm } from './algorithms.ts';
import { EspAead, EspGmac } from './esp-aead.ts';
import { EspComposite } from './esp-composite.ts';
import { NodeAead, type NodeAeadName, NodeGmac } from './node-aead.ts';
import { aesCmac, aesXcbc } from './node-block-mac.ts';
import { NodeCbc, NodeCtr } from './node-cipher.ts';
import { NodeHmac, NodeKeyedHash } from './node-hash-mac.ts';
import type { Mac, TextCipher } from './primitive.ts';
import type { CryptoProvider, TransformSpec } from './provider.ts';
import { checkAhSpec, checkEspSpec, notInThisBuild } from './spec.ts';
import type { AhTransform, EspTransform } from './transform.ts';

const NAME = "Node's OpenSSL";

/**
 * The algorithms by node:crypto: everywhere that Node runs, and the measure for all other
 * providers.
 */
export const nodeCrypto: CryptoProvider = { name: 'node:crypto', supports, esp, ah };

/** `keyBits` is what OpenSSL is given. */
export interface OpenSslCipher {
  readonly name: string;
  readonly keyBits: number;
}

/** OpenSSL's name of a cipher for a key of `bits` without the salt. */
export function openSslCipher(of: Algorithm, bits: number): OpenSslCipher | undefined {
  const [family = ''] = of.name.split('-', 1);
  switch (of.name) {
    case 'aes-cbc':
    case 'camellia-cbc':
      return { name: `${family}-${bits}-cbc`, keyBits: bits };
    case 'aes-ctr':
      return { name: `aes-${bits}-ctr`, keyBits: bits };
    case 'aes-ccm-8':
    case 'aes-ccm-12':
    case 'aes-ccm-16':
      return { name: `aes-${bits}-ccm`, keyBits: bits };
    case 'aes-gcm-8':
    case 'aes-gcm-12':
    case 'aes-gcm-16':
    case 'aes-gmac':
    case 'aes-gmac-128':
    case 'aes-gmac-192':
    case 'aes-gmac-256':
      return { name: `aes-${bits}-gcm`, keyBits: bits };
    case 'chacha20-poly1305':
      return { name: 'chacha20-poly1305', keyBits: bits };
    case '3des-cbc':
      return { name: 'des-ede3-cbc', keyBits: bits };
    case 'des-cbc':
      // OpenSSL 3 keeps DES in its legacy module, but 3DES with three times the same key is the
      // same function.
      return { name: 'des-ede3-cbc', keyBits: 192 };
    case 'blowfish-cbc':
      return { name: 'bf-cbc', keyBits: bits };
    case 'cast128-cbc':
      return { name: 'cast5-cbc', keyBits: bits };
    default:
      return undefined;
  }
}

/** OpenSSL's names of the hashes inside MACs. */
export const HASH: Readonly<Record<string, string>> = {
  'hmac-md5': 'md5',
  'hmac-sha1': 'sha1',
  'hmac-sha256': 'sha256',
  'hmac-sha256-96': 'sha256',
  'hmac-sha384': 'sha384',
  'hmac-sha512': 'sha512',
  'hmac-ripemd160': 'ripemd160',
  'keyed-md5': 'md5',
  'keyed-sha1': 'sha1',
};

function supports(of: Algorithm): boolean {
  if (of.name === 'null') return true;
  const hash = HASH[of.name];
  if (hash !== undefined) return getHashes().includes(hash);
  if (of.name === 'aes-xcbc-mac' || of.name === 'aes-cmac') return isThere('aes-128-cbc', 128);
  const found = openSslCipher(of, of.keyBits.min - 8 * of.saltLen);
  return found !== undefined && isThere(found.name, found.keyBits);
}

/** With the key's length, since Node also describes ciphers of modules that are not loaded. */
function isThere(openSslName: string, keyBits: number): boolean {
  return getCipherInfo(openSslName, { keyLength: keyBits / 8 }) !== undefined;
}

function esp(spec: TransformSpec): EspTransform {
  const { cipher, mac } = checkEspSpec(spec);
  if (cipher?.kind === 'aead') return espAead(cipher, spec.cipherKey);
  return new EspComposite(
    cipher && { row: cipher, by: textCipher(cipher, spec.cipherKey) },
    mac && { row: mac, by: plainMac(mac, spec.macKey) },
  );
}

function ah(spec: TransformSpec): AhTransform {
  const mac = checkAhSpec(spec);
  if (mac.ivLen === 0) return new AhMac(mac, plainMac(mac, spec.macKey));
  const { key, salt, name } = keyed(mac, spec.macKey);
  return new AhGmac(mac, new NodeGmac(name as CipherGCMTypes, key), salt);
}

function espAead(row: Algorithm, octets: Uint8Array): EspTransform {
  const { key, salt, name } = keyed(row, octets);
  if (row.name === 'aes-gmac') {
    return new EspGmac(row, new NodeGmac(name as CipherGCMTypes, key), salt);
  }
  return new EspAead(row, new NodeAead(name as NodeAeadName, key, row.icvLen), salt);
}

function textCipher(row: Algorithm, octets: Uint8Array): TextCipher {
  const { key, salt, name } = keyed(row, octets);
  return row.name === 'aes-ctr'
    ? new NodeCtr(name, key, salt)
    : new NodeCbc(name, key, row.blockLen);
}

function plainMac(row: Algorithm, octets: Uint8Array): Mac {
  if (!supports(row)) throw notInThisBuild(row, NAME);
  if (row.name === 'keyed-md5') return new NodeKeyedHash('md5', octets);
  if (row.name === 'keyed-sha1') return new NodeKeyedHash('sha1', octets);
  const key = createSecretKey(octets);
  if (row.name === 'aes-xcbc-mac') return aesXcbc(key);
  if (row.name === 'aes-cmac') return aesCmac(key);
  const hash = HASH[row.name];
  if (hash === undefined) throw notInThisBuild(row, NAME);
  return new NodeHmac(hash, key);
}

/** Takes a key apart: what the cipher is keyed with, and the salt behind it. */
function keyed(
  row: Algorithm,
  octets: Uint8Array,
): { readonly key: KeyObject; readonly salt: Uint8Array; readonly name: string } {
  const keyLen = octets.length - row.saltLen;
  const found = openSslCipher(row, 8 * keyLen);
  if (!found || !isThere(found.name, found.keyBits)) throw notInThisBuild(row, NAME);
  const own = octets.subarray(0, keyLen);
  const key = row.name === 'des-cbc' ? tripled(own) : createSecretKey(own);
  return { key, salt: octets.subarray(keyLen), name: found.name };
}

function tripled(key: Uint8Array): KeyObject {
  const three = new Uint8Array(24);
  for (let i = 0; i < three.length; i++) three[i] = key[i % 8]!;
  const made = createSecretKey(three);
  three.fill(0);
  return made;
}
