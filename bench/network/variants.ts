import { cryptoTiers } from '../providers.ts';
import { bare } from './peers/bare.ts';
import { openvpn } from './peers/openvpn.ts';
import { relay } from './peers/relay.ts';
import { strongswan } from './peers/strongswan.ts';
import { type TestudoOptions, testudo, type Way } from './peers/testudo.ts';
import { wireguard } from './peers/wireguard.ts';
import type { Variant } from './variant.ts';

const WAYS: readonly Way[] = ['tunnel-udp', 'transport-udp', 'tunnel-raw'];

/**
 * Everything that is compared, on the wire as it is and on one of 1500 octets. `wireguardGo`: paths
 * of programs.
 */
export function allVariants(wireguardGo: readonly string[]): Variant[] {
  const tiers = cryptoTiers().map(({ name }) => name);
  const [first, ...natives] = tiers;
  const ours = (crypto: string, way: Way, other: Partial<TestudoOptions> = {}) =>
    testudo({
      crypto,
      way,
      offload: true,
      compiled: true,
      pinned: false,
      limited: false,
      ...other,
    });
  return [
    bare(false),
    relay(),
    ...wireguardGo.map((program) => wireguard(program, false)),
    strongswan(),
    openvpn(),
    ours(first!, 'tunnel-udp', { offload: false }),
    ...tiers.flatMap((crypto) => WAYS.map((way) => ours(crypto, way))),
    ...natives.map((crypto) => ours(crypto, 'tunnel-udp', { compiled: false })),
    ...natives.map((crypto) => ours(crypto, 'tunnel-udp', { pinned: true })),
    bare(true),
    ...wireguardGo.map((program) => wireguard(program, true)),
    ...tiers.flatMap((crypto) => {
      return (['tunnel-udp', 'transport-udp'] as const).map((way) =>
        ours(crypto, way, { limited: true }),
      );
    }),
  ];
}
