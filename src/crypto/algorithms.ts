import { KeyError } from '../base/error.ts';

/**
 * The table of algorithms: what setkey, PF_KEY (REGISTER, ADD), the help texts and Wireshark's key
 * tables know of them is made from these rows. Which of them can be constructed is for a provider
 * to say (`CryptoProvider.supports`).
 */
export interface Algorithm {
  /** `cipher` and `aead` are for setkey's -E and SADB_EALG; `mac` is for -A and SADB_AALG. */
  readonly kind: 'cipher' | 'aead' | 'mac';
  /** The name that setkey -D prints (ipsec-tools' spelling). */
  readonly name: string;
  /** Other spellings that setkey reads: KAME's, FreeBSD's, older ones. */
  readonly aliases: readonly string[];
  /**
   * SADB_EALG_* or SADB_AALG_*. Linux and the BSDs agree wherever both have a number; those that
   * only one of them has are free in the other and mean the same there. 245 and 246 are our own,
   * for what has a number in neither.
   */
  readonly pfkey: number;
  /** IKEv2 transform id (RFC 7296 §3.3.2, IANA): ENCR for ciphers and AEADs, INTEG for MACs. */
  readonly ike?: number;
  /** Allowed key lengths in bits, salt included: `min`, `min + step`, … `max`. */
  readonly keyBits: KeyBits;
  /** Octets of salt or nonce at the end of the key. */
  readonly saltLen: number;
  /** Octets of IV in every packet; for a MAC, at the beginning of AH's ICV field. */
  readonly ivLen: number;
  /** How that IV must be chosen: never twice under one key, or so that nobody can guess it. */
  readonly iv: 'none' | 'unique' | 'unpredictable';
  /** Octets that the text must be a multiple of; 1 for stream ciphers. */
  readonly blockLen: number;
  /** Octets of ICV, without the IV. */
  readonly icvLen: number;
  /**
   * RFC 8221 says MUST NOT, or RFC 9395 calls it deprecated, or it was never in an RFC: only with
   * --allow-legacy.
   */
  readonly legacy: boolean;
  /** Where it is specified for ESP or AH. */
  readonly source: string;
  /**
   * Its name in Wireshark's esp_sa table, if it has one. For MACs without one: the entry that only
   * knows the length.
   */
  readonly wireshark?: string;
}

export interface KeyBits {
  readonly min: number;
  readonly max: number;
  readonly step: number;
}

/** What a row is unless it says otherwise. */
const REST = {
  aliases: [],
  saltLen: 0,
  ivLen: 0,
  iv: 'none',
  blockLen: 1,
  icvLen: 0,
  legacy: false,
} as const;

type Mac = Pick<Algorithm, 'name' | 'pfkey' | 'keyBits' | 'icvLen' | 'source'> & Partial<Algorithm>;
type Cipher = Pick<Algorithm, 'name' | 'pfkey' | 'keyBits' | 'source'> & Partial<Algorithm>;

/**
 * Every algorithm that setkey knows by name. The order is that of the lists in REGISTER replies.
 */
