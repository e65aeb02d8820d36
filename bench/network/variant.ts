import type { Testbed } from './testbed.ts';

/** A tunnel that is up. */
export interface Tunnel {
  /** Addresses at A and at B; what goes from one to the other is protected. */
  readonly from: string;
  readonly to: string;
  /** Of the programs that do it, at both ends. */
  readonly pids: readonly number[];
}

/** One way to bring packets from A to B. */
export interface Variant {
  /** For tables. */
  readonly name: string;
  /** For `--only`, and in results. */
  readonly id: string;
  /** Whether packets cross a wire that carries nothing above 1500 octets. */
  readonly limited: boolean;
  /** Why it cannot be had on this machine; undefined if it can. */
  readonly absent: string | undefined;
  /** What it is, with its version. */
  readonly about: string;
  /** Without protection: then there is nothing to prove. */
  readonly isBare?: boolean;
  start(bed: Testbed): Promise<Tunnel>;
}
