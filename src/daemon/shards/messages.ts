import type { Address, Family } from '../../base/address.ts';
import type { AhTransform, EspTransform } from '../../crypto/transform.ts';
import type { BacklogCounts } from '../../drivers/backlog-counts.ts';
import type { Path } from '../../engine/pmtu.ts';
import type { Settings } from '../../engine/settings.ts';
import type { SaSpec, SaState } from '../../sad/sa.ts';
import type { PolicySpec } from '../../spd/policy.ts';
import type { CacheCounters } from '../../spd/policy-index.ts';

/**
 * What the main shard tells the others, in order. Each is acknowledged when it is done. There are
 * no keys in these: what is sent between threads is copied to places that nobody can zero.
 */
export type ToShard =
  | { readonly kind: 'ledger'; readonly chunk: SharedArrayBuffer }
  | {
      readonly kind: 'gone';
      readonly slots: readonly number[];
      readonly retired: readonly number[];
    }
  | { readonly kind: 'sas'; readonly sas: readonly SaRecord[] }
  | { readonly kind: 'policies'; readonly gone: readonly number[]; readonly put: PolicyRecord[] }
  /** In place of all. */
  | { readonly kind: 'all policies'; readonly put: readonly PolicyRecord[] }
  | { readonly kind: 'host'; readonly host: HostRecord }
  /** Everything is to be told that has not been; `read`: first, what has arrived is to be read. */
  | { readonly kind: 'report'; readonly read: boolean }
  | { readonly kind: 'stop' };

/** An SA as it is now. */
export interface SaRecord {
  readonly slot: number;
  readonly state: Exclude<SaState, 'larval' | 'dead'>;
  readonly peer: UdpPlace | undefined;
  /** Missing: they are as they were. */
  readonly spec?: PlainSpec;
  /** Of one that is new. */
  readonly born?: SaBirthRecord;
}

export interface SaBirthRecord {
  readonly owner: number;
  readonly replayTop: number;
  readonly shape: Shape;
  readonly keys: KeyPlace | undefined;
}

/** Where the keys of an SA are, for its owner, in the memory that the two threads have for it. */
export interface KeyPlace {
  readonly at: number;
  readonly authLen: number;
  readonly encryptLen: number;
}

/**
 * A spec without what cannot or must not be sent, and without time limits: the main shard alone
 * looks at the clock.
 */
export type PlainSpec = Omit<SaSpec, 'keys' | 'esp' | 'ah'> & {
  readonly auth: number;
  readonly encrypt: number;
  /** Its first use starts a time limit. */
  readonly isTimed: boolean;
};

/** What those have to know of a transform who never use it. */
export type Shape =
  | ({ readonly kind: 'esp' } & Pick<
      EspTransform,
      'ivLen' | 'icvLen' | 'alignLen' | 'iv' | 'authenticates'
    >)
  | ({ readonly kind: 'ah' } & Pick<AhTransform, 'ivLen' | 'icvLen'>);

export interface PolicyRecord {
  readonly id: number;
  readonly spec: PolicySpec;
}

/** All else that the engine of a shard goes by. */
export interface HostRecord {
  readonly settings: Settings;
  readonly mtu: number;
  readonly paths: readonly Path[];
  /** Changes with them. */
  readonly pathsGeneration: number;
  /** See `Shard.mainDelivers`. */
  readonly mainDelivers: boolean;
}

export interface UdpPlace {
  readonly address: Address;
  readonly port: number;
}

/** What the others tell the main shard. */
export type ToMain =
  /** It has counted something for an SA that the main shard must know of. */
  | { readonly kind: 'look'; readonly slot: number }
  | {
      readonly kind: 'moved';
      readonly slot: number;
      readonly from: UdpPlace;
      readonly to: UdpPlace;
    }
  | { readonly kind: 'used'; readonly policies: readonly PolicyUse[] }
  | ShardReport;

/** What a shard has counted by then. */
export interface ShardReport {
  readonly kind: 'stats';
  /** Of its engine, as `shard-stats.ts` has them. */
  readonly numbers: Float64Array;
  readonly work: ShardWork;
  readonly cache: Readonly<Record<Family, CacheCounters>>;
}

export interface PolicyUse {
  readonly id: number;
  readonly lastUsedMs: number;
  readonly lastUsedWallMs: number;
}

/** What a shard has done apart from what its engine counts. */
export interface ShardWork {
  /** Packets that it has passed to others, taken over from them, and found no room for. */
  readonly passed: number;
  readonly taken: number;
  readonly refused: number;
  /** Packets that its links could not send. */
  readonly refusedByWire: number;
  readonly refusedByLocal: number;
  readonly backlog: BacklogCounts;
}

/** Messages that another thread has sent; each is there as soon as `post` returned over there. */
export interface Port<In, Out> {
  post(message: Out): void;
  take(): In | undefined;
}
