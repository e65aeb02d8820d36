import { ALGORITHMS, type Algorithm } from '../crypto/algorithms.ts';
import type { SaProtocol } from '../sad/sa.ts';
import type {
  Comb,
  CombLifetime,
  ProposalExtension,
  SupportedAlgorithm,
  SupportedExtension,
} from '../wire/pfkey-message.ts';
import type { KeyContext } from './context.ts';

/** A day, and eight hours of use; soft limits at 80 % of them (key_getprop of KAME). */
const HARD: CombLifetime = { allocations: 0, bytes: 0, addTime: 86_400, useTime: 28_800 };
const SOFT: CombLifetime = { allocations: 0, bytes: 0, addTime: 69_120, useTime: 23_040 };

/**
 * The lists of a REGISTER reply: what an SA of this type can have here. `undefined`: of any type.
 */
export function supportedParts(
  context: KeyContext,
  protocol: SaProtocol | undefined,
): SupportedExtension[] {
  const usable = ALGORITHMS.filter((row) => isUsable(context, row));
  const auth = usable.filter((row) => row.kind === 'mac' && fits(row, protocol));
  const encrypt = usable.filter((row) => row.kind !== 'mac');
  return [
    { type: 'SUPPORTED_AUTH', algorithms: auth.map(supported) },
    ...(protocol === 'ah'
      ? []
      : [{ type: 'SUPPORTED_ENCRYPT' as const, algorithms: encrypt.map(supported) }]),
  ];
}

/**
 * What key exchange is asked to negotiate, best first: AEADs, then ciphers with each MAC. Nothing
 * obsolete.
 */
export function proposal(context: KeyContext, protocol: SaProtocol): ProposalExtension {
  const good = ALGORITHMS.filter(
    (row) =>
      isUsable(context, row) && !row.legacy && row.name !== 'null' && row.name !== 'aes-gmac',
  );
  const macs = good.filter((row) => row.kind === 'mac' && fits(row, protocol));
  if (protocol === 'ah') {
    const combs = macs.flatMap((row) => combOf(row, undefined, context.settings.ahKeyMin));
    return { type: 'PROPOSAL', replay: 32, combs };
  }
  const { espKeyMin: keyMin, espAuth } = context.settings;
  const aeads = good.filter((row) => row.kind === 'aead');
  const ciphers = good.filter((row) => row.kind === 'cipher');
  return {
    type: 'PROPOSAL',
    replay: 32,
    combs: [
      ...aeads.flatMap((row) => combOf(undefined, row, keyMin)),
      ...ciphers.flatMap((row) => {
        return (espAuth ? macs : [undefined]).flatMap((mac) => combOf(mac, row, keyMin));
      }),
    ],
  };
}

function isUsable({ crypto, allowLegacy }: KeyContext, row: Algorithm): boolean {
  return crypto.supports(row) && (allowLegacy || !row.legacy);
}

/** RFC 4543: as a MAC, GMAC is for AH, and `null` is for ESP. */
function fits(mac: Algorithm, protocol: SaProtocol | undefined): boolean {
  if (protocol === 'ah') return mac.name !== 'null';
  return protocol === undefined || mac.ivLen === 0;
}

function supported({ pfkey, ivLen, keyBits }: Algorithm): SupportedAlgorithm {
  return { id: pfkey, ivLen, minBits: keyBits.min, maxBits: keyBits.max };
}

/** None when the longest key is too short for the setting; `keyMin` does not count the salt. */
function combOf(mac: Algorithm | undefined, cipher: Algorithm | undefined, keyMin: number): Comb[] {
  const row = cipher ?? mac;
  if (!row || row.keyBits.max - 8 * row.saltLen < keyMin) return [];
  const raised = { min: Math.max(row.keyBits.min, keyMin + 8 * row.saltLen), max: row.keyBits.max };
  const macBits = mac ? { min: mac.keyBits.min, max: mac.keyBits.max } : { min: 0, max: 0 };
  return [
    {
      auth: mac?.pfkey ?? 0,
      encrypt: cipher?.pfkey ?? 0,
      flags: 0,
      authBits: cipher ? macBits : raised,
      encryptBits: cipher ? raised : { min: 0, max: 0 },
      soft: SOFT,
      hard: HARD,
    },
  ];
}
