import {
  type Address,
  formatAddress,
  isMulticast,
  isUnspecified,
  sameAddress,
} from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import {
  type Algorithm,
  authenticationById,
  encryptionById,
  PFKEY_ALG_NONE,
} from '../crypto/algorithms.ts';
import type { TransformSpec } from '../crypto/provider.ts';
import { HeldKeys } from '../sad/held-keys.ts';
import { type Lifetime, NO_LIMIT } from '../sad/lifetime.ts';
import { REPLAY_WINDOW_MAX, REPLAY_WINDOW_MIN } from '../sad/replay.ts';
import {
  type Encapsulation,
  type SaIdentity,
  type SaKeys,
  type SaMode,
  type SaSpec,
  type SaTunnelOptions,
  saSpec,
} from '../sad/sa.ts';
import {
  extension,
  type Message,
  type SaExtension,
  type TestudoExtension,
} from '../wire/pfkey-message.ts';
import { MODE, NAT_T_ESP_IN_UDP, SA_FLAG } from '../wire/pfkey-table.ts';
import { sameKey } from './compare.ts';
import type { KeyContext } from './context.ts';
import { protocolOf, required, saAddressPair } from './fields.ts';
import type { Session } from './session.ts';

/**
 * The smallest window that `sadb_sa_replay` leads to: clients count it in packets, in octets, or
 * send a constant, so it says little more than on or off, and RFC 4303 §3.4.3 wants 64 as default.
 * X_TESTUDO says exact windows.
 */
const REPLAY_HINT_MIN = 64;

const NO_KEY = new Uint8Array(0);
const NO_KEYS: SaKeys = { auth: 0, encrypt: 0, authKey: NO_KEY, encryptKey: NO_KEY };
const NO_OPTIONS: SaTunnelOptions = {};
const NO_IDENTITIES: readonly SaIdentity[] = [];

/** What ADD, UPDATE of a larval SA and, without keys, GETSPI ask for. Throws KeyError. */
export function saSpecOf(context: KeyContext, message: Message, session: Session): SaSpec {
  const sa = required(message, 'SA');
  const base = larvalSpecOf(context, message, session);
  const testudo = extension(message, 'X_TESTUDO');
  checkFlags(sa.flags);
  const encapsulation = encapsulationOf(message);
  const replayPackets = replayPacketsOf(sa, testudo);
  const ahAlignLen = ahAlignLenOf(base, testudo);
  return saSpec({
    ...base,
    spi: sa.spi,
    ...cryptoOf(context, message, sa),
    replayPackets,
    ahAlignLen,
    esn: (sa.flags & SA_FLAG.esn) !== 0,
    // Sequence numbers never wrap here (RFC 4303 §3.3.3), so the SA does not claim that they do.
    flags: (sa.flags & ~SA_FLAG.cyclicSequence) >>> 0,
    padding: paddingOf(sa.flags),
    encapsulation,
    tunnel: tunnelOf(sa.flags, testudo),
    hard: lifetimeOf(context, message, 'LIFETIME_HARD') ?? NO_LIMIT,
    soft: lifetimeOf(context, message, 'LIFETIME_SOFT') ?? NO_LIMIT,
    identities: identitiesOf(message),
  });
}

/** What can be said of an SA before it has an SPI and keys. */
export function larvalSpecOf({ shared }: KeyContext, message: Message, session: Session): SaSpec {
  const protocol = protocolOf(message.satype);
  const { src, dst } = saAddressPair(message);
  const sa2 = extension(message, 'X_SA2');
  return saSpec({
    protocol,
    spi: 0,
    src: shared.address(src.address),
    dst: shared.address(dst.address),
    keys: NO_KEYS,
    mode: modeOf(sa2?.mode ?? MODE.any),
    reqid: sa2?.reqid ?? 0,
    pid: message.pid,
    seq: message.seq,
    origin: session.client.origin,
  });
}

/**
 * UPDATE of an SA that has its keys: new lifetimes, NAT-T ports and, in FreeBSD's way, addresses.
 * What it repeats, as strongSwan does, must be as it is: to change keys is to make another SA (RFC
 * 2367 §3.1.2).
 */
