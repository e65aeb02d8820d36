import { KeyError } from '../../base/error.ts';
import { encryptionByName } from '../../crypto/algorithms.ts';
import { nodeCrypto } from '../../crypto/node-provider.ts';
import type { CryptoProvider } from '../../crypto/provider.ts';
import { loadFast } from './fast-library.ts';
import { loadIpsecMb } from './ipsec-mb.ts';
import { type Absent, isAbsent } from './koffi.ts';
import { loadOpenSsl } from './openssl.ts';
import { NativeProvider } from './provider.ts';

/** Ways to do the cryptography, the best first. */
export const CRYPTO_TIERS = ['ipsec-mb', 'openssl', 'node'] as const;
export type TierName = (typeof CRYPTO_TIERS)[number];
export type CryptoChoice = 'auto' | TierName;
export const CRYPTO_CHOICES: readonly CryptoChoice[] = ['auto', ...CRYPTO_TIERS];

/** The provider that was chosen. */
export interface CryptoTier {
  readonly name: TierName;
  readonly provider: CryptoProvider;
  /** What runs and, in words, why nothing better does; for people. It may change with time. */
  readonly describe: () => string;
}

/** What is there without anything native. */
export const NODE_TIER: CryptoTier = {
  name: 'node',
  provider: nodeCrypto,
  describe: () => nodeCrypto.name,
};

/** Where the parts of native providers come from. */
export interface Loaders {
  readonly openSsl: typeof loadOpenSsl;
  readonly imb: typeof loadIpsecMb;
  readonly fast: typeof loadFast;
}

const LOADERS: Loaders = { openSsl: loadOpenSsl, imb: loadIpsecMb, fast: loadFast };

/**
 * The provider that was asked for; `auto`: the best that is there and gives right answers. Throws
 * KeyError EOPNOTSUPP when another one is not there.
 */
export function chooseCrypto(choice: CryptoChoice, loaders = LOADERS): CryptoTier {
  const notes: string[] = [];
  for (const name of CRYPTO_TIERS) {
    if (choice !== 'auto' && choice !== name) continue;
    const found = make(name, loaders);
    if (!isAbsent(found)) {
      const asked = choice === 'auto' ? [] : ['as it was asked for'];
      const describe = () => [...found.describe(), ...asked, ...notes].join('; ');
      return { name, provider: found.provider, describe };
    }
    if (choice === name) throw new KeyError('EOPNOTSUPP', `no crypto by ${name}: ${found.why}`);
    notes.push(`not ${name}: ${found.why}`);
  }
  throw new Error('node:crypto is always there');
}

interface Found {
  readonly provider: CryptoProvider;
  readonly describe: () => readonly string[];
}

function make(name: TierName, loaders: Loaders): Found | Absent {
  if (name === 'node') return { provider: nodeCrypto, describe: () => [nodeCrypto.name] };
  const openSsl = loaders.openSsl();
  if (isAbsent(openSsl)) return openSsl;
  const imb = name === 'ipsec-mb' ? loaders.imb() : undefined;
  if (imb && isAbsent(imb)) return imb;
  const fast = loaders.fast();
  const isFast = !isAbsent(fast);
  const provider = new NativeProvider({ openSsl, imb, fast: isFast ? fast : undefined });
  provider.isNative(encryptionByName(MEASURE)!);
  if (provider.faults.length > 0) return { why: provider.faults.join('; ') };
  const what = imb
    ? `intel-ipsec-mb ${imb.version} (${imb.processor}) and Node's ${openSsl.version}`
    : `Node's ${openSsl.version}`;
  const how = isFast ? 'a call a batch' : `calls for each packet, since ${fast.why}`;
  return { provider, describe: () => [`${what}, ${how}`, ...provider.faults] };
}

/** A tier that cannot do what nearly every SA uses is none. */
const MEASURE = 'aes-gcm-16';