export const ALGORITHMS: readonly Algorithm[] = [
  mac({
    name: 'hmac-md5',
    pfkey: 2,
    ike: 1,
    keyBits: only(128),
    icvLen: 12,
    legacy: true,
    source: 'RFC 2403',
    wireshark: 'HMAC-MD5-96 [RFC2403]',
  }),
  mac({
    name: 'hmac-sha1',
    pfkey: 3,
    ike: 2,
    keyBits: only(160),
    icvLen: 12,
    source: 'RFC 2404',
    wireshark: 'HMAC-SHA-1-96 [RFC2404]',
  }),
  mac({
    name: 'hmac-sha256',
    aliases: ['hmac-sha2-256'],
    pfkey: 5,
    ike: 12,
    keyBits: only(256),
    icvLen: 16,
    source: 'RFC 4868',
    wireshark: 'HMAC-SHA-256-128 [RFC4868]',
  }),
  mac({
    name: 'hmac-sha384',
    aliases: ['hmac-sha2-384'],
    pfkey: 6,
    ike: 13,
    keyBits: only(384),
    icvLen: 24,
    source: 'RFC 4868',
    wireshark: 'HMAC-SHA-384-192 [RFC4868]',
  }),
  mac({
    name: 'hmac-sha512',
    aliases: ['hmac-sha2-512'],
    pfkey: 7,
    ike: 14,
    keyBits: only(512),
    icvLen: 32,
    source: 'RFC 4868',
    wireshark: 'HMAC-SHA-512-256 [RFC4868]',
  }),
  mac({
    name: 'hmac-ripemd160',
    pfkey: 8,
    keyBits: only(160),
    icvLen: 12,
    source: 'RFC 2857',
    wireshark: 'MAC-RIPEMD-160-96 [RFC2857]',
  }),
  mac({
    name: 'aes-xcbc-mac',
    pfkey: 9,
    ike: 5,
    keyBits: only(128),
    icvLen: 12,
    source: 'RFC 3566',
    wireshark: 'ANY 96 bit authentication [no checking]',
  }),
  ...[128, 192, 256].map((bits, i) =>
    mac({
      name: `aes-gmac-${bits}`,
      pfkey: 11 + i,
      ike: 9 + i,
      keyBits: only(bits + 32),
      saltLen: 4,
      ivLen: 8,
      iv: 'unique',
      icvLen: 16,
      source: 'RFC 4543',
    }),
  ),
  mac({
    name: 'aes-cmac',
    pfkey: 245,
    ike: 8,
    keyBits: only(128),
    icvLen: 12,
    source: 'RFC 4494',
    wireshark: 'ANY 96 bit authentication [no checking]',
  }),
  mac({
    // What KAME makes of SHA2-256, and Linux unless told the length; peers that do still exist.
    name: 'hmac-sha256-96',
    aliases: ['hmac-sha2-256-96'],
    pfkey: 246,
    keyBits: only(256),
    icvLen: 12,
    source: 'draft-ietf-ipsec-ciph-sha-256-00',
    wireshark: 'HMAC-SHA-256-96 [draft-ietf-ipsec-ciph-sha-256-00]',
  }),
  mac({
    name: 'keyed-md5',
    pfkey: 249,
    ike: 4,
    keyBits: only(128),
    icvLen: 12,
    legacy: true,
    source: 'RFC 1828',
  }),
  mac({
    name: 'keyed-sha1',
    pfkey: 250,
    keyBits: only(160),
    icvLen: 12,
    legacy: true,
    source: 'RFC 1852',
  }),
  mac({
    name: 'null',
    pfkey: 251,
    keyBits: range(0, 2048, 8),
    icvLen: 0,
    source: 'RFC 4303 §3.3.2.1',
    wireshark: 'NULL',
  }),
  mac({
    name: 'tcp-md5',
    pfkey: 252,
    keyBits: range(8, 640, 8),
    icvLen: 16,
    legacy: true,
    source: 'RFC 2385',
  }),
  cbc({
    name: 'des-cbc',
    pfkey: 2,
    ike: 2,
    keyBits: only(64),
    legacy: true,
    source: 'RFC 2405',
    wireshark: 'DES-CBC [RFC2405]',
  }),
  cbc({
    name: '3des-cbc',
    pfkey: 3,
    ike: 3,
    keyBits: only(192),
    source: 'RFC 2451',
    wireshark: 'TripleDES-CBC [RFC2451]',
  }),
  cbc({
    name: 'cast128-cbc',
    pfkey: 6,
    ike: 6,
    keyBits: range(40, 128, 8),
    legacy: true,
    source: 'RFC 2451',
    wireshark: 'CAST5-CBC [RFC2144]',
  }),
  cbc({
    name: 'blowfish-cbc',
    pfkey: 7,
    ike: 7,
    keyBits: range(40, 448, 8),
    legacy: true,
    source: 'RFC 2451',
    wireshark: 'BLOWFISH-CBC [RFC2451]',
  }),
  cipher({
    name: 'null',
    aliases: ['simple'],
    pfkey: 11,
    ike: 11,
    keyBits: range(0, 2048, 8),
    source: 'RFC 2410',
    wireshark: 'NULL',
  }),
  cbc({
    name: 'aes-cbc',
    aliases: ['rijndael-cbc'],
    pfkey: 12,
    ike: 12,
    keyBits: range(128, 256, 64),
    ivLen: 16,
    blockLen: 16,
    source: 'RFC 3602',
    wireshark: 'AES-CBC [RFC3602]',
  }),
  cipher({
    name: 'aes-ctr',
    pfkey: 13,
    ike: 13,
    keyBits: range(160, 288, 64),
    saltLen: 4,
    ivLen: 8,
    iv: 'unique',
    source: 'RFC 3686',
    wireshark: 'AES-CTR [RFC3686]',
  }),
  ...[8, 12, 16].map((icvLen, i) =>
    aead({
      name: `aes-ccm-${icvLen}`,
      pfkey: 14 + i,
      ike: 14 + i,
      keyBits: range(152, 280, 64),
      saltLen: 3,
      icvLen,
      source: 'RFC 4309',
    }),
  ),
  ...[8, 12, 16].map((icvLen, i) =>
    aead({
      name: `aes-gcm-${icvLen}`,
      pfkey: 18 + i,
      ike: 18 + i,
      keyBits: range(160, 288, 64),
      icvLen,
      source: 'RFC 4106',
      wireshark: `AES-GCM with ${icvLen} octet ICV [RFC4106]`,
    }),
  ),
  cbc({
    name: 'camellia-cbc',
    pfkey: 22,
    ike: 23,
    keyBits: range(128, 256, 64),
    ivLen: 16,
    blockLen: 16,
    source: 'RFC 4312',
  }),
  aead({ name: 'aes-gmac', pfkey: 23, ike: 21, keyBits: range(160, 288, 64), source: 'RFC 4543' }),
  aead({ name: 'chacha20-poly1305', pfkey: 31, ike: 28, keyBits: only(288), source: 'RFC 7634' }),
  cbc({
    name: 'twofish-cbc',
    pfkey: 253,
    keyBits: range(128, 256, 64),
    ivLen: 16,
    blockLen: 16,
    legacy: true,
    source: 'draft-ietf-ipsec-ciph-aes-cbc-00',
    wireshark: 'TWOFISH-CBC',
  }),
];