export function updatedSpecOf(context: KeyContext, spec: SaSpec, message: Message): SaSpec {
  const sa = required(message, 'SA');
  const { src } = saAddressPair(message);
  if (!sameAddress(src.address, spec.src)) {
    throw new KeyError('EINVAL', 'UPDATE: that is not the source of the SA; X_MIGRATE changes it');
  }
  checkSame('authentication algorithm', sa.auth, spec.keys.auth);
  checkSame('encryption algorithm', sa.encrypt, spec.keys.encrypt);
  checkSameKey('KEY_AUTH', message, spec.keys.authKey);
  checkSameKey('KEY_ENCRYPT', message, spec.keys.encryptKey);
  const sa2 = extension(message, 'X_SA2');
  if (sa2) {
    checkSame('reqid', sa2.reqid, spec.reqid);
    if (sa2.mode !== MODE.any) checkSame('mode', sa2.mode, MODE[spec.mode]);
  }
  const encapsulation = encapsulationOf(message);
  return {
    ...spec,
    src: newAddressOf(message, 'X_NEW_ADDRESS_SRC') ?? spec.src,
    dst: newAddressOf(message, 'X_NEW_ADDRESS_DST') ?? spec.dst,
    hard: lifetimeOf(context, message, 'LIFETIME_HARD') ?? spec.hard,
    soft: lifetimeOf(context, message, 'LIFETIME_SOFT') ?? spec.soft,
    encapsulation: encapsulation ?? spec.encapsulation,
  };
}

function newAddressOf(
  message: Message,
  type: 'X_NEW_ADDRESS_SRC' | 'X_NEW_ADDRESS_DST',
): Address | undefined {
  const given = extension(message, type)?.address;
  if (!given || (!isUnspecified(given) && !isMulticast(given))) return given;
  throw new KeyError('EINVAL', `${type}: ${formatAddress(given)} is not the address of a host`);
}

/** 0 repeats what is there: setkey and GET replies leave out what they do not know. */
function checkSame(what: string, asked: number, is: number): void {
  if (asked === 0 || asked === is) return;
  throw new KeyError('EINVAL', `UPDATE cannot change the ${what} of an SA from ${is} to ${asked}`);
}

function checkSameKey(type: 'KEY_AUTH' | 'KEY_ENCRYPT', message: Message, is: Uint8Array): void {
  const given = extension(message, type);
  if (!given) return;
  if (sameKey(given.key, is)) return;
  throw new KeyError('EINVAL', `${type}: UPDATE cannot change the keys of an SA that has them`);
}

function modeOf(mode: number): SaMode {
  if (mode === MODE.any) return 'any';
  if (mode === MODE.transport) return 'transport';
  if (mode === MODE.tunnel) return 'tunnel';
  throw new KeyError('EINVAL', `X_SA2: mode ${mode}; 0 any, 1 transport and 2 tunnel are known`);
}

const KNOWN_FLAGS =
  SA_FLAG.cyclicSequence | SA_FLAG.padMask | SA_FLAG.esn | SA_FLAG.noEcn | SA_FLAG.noPmtuDiscovery;

function checkFlags(flags: number): void {
  if (flags & SA_FLAG.old) {
    throw new KeyError('EOPNOTSUPP', 'the formats of RFC 1826 and RFC 1827 are not supported');
  }
  if (flags & (SA_FLAG.derived | SA_FLAG.iv4b)) {
    throw new KeyError('EOPNOTSUPP', 'IVs of 32 bits or derived from the counter are not secure');
  }
  if (flags & SA_FLAG.decapDscp) {
    throw new KeyError('EOPNOTSUPP', 'copying the DSCP out of a tunnel is not supported');
  }
  const unknown = flags & ~KNOWN_FLAGS;
  if (unknown) {
    throw new KeyError('EINVAL', `SA flags 0x${(unknown >>> 0).toString(16)} are not known`);
  }
  if ((flags & SA_FLAG.padMask) === SA_FLAG.padMask) {
    throw new KeyError('EINVAL', 'SA flags ask for random and for zero padding');
  }
}

function paddingOf(flags: number): SaSpec['padding'] {
  if (flags & SA_FLAG.padRandom) return 'random';
  return flags & SA_FLAG.padZero ? 'zero' : 'sequential';
}

function replayPacketsOf(sa: SaExtension, testudo: TestudoExtension | undefined): number {
  const exact = testudo?.replayPackets ?? 0;
  if (exact > 0) {
    if (exact >= REPLAY_WINDOW_MIN && exact <= REPLAY_WINDOW_MAX) return exact;
    throw new KeyError(
      'EINVAL',
      `a replay window of ${exact} packets; ${REPLAY_WINDOW_MIN} to ${REPLAY_WINDOW_MAX} are possible`,
    );
  }
  if (sa.replay === 0) return 0;
  return Math.min(Math.max(sa.replay, REPLAY_HINT_MIN), REPLAY_WINDOW_MAX);
}

