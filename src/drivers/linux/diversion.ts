import type { Address, Prefix } from '../../base/address.ts';

/** Which packets of the host go through the engine instead of straight to and from the wire. */
export interface Diversion {
  /** Where to: packets to these destinations are routed into the TUN. */
  readonly out: readonly OutDiversion[];
  /** Clear packets from the wire that are redirected to the inspection TUN. */
  readonly in: readonly InDiversion[];
  /** Everything, in both directions: for a host whose default is to discard. */
  readonly all: boolean;
}

export interface OutDiversion {
  readonly destination: Prefix;
  /**
   * The address that local programs get for it; if not given, the one they would have without us.
   */
  readonly source?: Address;
}

export interface InDiversion {
  readonly source: Prefix;
  readonly destination: Prefix;
}

export const NO_DIVERSION: Diversion = { out: [], in: [], all: false };
