import { ADDRESS_BITS, type Address } from '../base/address.ts';
import type { Lifetime } from '../sad/lifetime.ts';
import type { SaSpec } from '../sad/sa.ts';
import type { SaView } from '../sad/sa-view.ts';
import type {
  AddressExtension,
  Extension,
  KeyExtension,
  LifetimeExtension,
} from '../wire/pfkey-message.ts';
import { MODE, NAT_T_ESP_IN_UDP, SA_FLAG, SA_STATE } from '../wire/pfkey-table.ts';

/** Everything but the keys: the reply to ADD and UPDATE, and what others hear of it. */
export function publicParts(view: SaView): Extension[] {
  return [
    saPart(view),
    sa2Part(view),
    lifetimePart('LIFETIME_HARD', view.spec.hard),
    lifetimePart('LIFETIME_SOFT', view.spec.soft),
    ...addressParts(view.spec),
    ...view.spec.identities,
    ...encapsulationParts(view.spec),
    ...testudoPart(view.spec),
  ];
}

/** Everything, keys included: GET and DUMP, to the asker alone. */
export function wholeParts(view: SaView): Extension[] {
  return [
    saPart(view),
    sa2Part(view),
    lifetimePart('LIFETIME_HARD', view.spec.hard),
    lifetimePart('LIFETIME_SOFT', view.spec.soft),
    currentPart(view),
    ...addressParts(view.spec),
    ...keyParts(view),
    ...view.spec.identities,
    ...encapsulationParts(view.spec),
    ...testudoPart(view.spec),
  ];
}

/**
 * EXPIRE (RFC 2367 §3.1.8): which limit was reached shows in which of the two lifetimes is there.
 */
export function expireParts(view: SaView, limit: 'soft' | 'hard'): Extension[] {
  return [
    saPart(view),
    sa2Part(view),
    currentPart(view),
    limit === 'soft'
      ? lifetimePart('LIFETIME_SOFT', view.spec.soft)
      : lifetimePart('LIFETIME_HARD', view.spec.hard),
    ...addressParts(view.spec),
    ...encapsulationParts(view.spec),
  ];
}

/** Which SA: the replies to GETSPI and DELETE. */
export function identityParts(view: SaView): Extension[] {
  return [saPart(view), sa2Part(view), ...addressParts(view.spec)];
}

export function saPart({ spec, state }: SaView): Extension {
  return {
    type: 'SA',
    spi: spec.spi,
    replay: spec.replayPackets,
    state: SA_STATE[state],
    auth: spec.keys.auth,
    encrypt: spec.keys.encrypt,
    flags: spec.flags,
  };
}

export function sa2Part({ spec, sentSeq }: SaView): Extension {
  return { type: 'X_SA2', mode: MODE[spec.mode], sequence: sentSeq >>> 0, reqid: spec.reqid };
}

export function addressParts(spec: Pick<SaSpec, 'src' | 'dst'>): AddressExtension[] {
  return [hostPart('ADDRESS_SRC', spec.src), hostPart('ADDRESS_DST', spec.dst)];
}

/**
 * An address of a host; clients take 0 as well as 255 for the protocol of an SA, and Linux sends 0.
 */
export function hostPart(
  type: 'ADDRESS_SRC' | 'ADDRESS_DST',
  address: Address,
  port = 0,
  proto = 0,
): AddressExtension {
  const prefixLen = ADDRESS_BITS[address.family];
  return { type, proto, prefixLen, address, port, scopeId: 0 };
}

function lifetimePart(
  type: 'LIFETIME_HARD' | 'LIFETIME_SOFT',
  { packets, bytes, addSeconds, useSeconds }: Lifetime,
): LifetimeExtension {
  return { type, allocations: packets, bytes, addTime: addSeconds, useTime: useSeconds };
}

/**
 * `allocations` counts packets, as clients of Linux expect; times are when it was added and first
 * used.
 */
export function currentPart({ usage, addedWallMs, firstUseWallMs }: SaView): LifetimeExtension {
  return {
    type: 'LIFETIME_CURRENT',
    allocations: Math.min(usage.packets, 0xffff_ffff),
    bytes: usage.bytes,
    addTime: Math.floor(addedWallMs / 1000),
    useTime: Math.floor(firstUseWallMs / 1000),
  };
}

/** An SA that died since it was looked at has no keys any more, and is shown without. */
function keyParts({ sa, spec }: SaView): KeyExtension[] {
  if (sa.state === 'dead') return [];
  const { authKey, encryptKey } = spec.keys;
  return [
    ...(authKey.length > 0 ? [keyPart('KEY_AUTH', authKey)] : []),
    ...(encryptKey.length > 0 ? [keyPart('KEY_ENCRYPT', encryptKey)] : []),
  ];
}

function keyPart(type: 'KEY_AUTH' | 'KEY_ENCRYPT', key: Uint8Array): KeyExtension {
  return { type, bits: 8 * key.length, key: key.slice() };
}

export function encapsulationParts({ encapsulation, src }: SaSpec): Extension[] {
  if (!encapsulation) return [];
  const { srcPort, dstPort, original } = encapsulation;
  return [
    { type: 'X_NAT_T_TYPE', encapsulation: NAT_T_ESP_IN_UDP },
    { type: 'X_NAT_T_SPORT', port: srcPort },
    { type: 'X_NAT_T_DPORT', port: dstPort },
    ...(original && original.family === src.family
      ? [
          {
            type: 'X_NAT_T_OAI' as const,
            proto: 0,
            prefixLen: ADDRESS_BITS[original.family],
            address: original,
            port: 0,
          },
        ]
      : []),
  ];
}

const REPLAY_OCTET_MAX = 255;

/** Only where it says something: strict clients refuse extensions that they do not know. */
function testudoPart(spec: SaSpec): Extension[] {
  const { replayPackets, ahAlignLen, dst, tunnel, protocol, flags } = spec;
  const usualAlign = dst.family === 4 ? 4 : 8;
  // What the flags of Linux have said already is not repeated.
  const dfSaid = tunnel.df === 'clear' && (flags & SA_FLAG.noPmtuDiscovery) !== 0;
  const ecnSaid = tunnel.ecn === false && (flags & SA_FLAG.noEcn) !== 0;
  const part = {
    type: 'X_TESTUDO' as const,
    replayPackets: replayPackets > REPLAY_OCTET_MAX ? replayPackets : 0,
    ahAlign: protocol === 'ah' && ahAlignLen !== usualAlign ? ahAlignLen : (0 as const),
    df: tunnel.df === undefined || dfSaid ? ('default' as const) : tunnel.df,
    ecn: tunnel.ecn === undefined || ecnSaid ? ('default' as const) : ecnOf(tunnel.ecn),
  };
  const says =
    part.replayPackets > 0 || part.ahAlign > 0 || part.df !== 'default' || part.ecn !== 'default';
  return says ? [part] : [];
}

function ecnOf(allowed: boolean): 'allowed' | 'forbidden' {
  return allowed ? 'allowed' : 'forbidden';
}
