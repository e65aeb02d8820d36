import { KeyError } from '../src/base/error.ts';
import { nodeCrypto } from '../src/crypto/node-provider.ts';
import type { CryptoProvider } from '../src/crypto/provider.ts';
import { loadIpsecMb } from '../src/drivers/native/ipsec-mb.ts';
import { loadOpenSsl } from '../src/drivers/native/openssl.ts';
import {
  CRYPTO_TIERS,
  chooseCrypto,
  type Loaders,
  type TierName,
} from '../src/drivers/native/tier.ts';

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
let uncompiled: readonly Tier[] | undefined;

/** All ways that a host can do it, the plainest first; as `testudo up --crypto` chooses them. */
export function cryptoTiers(): readonly Tier[] {
  known ??= [...CRYPTO_TIERS].reverse().map((name) => tierOf(name));
  return known;
}

/** The native ones where there was no C compiler at installation: without the loop over jobs. */
export function uncompiledTiers(): readonly Tier[] {
  const fast = () => ({ why: 'there was no C compiler at installation' });
  const loaders = { openSsl: loadOpenSsl, imb: loadIpsecMb, fast };
  uncompiled ??= (['openssl', 'ipsec-mb'] as const).map((name) => tierOf(name, loaders));
  return uncompiled;
}

function tierOf(name: TierName, loaders?: Loaders): Tier {
  try {
    const { provider, describe } = chooseCrypto(name, loaders);
    // Behind it is why it was chosen.
    const [description = ''] = describe().split(';');
    return { name, description, provider };
  } catch (error) {
    if (!(error instanceof KeyError)) throw error;
    return { name, description: '', absent: error.message };
  }
}

/** Those, none at all, and those without a compiler, under a name of their own. */
export function engineTiers(): readonly Tier[] {
  const nothing = { name: NO_CRYPTO, description: 'none', provider: none };
  const named = uncompiledTiers().map((tier) => ({ ...tier, name: `${tier.name}, no compiler` }));
  return [nothing, ...cryptoTiers(), ...named];
}