/** SADB_EALG_NONE and SADB_AALG_NONE: an SA without this half. */
export const PFKEY_ALG_NONE = 0;

const ciphers = ALGORITHMS.filter((row) => row.kind !== 'mac');
const macs = ALGORITHMS.filter((row) => row.kind === 'mac');
const cipherByName = byName(ciphers);
const macByName = byName(macs);
const cipherById = new Map(ciphers.map((row) => [row.pfkey, row]));
const macById = new Map(macs.map((row) => [row.pfkey, row]));

/** What setkey's -E names: a cipher or an AEAD. */
export function encryptionByName(name: string): Algorithm | undefined {
  return cipherByName.get(name);
}

/** What setkey's -A names: a MAC. */
export function authenticationByName(name: string): Algorithm | undefined {
  return macByName.get(name);
}

/** The cipher or AEAD of a SADB_EALG_* number. */
export function encryptionById(id: number): Algorithm | undefined {
  return cipherById.get(id);
}

/** The MAC of a SADB_AALG_* number. */
export function authenticationById(id: number): Algorithm | undefined {
  return macById.get(id);
}

export function isKeyLength(of: Algorithm, bits: number): boolean {
  const { min, max, step } = of.keyBits;
  return bits >= min && bits <= max && (bits - min) % step === 0;
}

/** Throws EINVAL with the lengths that would do. `bits` counts the salt. */
export function checkKeyLength(of: Algorithm, bits: number): void {
  if (isKeyLength(of, bits)) return;
  const salt = of.saltLen === 0 ? '' : ` (with the ${8 * of.saltLen} bits of salt)`;
  const has = bits === 0 ? 'there is none' : `this one has ${bits}`;
  throw new KeyError(
    'EINVAL',
    `${of.name} takes a key of ${keyLengthText(of)} bits${salt}; ${has}`,
  );
}

/** `128, 192 or 256`, `160`, `40 to 448`: for error messages and help texts. */
export function keyLengthText(of: Algorithm): string {
  const { min, max, step } = of.keyBits;
  if (min === max) return `${min}`;
  if ((max - min) / step > 3) return `${min} to ${max}`;
  const all: number[] = [];
  for (let bits = min; bits < max; bits += step) all.push(bits);
  return `${all.join(', ')} or ${max}`;
}

function byName(rows: readonly Algorithm[]): ReadonlyMap<string, Algorithm> {
  return new Map(rows.flatMap((row) => [row.name, ...row.aliases].map((name) => [name, row])));
}

function only(bits: number): KeyBits {
  return range(bits, bits, 8);
}

function range(min: number, max: number, step: number): KeyBits {
  return { min, max, step };
}

function mac(row: Mac): Algorithm {
  return { ...REST, kind: 'mac', ...row };
}

function cipher(row: Cipher): Algorithm {
  return { ...REST, kind: 'cipher', ...row };
}

/**
 * Block ciphers of 64 bits unless said otherwise; their IV must not be predictable (RFC 3602 §3).
 */
function cbc(row: Cipher): Algorithm {
  return cipher({ ivLen: 8, iv: 'unpredictable', blockLen: 8, ...row });
}

/**
 * All AEADs for ESP carry an IV of 8 octets that must never repeat, and most have 4 octets of salt
 * and a full ICV.
 */
function aead(row: Cipher): Algorithm {
  return { ...REST, kind: 'aead', ivLen: 8, iv: 'unique', saltLen: 4, icvLen: 16, ...row };
}
