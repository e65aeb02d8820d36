import type { Dialect, ExtensionType, MessageType, SaType } from './pfkey-message.ts';

/**
 * The numbers of PF_KEY v2: RFC 2367 up to 16, then KAME's. The two dialects agree on messages and
 * on extensions below 20; from there each system went its own way (linux/pfkeyv2.h; FreeBSD's
 * net/pfkeyv2.h).
 */

export const PF_KEY_V2 = 2;

/** sizeof(struct sadb_msg); every length on the wire counts units of 8 octets. */
export const HEADER_LEN = 16;
export const UNIT = 8;

export const MESSAGE_TYPES = {
  GETSPI: 1,
  UPDATE: 2,
  ADD: 3,
  DELETE: 4,
  GET: 5,
  ACQUIRE: 6,
  REGISTER: 7,
  EXPIRE: 8,
  FLUSH: 9,
  DUMP: 10,
  X_PROMISC: 11,
  X_PCHANGE: 12,
  X_SPDUPDATE: 13,
  X_SPDADD: 14,
  X_SPDDELETE: 15,
  X_SPDGET: 16,
  X_SPDACQUIRE: 17,
  X_SPDDUMP: 18,
  X_SPDFLUSH: 19,
  X_SPDSETIDX: 20,
  X_SPDEXPIRE: 21,
  X_SPDDELETE2: 22,
  X_NAT_T_NEW_MAPPING: 23,
  X_MIGRATE: 24,
} as const satisfies Readonly<Record<MessageType, number>>;

export const SA_TYPES = {
  unspec: 0,
  promisc: 1,
  ah: 2,
  esp: 3,
  rsvp: 5,
  ospfv2: 6,
  ripv2: 7,
  mip: 8,
  ipcomp: 9,
  tcpsignature: 11,
} as const satisfies Readonly<Record<SaType, number>>;

/**
 * One row per extension: its number in each dialect (0: it has none there), and the least octets it
 * can have.
 */
export interface ExtensionRow {
  readonly type: ExtensionType;
  readonly linux: number;
  readonly bsd: number;
  readonly minLen: number;
}

export const EXTENSIONS: readonly ExtensionRow[] = [
  row('SA', 1, 1, 16),
  row('LIFETIME_CURRENT', 2, 2, 32),
  row('LIFETIME_HARD', 3, 3, 32),
  row('LIFETIME_SOFT', 4, 4, 32),
  row('ADDRESS_SRC', 5, 5, 24),
  row('ADDRESS_DST', 6, 6, 24),
  row('ADDRESS_PROXY', 7, 7, 24),
  row('KEY_AUTH', 8, 8, 8),
  row('KEY_ENCRYPT', 9, 9, 8),
  row('IDENTITY_SRC', 10, 10, 16),
  row('IDENTITY_DST', 11, 11, 16),
  row('SENSITIVITY', 12, 12, 16),
  row('PROPOSAL', 13, 13, 8),
  row('SUPPORTED_AUTH', 14, 14, 8),
  row('SUPPORTED_ENCRYPT', 15, 15, 8),
  row('SPIRANGE', 16, 16, 16),
  row('X_KMPRIVATE', 17, 17, 8),
  row('X_POLICY', 18, 18, 16),
  row('X_SA2', 19, 19, 16),
  row('X_NAT_T_TYPE', 20, 20, 8),
  row('X_NAT_T_SPORT', 21, 21, 8),
  row('X_NAT_T_DPORT', 22, 22, 8),
  row('X_NAT_T_OAI', 23, 23, 24),
  row('X_NAT_T_OAR', 0, 24, 24),
  row('X_SEC_CTX', 24, 0, 8),
  row('X_NAT_T_FRAG', 0, 25, 8),
  row('X_KMADDRESS', 25, 0, 8),
  row('X_SA_REPLAY', 0, 26, 8),
  row('X_FILTER', 26, 0, 40),
  row('X_NEW_ADDRESS_SRC', 0, 27, 24),
  row('X_NEW_ADDRESS_DST', 0, 28, 24),
  // KAME's 25 and 27, which FreeBSD gave to others: typed so that code can name them, on no wire.
  row('X_TAG', 0, 0, 24),
  row('X_PACKET', 0, 0, 8),
  // Ours. Far above 26, so that the next number Linux gives out is not ours.
  row('X_TESTUDO', 64, 0, 16),
];

