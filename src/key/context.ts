import type { Env } from '../base/env.ts';
import type { LazyCrypto } from '../crypto/lazy.ts';
import type { Sad } from '../sad/sad.ts';
import type { SharedValues } from '../sad/shared-values.ts';
import type { Slab } from '../sad/slab.ts';
import type { Spd } from '../spd/spd.ts';
import type { Extension, Message, SaType } from '../wire/pfkey-message.ts';
import type { AcquireList } from './acquire-list.ts';
import type { Session } from './session.ts';
import type { KeySettings } from './settings.ts';

/** What the handlers of messages share. */
export interface KeyContext {
  readonly env: Env;
  readonly sad: Sad;
  readonly spd: Spd;
  readonly crypto: LazyCrypto;
  /** Whether algorithms that RFC 8221 forbids may be used. */
  readonly allowLegacy: boolean;
  readonly settings: KeySettings;
  readonly acquires: AcquireList;
  /**
   * The policies that those being made will replace: a "unique" request keeps its reqid, and with
   * it its SAs.
   */
  readonly previous?: Spd;
  /** Where the keys of SAs are, and what they have in common. */
  readonly slab: Slab;
  readonly shared: SharedValues;
  /** The next reqid for a "unique" request without one. */
  readonly reqids: { next: number };
}

/**
 * What a handler answers; it throws KeyError instead when the request is refused. Who gets it,
 * apart from the asker: `one` nobody, `all` every client, `registered` those that registered for
 * the message's SA type.
 */
export type Answer =
  | {
      readonly kind: 'reply';
      readonly to: 'one' | 'all' | 'registered';
      readonly extensions: readonly Extension[];
      /** The sequence number, where it is not that of the request. */
      readonly seq?: number;
      readonly reserved?: number;
    }
  | { readonly kind: 'dump'; readonly entries: Dump }
  | { readonly kind: 'none' };

/**
 * Entries as they stood at one moment; `next` makes the message of one of them when there is room
 * for it. `return` must be called when they are not read to their end.
 */
export interface Dump {
  readonly length: number;
  next(): IteratorResult<DumpEntry, undefined>;
  return(): void;
}

export interface DumpEntry {
  readonly satype: SaType;
  readonly reserved: number;
  readonly extensions: readonly Extension[];
}

export type Handler = (context: KeyContext, message: Message, session: Session) => Answer;