/** RFC 4302 §3.3.3.2.1: AH is padded to a multiple of 4 octets on IPv4, 8 on IPv6. */
function ahAlignLenOf(spec: SaSpec, testudo: TestudoExtension | undefined): 4 | 8 {
  const asked = testudo?.ahAlign ?? 0;
  if (spec.dst.family === 4) return asked === 8 ? 8 : 4;
  if (asked === 4) throw new KeyError('EINVAL', 'AH over IPv6 is padded to 8 octets, never to 4');
  return 8;
}

function tunnelOf(flags: number, testudo: TestudoExtension | undefined): SaTunnelOptions {
  const df = testudo && testudo.df !== 'default' ? testudo.df : undefined;
  const ecn = testudo && testudo.ecn !== 'default' ? testudo.ecn === 'allowed' : undefined;
  // Linux: XFRM_STATE_NOPMTUDISC leaves DF of the outer header clear.
  const flagDf = flags & SA_FLAG.noPmtuDiscovery ? ('clear' as const) : undefined;
  const flagEcn = flags & SA_FLAG.noEcn ? false : undefined;
  const wanted = { df: df ?? flagDf, ecn: ecn ?? flagEcn };
  if (wanted.df === undefined && wanted.ecn === undefined) return NO_OPTIONS;
  return {
    ...(wanted.df === undefined ? {} : { df: wanted.df }),
    ...(wanted.ecn === undefined ? {} : { ecn: wanted.ecn }),
  };
}

type Crypto = Pick<SaSpec, 'keys' | 'esp' | 'ah'>;

/** Made last, when nothing else can fail any more: it holds keys that somebody has to zero. */
function cryptoOf(context: KeyContext, message: Message, sa: SaExtension): Crypto {
  const { crypto, allowLegacy, slab } = context;
  const cipher = algorithmOf('encryption', sa.encrypt, encryptionById);
  const mac = algorithmOf('authentication', sa.auth, authenticationById);
  const macKey = extension(message, 'KEY_AUTH')?.key ?? NO_KEY;
  const cipherKey = extension(message, 'KEY_ENCRYPT')?.key ?? NO_KEY;
  const given = { auth: sa.auth, encrypt: sa.encrypt, authKey: macKey, encryptKey: cipherKey };
  const spec: TransformSpec = { cipher, cipherKey, mac, macKey, allowLegacy };
  // Copies: an SA zeroes its keys at its end, and the request belongs to someone else.
  const keys = new HeldKeys(given, slab);
  try {
    return message.satype === 'esp'
      ? { keys, esp: crypto.esp(spec, keys) }
      : { keys, ah: crypto.ah(spec, keys) };
  } catch (error) {
    keys.authKey.fill(0);
    keys.encryptKey.fill(0);
    throw error;
  }
}

function algorithmOf(
  what: string,
  id: number,
  lookUp: (id: number) => Algorithm | undefined,
): Algorithm | undefined {
  if (id === PFKEY_ALG_NONE) return undefined;
  const row = lookUp(id);
  if (!row) throw new KeyError('EINVAL', `${what} algorithm ${id} is not known`);
  return row;
}

function lifetimeOf(
  { shared }: KeyContext,
  message: Message,
  type: 'LIFETIME_HARD' | 'LIFETIME_SOFT',
): Lifetime | undefined {
  const given = extension(message, type);
  if (!given) return undefined;
  const { allocations, bytes, addTime, useTime } = given;
  return shared.lifetime({ packets: allocations, bytes, addSeconds: addTime, useSeconds: useTime });
}

function identitiesOf({ extensions }: Message): readonly SaIdentity[] {
  const found = extensions.flatMap((one) =>
    one.type === 'IDENTITY_SRC' || one.type === 'IDENTITY_DST' ? [one] : [],
  );
  return found.length > 0 ? found : NO_IDENTITIES;
}

function encapsulationOf(message: Message): Encapsulation | undefined {
  const type = extension(message, 'X_NAT_T_TYPE');
  if (!type || type.encapsulation === 0) return undefined;
  if (type.encapsulation !== NAT_T_ESP_IN_UDP) {
    throw new KeyError(
      'EOPNOTSUPP',
      `encapsulation ${type.encapsulation} is not supported: ${NAT_T_ESP_IN_UDP} (RFC 3948) is`,
    );
  }
  if (message.satype !== 'esp') throw new KeyError('EINVAL', 'only ESP goes over UDP (RFC 3948)');
  const srcPort = required(message, 'X_NAT_T_SPORT').port;
  const dstPort = required(message, 'X_NAT_T_DPORT').port;
  if (srcPort === 0 || dstPort === 0) throw new KeyError('EINVAL', 'a UDP port of 0');
  const original = extension(message, 'X_NAT_T_OAI')?.address;
  return { srcPort, dstPort, ...(original ? { original } : {}) };
}
