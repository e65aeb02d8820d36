import { KeyError } from '../src/base/error.ts';
import { nodeCrypto } from '../src/crypto/node-provider.ts';
import type { CryptoProvider } from '../src/crypto/provider.ts';
import { loadIpsecMb } from '../src/drivers/native/ipsec-mb.ts';
import { isAbsent } from '../src/drivers/native/koffi.ts';
import { loadOpenSsl } from '../src/drivers/native/openssl.ts';
import { NativeProvider } from '../src/drivers/native/provider.ts';
import { CRYPTO_TIERS, chooseCrypto, type TierName } from '../src/drivers/native/tier.ts';

/** A way to do the cryptography, or why it is not there. */
export interface Tier {
  /** As `testudo up --crypto` knows it. */
  readonly name: string;
  /** What it is made of; empty if it is absent. */
  readonly description: string;
  readonly provider?: CryptoProvider;
  readonly absent?: string;
}

/**
 * Copies of the interface that do nothing: what is left is the engine. Only for two hosts in one
 * process, which believe each other.
 */
export const NO_CRYPTO = 'none';

const none: CryptoProvider = {
  ...nodeCrypto,
  name: NO_CRYPTO,
  esp: (spec) => {
    const { ivLen, icvLen, alignLen, iv, authenticates } = nodeCrypto.esp(spec);
    const shape = { ivLen, icvLen, alignLen, iv, authenticates };
    return { ...shape, seal: () => undefined, open: () => true, wipe: () => undefined };
  },
};

let known: readonly Tier[] | undefined;

/** All ways that a host can do it, the plainest first; as `testudo up --crypto` chooses them. */
export function cryptoTiers(): readonly Tier[] {
  known ??= [...CRYPTO_TIERS].reverse().map(tierOf);
  return known;
}

function tierOf(name: TierName): Tier {
  try {
    const { provider, describe } = chooseCrypto(name);
    // Behind it is why it was chosen.
    const [description = ''] = describe().split(';');
    return { name, description, provider };
  } catch (error) {
    if (!(error instanceof KeyError)) throw error;
    return { name, description: '', absent: error.message };
  }
}

/**
 * Those, none at all, and native libraries without the loop over jobs that is compiled at
 * installation, if there is a compiler.
 */
export function engineTiers(): readonly Tier[] {
  const nothing = { name: NO_CRYPTO, description: 'none', provider: none };
  return [nothing, ...cryptoTiers(), withoutCompiler('openssl'), withoutCompiler('ipsec-mb')];
}

function withoutCompiler(library: 'openssl' | 'ipsec-mb'): Tier {
  const tier = { name: `${library}, no compiler`, description: 'calls for each packet' };
  const openSsl = loadOpenSsl();
  if (isAbsent(openSsl)) return { ...tier, absent: openSsl.why };
  const imb = library === 'ipsec-mb' ? loadIpsecMb() : undefined;
  if (imb !== undefined && isAbsent(imb)) return { ...tier, absent: imb.why };
  return { ...tier, provider: new NativeProvider({ openSsl, imb }) };
}
