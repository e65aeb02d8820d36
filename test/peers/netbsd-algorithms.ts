import { authenticationByName, encryptionByName } from '../../src/crypto/algorithms.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';

/**
 * A row of the tables of NetBSD's tests/net/ipsec/algorithms.sh: lengths of keys in bits, such as
 * are good and such as are not.
 */
export interface Row {
  readonly protocol: 'esp' | 'ah';
  readonly name: string;
  readonly valid: readonly number[];
  readonly invalid: readonly number[];
}

const AES = { valid: [128, 192, 256], invalid: [120, 136, 184, 200, 248, 264] };
const WITH_SALT = { valid: [160, 224, 288], invalid: [152, 168, 216, 232, 280, 296] };

export const ESP: readonly Row[] = [
  esp('des-cbc', [64], [56, 72]),
  esp('3des-cbc', [192], [184, 200]),
  esp('null', [0], [8]),
  esp('blowfish-cbc', [40, 448], [32, 456]),
  esp('cast128-cbc', [40, 128], [32, 136]),
  esp('des-deriv', [64], [56, 72]),
  esp('rijndael-cbc', AES.valid, AES.invalid),
  esp('aes-ctr', WITH_SALT.valid, WITH_SALT.invalid),
  esp('camellia-cbc', AES.valid, AES.invalid),
  esp('aes-gcm-16', WITH_SALT.valid, WITH_SALT.invalid),
  esp('aes-gmac', WITH_SALT.valid, WITH_SALT.invalid),
];

export const AH: readonly Row[] = [
  ah('hmac-md5', 128),
  ah('hmac-sha1', 160),
  ah('keyed-md5', 128),
  ah('keyed-sha1', 160),
  { protocol: 'ah', name: 'null', valid: [0], invalid: [8] },
  ah('hmac-sha256', 256),
  ah('hmac-sha384', 384),
  ah('hmac-sha512', 512),
  ah('hmac-ripemd160', 160),
  ah('aes-xcbc-mac', 128),
];

/** `-E des-cbc 0x…`; keys of 3DES are no good if two of their thirds are the same. */
export function algorithmArgs({ protocol, name }: Row, bits: number): string {
  const key = Array.from({ length: bits / 8 }, (_, i) => (0x11 + i).toString(16).padStart(2, '0'));
  const text = bits === 0 ? '' : `0x${key.join('')}`;
  return `${protocol === 'esp' ? '-E' : '-A'} ${name} ${text}`;
}

/** As in the names of the tests there: without dashes. */
export function plainName({ name }: Row): string {
  return name.replaceAll('-', '');
}

/** The errno of an SA with such an algorithm here; undefined: there can be one. */
export function refusalOf({ protocol, name }: Row): 'EINVAL' | 'EOPNOTSUPP' | undefined {
  // Its IV is a function of the sequence number, which nobody could then call unpredictable.
  if (name === 'des-deriv') return 'EOPNOTSUPP';
  // AH without an ICV is none (RFC 4302 §2.6).
  if (protocol === 'ah' && name === 'null') return 'EINVAL';
  const found = protocol === 'esp' ? encryptionByName(name) : authenticationByName(name);
  return nodeCrypto.supports(found!) ? undefined : 'EOPNOTSUPP';
}

function esp(name: string, valid: readonly number[], invalid: readonly number[]): Row {
  return { protocol: 'esp', name, valid, invalid };
}

function ah(name: string, bits: number): Row {
  return { protocol: 'ah', name, valid: [bits], invalid: [bits - 8, bits + 8] };
}
