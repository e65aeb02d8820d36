import type { Address } from '../base/address.ts';

/**
 * PF_KEY v2 messages (RFC 2367, with the SPD extension of KAME) as typed objects: the shape that
 * `pfkey.ts` decodes to and encodes from, and that setkey and the key engine speak. Numbers, byte
 * order and padding live in the codec only.
 */

/** The whole message. `extensions` keep the order of the wire; each type at most once. */
export interface Message {
  readonly type: MessageType;
  /** 0 or an errno number. */
  readonly errno: number;
  readonly satype: SaType;
  readonly seq: number;
  readonly pid: number;
  /** sadb_msg_reserved: dumps carry a reference count in it. */
  readonly reserved: number;
  readonly extensions: readonly Extension[];
  /**
   * X_PROMISC only: the whole message that was seen, as octets; such a message has no extensions of
   * its own.
   */
  readonly wrapped?: Uint8Array;
}

export type MessageType =
  | 'GETSPI'
  | 'UPDATE'
  | 'ADD'
  | 'DELETE'
  | 'GET'
  | 'ACQUIRE'
  | 'REGISTER'
  | 'EXPIRE'
  | 'FLUSH'
  | 'DUMP'
  | 'X_PROMISC'
  | 'X_PCHANGE'
  | 'X_SPDUPDATE'
  | 'X_SPDADD'
  | 'X_SPDDELETE'
  | 'X_SPDGET'
  | 'X_SPDACQUIRE'
  | 'X_SPDDUMP'
  | 'X_SPDFLUSH'
  | 'X_SPDSETIDX'
  | 'X_SPDEXPIRE'
  | 'X_SPDDELETE2'
  | 'X_NAT_T_NEW_MAPPING'
  | 'X_MIGRATE';

export type SaType =
  | 'unspec'
  | 'promisc'
  | 'ah'
  | 'esp'
  | 'rsvp'
  | 'ospfv2'
  | 'ripv2'
  | 'mip'
  | 'ipcomp'
  | 'tcpsignature';

/**
 * One extension; `type` tells the variant. Every variant's octets: the struct of the same name in
 * net/pfkeyv2.h.
 */
export type Extension =
  | SaExtension
  | LifetimeExtension
  | AddressExtension
  | KeyExtension
  | IdentityExtension
  | SensitivityExtension
  | ProposalExtension
  | SupportedExtension
  | SpiRangeExtension
  | KmPrivateExtension
  | PolicyExtension
  | Sa2Extension
  | NatTypeExtension
  | NatPortExtension
  | NatAddressExtension
  | NatFragmentExtension
  | SecurityContextExtension
  | ReplayExtension
  | NewAddressExtension
  | TestudoExtension
  | OpaqueExtension;

export type ExtensionType = Extension['type'];

export interface SaExtension {
  readonly type: 'SA';
  readonly spi: number;
  /**
   * As on the wire, one octet; in packets on Linux, in octets of bitmap (8 packets each) on BSD.
   */
  readonly replay: number;
  readonly state: number;
  /** SADB_AALG_* and SADB_EALG_* numbers; crypto/algorithms.ts says what they mean. */
  readonly auth: number;
  readonly encrypt: number;
  readonly flags: number;
}

/**
 * Times in seconds, `CURRENT` since 1970; octets and times are 64 bits on the wire, and exact up to
 * 2^53.
 */
export interface LifetimeExtension {
  readonly type: 'LIFETIME_CURRENT' | 'LIFETIME_HARD' | 'LIFETIME_SOFT';
  readonly allocations: number;
  readonly bytes: number;
  readonly addTime: number;
  readonly useTime: number;
}

export interface AddressExtension {
  readonly type: 'ADDRESS_SRC' | 'ADDRESS_DST' | 'ADDRESS_PROXY';
  /** Upper protocol of a selector; 255 or 0 in SAs. */
  readonly proto: number;
  readonly prefixLen: number;
  readonly address: Address;
  readonly port: number;
  readonly scopeId: number;
}

export interface KeyExtension {
  readonly type: 'KEY_AUTH' | 'KEY_ENCRYPT';
  readonly bits: number;
  readonly key: Uint8Array;
}

export interface IdentityExtension {
  readonly type: 'IDENTITY_SRC' | 'IDENTITY_DST';
  readonly idType: number;
  readonly id: number;
  /** The string as sent, without trailing zeros. */
  readonly text: string;
}

export interface SensitivityExtension {
  readonly type: 'SENSITIVITY';
  readonly body: Uint8Array;
}

export interface ProposalExtension {
  readonly type: 'PROPOSAL';
  readonly replay: number;
  readonly combs: readonly Comb[];
}

export interface Comb {
  readonly auth: number;
  readonly encrypt: number;
  readonly flags: number;
  readonly authBits: { readonly min: number; readonly max: number };
  readonly encryptBits: { readonly min: number; readonly max: number };
  readonly soft: CombLifetime;
  readonly hard: CombLifetime;
}

