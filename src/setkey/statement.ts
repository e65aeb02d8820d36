import type { Family } from '../base/address.ts';
import type { Algorithm } from '../crypto/algorithms.ts';
import type { PolicyExtension, SaType } from '../wire/pfkey-message.ts';
import type { Place } from './place.ts';

/** What a setkey file says, one object per statement, before names are resolved. */
export type Statement =
  | SaStatement
  | DeleteAllStatement
  | PolicyStatement
  | TypeStatement
  | PlainStatement;

/** add, update: a whole SA. get, delete, getspi: only what names one. */
export interface SaStatement {
  readonly command: 'add' | 'update' | 'get' | 'delete' | 'getspi';
  readonly place: Place;
  readonly lookup: Lookup;
  readonly src: HostSpec;
  readonly dst: HostSpec;
  readonly protocol: Protocol;
  readonly spi: number;
  /** esp-udp: the original address of the peer behind the NAT. */
  readonly originalAddress: HostSpec | undefined;
  readonly options: SaOptions;
  readonly encryption: Keyed | undefined;
  readonly authentication: Keyed | undefined;
  /** ipcomp: SADB_X_CALG_*. */
  readonly compression: number | undefined;
}

export interface DeleteAllStatement {
  readonly command: 'deleteall';
  readonly place: Place;
  readonly lookup: Lookup;
  readonly src: HostSpec;
  readonly dst: HostSpec;
  /** `unspec`: of every type. */
  readonly satype: SaType;
}

export interface PolicyStatement {
  readonly command: 'spdadd' | 'spdupdate' | 'spddelete';
  readonly place: Place;
  readonly lookup: Lookup;
  /** Undefined in the `tagged` form, which names packets by a packet filter's tag. */
  readonly selector: SelectorSpec | undefined;
  readonly context: SecurityContext | undefined;
  readonly policy: PolicyExtension;
}

export interface TypeStatement {
  readonly command: 'flush' | 'dump';
  readonly place: Place;
  readonly satype: SaType;
}

export interface PlainStatement {
  readonly command: 'spdflush' | 'spddump' | 'exit';
  readonly place: Place;
}

/** -4, -6 and -n of a statement. */
export interface Lookup {
  readonly family: Family | undefined;
  readonly numeric: boolean;
}

/** An address or name as written, with its port, which may be the name of a service. */
export interface HostSpec {
  readonly name: string;
  readonly port: number | string;
  readonly place: Place;
}

export interface SelectorSpec {
  readonly src: HostSpec;
  readonly dst: HostSpec;
  /** Undefined: the whole address. */
  readonly srcPrefixLen: number | undefined;
  readonly dstPrefixLen: number | undefined;
  readonly proto: number;
  /** ICMP type and code, or the halves of a GRE key: they travel in the ports. */
  readonly misc: { readonly src: number; readonly dst: number } | undefined;
}

export type Protocol = 'esp' | 'esp-old' | 'esp-udp' | 'ah' | 'ah-old' | 'ipcomp' | 'tcp';

export interface SaOptions {
  readonly mode: number;
  readonly reqid: number;
  /** sadb_sa_replay as given to -r; `windowPackets` (-w) overrides it. */
  readonly replay: number;
  readonly windowPackets: number | undefined;
  readonly flags: number;
  readonly hard: Limits;
  readonly soft: Limits;
  readonly context: SecurityContext | undefined;
  readonly ahAlign: 0 | 4 | 8;
  readonly df: 'default' | 'clear' | 'set' | 'copy';
  readonly ecn: 'default' | 'forbidden' | 'allowed';
}

/** Undefined: not limited by this statement. */
export interface Limits {
  readonly seconds?: number;
  readonly bytes?: number;
}

export interface SecurityContext {
  readonly doi: number;
  readonly algorithm: number;
  readonly text: string;
}

export interface Keyed {
  readonly algorithm: Algorithm;
  readonly key: Uint8Array;
  readonly place: Place;
}