/** IPSEC_MODE_*; `any` is legal in SAs only. */
export const MODE = { any: 0, transport: 1, tunnel: 2, beet: 3 } as const;

/** IPSEC_DIR_* on the wire. */
export const DIRECTION = { any: 0, in: 1, out: 2, fwd: 3 } as const;

/** IPSEC_POLICY_*. */
export const POLICY_TYPE = { discard: 0, none: 1, ipsec: 2, entrust: 3, bypass: 4 } as const;

/** IPSEC_LEVEL_*. */
export const LEVEL = { default: 0, use: 1, require: 2, unique: 3 } as const;

/** SADB_SASTATE_*. */
export const SA_STATE = { larval: 0, mature: 1, dying: 2, dead: 3 } as const;

/**
 * `sadb_sa_flags`. ESN has FreeBSD's number in both dialects: Linux leaves that bit free, and dumps
 * read the same everywhere.
 */
export const SA_FLAG = {
  old: 0x1,
  iv4b: 0x10,
  derived: 0x20,
  cyclicSequence: 0x40,
  rawCpi: 0x80,
  padSequential: 0x000,
  padRandom: 0x100,
  padZero: 0x200,
  padMask: 0x300,
  esn: 0x400,
  noPmtuDiscovery: 0x20000000,
  decapDscp: 0x40000000,
  noEcn: 0x80000000,
} as const;

/** Upper protocol of a selector that means every protocol, IPSEC_ULPROTO_ANY. */
export const PROTO_ANY = 255;

/** IPSEC_MANUAL_REQID_MAX: KAME gives out those above by itself, and dumps show them with `#`. */
export const REQID_MANUAL_MAX = 0x3fff;

/** UDP_ENCAP_ESPINUDP of sadb_x_nat_t_type. */
export const NAT_T_ESP_IN_UDP = 2;

/** AF_INET6 of the dialect; AF_INET is 2 everywhere. */
export const AF_INET = 2;
export const AF_INET6: Readonly<Record<Dialect, number>> = { linux: 10, bsd: 28 };

/** sizeof(struct sadb_x_ipsecrequest): Linux widened the reqid to 32 bits. */
export const REQUEST_LEN: Readonly<Record<Dialect, number>> = { linux: 16, bsd: 8 };

const messageNames = invert<MessageType>(MESSAGE_TYPES);
const saTypeNames = invert<SaType>(SA_TYPES);
const rowsByType = new Map(EXTENSIONS.map((one) => [one.type, one]));
const rowsByNumber: Readonly<Record<Dialect, ReadonlyMap<number, ExtensionRow>>> = {
  linux: new Map(EXTENSIONS.filter((one) => one.linux > 0).map((one) => [one.linux, one])),
  bsd: new Map(EXTENSIONS.filter((one) => one.bsd > 0).map((one) => [one.bsd, one])),
};

export function messageName(number: number): MessageType | undefined {
  return messageNames.get(number);
}

export function saTypeName(number: number): SaType | undefined {
  return saTypeNames.get(number);
}

export function extensionRow(type: ExtensionType): ExtensionRow {
  return rowsByType.get(type)!;
}

export function extensionByNumber(number: number, dialect: Dialect): ExtensionRow | undefined {
  return rowsByNumber[dialect].get(number);
}

/** The SA type that carries this IP protocol number, or undefined: 50, 51 and 108 are known. */
export function saTypeOfProto(proto: number): SaType | undefined {
  if (proto === 50) return 'esp';
  if (proto === 51) return 'ah';
  return proto === 108 ? 'ipcomp' : undefined;
}

function row(type: ExtensionType, linux: number, bsd: number, minLen: number): ExtensionRow {
  return { type, linux, bsd, minLen };
}

function invert<Name extends string>(
  table: Readonly<Record<Name, number>>,
): ReadonlyMap<number, Name> {
  return new Map(Object.entries<number>(table).map(([name, number]) => [number, name as Name]));
}