export interface CombLifetime {
  readonly allocations: number;
  readonly bytes: number;
  readonly addTime: number;
  readonly useTime: number;
}

export interface SupportedExtension {
  readonly type: 'SUPPORTED_AUTH' | 'SUPPORTED_ENCRYPT';
  readonly algorithms: readonly SupportedAlgorithm[];
}

export interface SupportedAlgorithm {
  readonly id: number;
  readonly ivLen: number;
  readonly minBits: number;
  readonly maxBits: number;
}

/** Host byte order on the wire, unlike the SPI of an SA. */
export interface SpiRangeExtension {
  readonly type: 'SPIRANGE';
  readonly min: number;
  readonly max: number;
}

export interface KmPrivateExtension {
  readonly type: 'X_KMPRIVATE';
  readonly body: Uint8Array;
}

export interface PolicyExtension {
  readonly type: 'X_POLICY';
  readonly policyType: number;
  readonly direction: number;
  /** FreeBSD's scope, NetBSD's flags; otherwise 0. */
  readonly reserved: number;
  readonly id: number;
  readonly priority: number;
  readonly requests: readonly PolicyRequest[];
}

/** sadb_x_ipsecrequest; the dialect decides whether it has 8 or 16 octets. */
export interface PolicyRequest {
  /** IP protocol number: 50, 51 or 108. */
  readonly proto: number;
  readonly mode: number;
  readonly level: number;
  readonly reqid: number;
  readonly src?: Endpoint;
  readonly dst?: Endpoint;
}

export interface Endpoint {
  readonly address: Address;
  readonly port: number;
}

export interface Sa2Extension {
  readonly type: 'X_SA2';
  readonly mode: number;
  readonly sequence: number;
  readonly reqid: number;
}

export interface NatTypeExtension {
  readonly type: 'X_NAT_T_TYPE';
  readonly encapsulation: number;
}

export interface NatPortExtension {
  readonly type: 'X_NAT_T_SPORT' | 'X_NAT_T_DPORT';
  readonly port: number;
}

/** The original address of a peer behind a NAT (Linux OA, BSD OAI and OAR). */
export interface NatAddressExtension {
  readonly type: 'X_NAT_T_OAI' | 'X_NAT_T_OAR';
  readonly proto: number;
  readonly prefixLen: number;
  readonly address: Address;
  readonly port: number;
}

export interface NatFragmentExtension {
  readonly type: 'X_NAT_T_FRAG';
  readonly fragmentLen: number;
}

export interface SecurityContextExtension {
  readonly type: 'X_SEC_CTX';
  readonly algorithm: number;
  readonly doi: number;
  readonly context: Uint8Array;
}

/**
 * FreeBSD: the replay window in packets, with 32 bits. The linux dialect says it with X_TESTUDO.
 */
export interface ReplayExtension {
  readonly type: 'X_SA_REPLAY';
  readonly packets: number;
}

export interface NewAddressExtension {
  readonly type: 'X_NEW_ADDRESS_SRC' | 'X_NEW_ADDRESS_DST';
  readonly proto: number;
  readonly prefixLen: number;
  readonly address: Address;
  readonly port: number;
}

/**
 * What an SA of ours can have and Linux's numbers cannot say; private extension 64 of the linux
 * dialect. It is sent only when one of its fields differs from the value given here first, because
 * strict clients refuse numbers above 26.
 */
export interface TestudoExtension {
  readonly type: 'X_TESTUDO';
  /** Replay window in packets, above the 255 of `sadb_sa_replay`; 0: as the SA extension says. */
  readonly replayPackets: number;
  /** AH is padded to a multiple of so many octets (RFC 4302 §2.6); 0: 4 for IPv4 and 8 for IPv6. */
  readonly ahAlign: 0 | 4 | 8;
  /** DF bit of the outer header of an IPv4 tunnel; `default`: as the sysctl says. */
  readonly df: 'default' | 'clear' | 'set' | 'copy';
  /** ECN across a tunnel (RFC 6040); `default`: as the sysctl says. */
  readonly ecn: 'default' | 'forbidden' | 'allowed';
}

/** Known to a dialect, carried along, not interpreted here. */
export interface OpaqueExtension {
  readonly type: 'X_TAG' | 'X_PACKET' | 'X_KMADDRESS' | 'X_FILTER';
  readonly body: Uint8Array;
}

/** Whose numbers and sizes are on the wire. It belongs to a socket and is never guessed. */
export type Dialect = 'linux' | 'bsd';

/**
 * The variant with that type, also where variants share a shape (Extract would find none of those).
 */
export type ExtensionOf<T extends ExtensionType, E = Extension> = E extends {
  readonly type: infer U;
}
  ? T extends U
    ? E
    : never
  : never;

/** The extension of that type, if the message has one. */
export function extension<T extends ExtensionType>(
  message: Message,
  type: T,
): ExtensionOf<T> | undefined {
  return message.extensions.find((one) => one.type === type) as ExtensionOf<T> | undefined;
}
