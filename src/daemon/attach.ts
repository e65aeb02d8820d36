import type { Address } from '../base/address.ts';
import type { Link } from '../drivers/link.ts';
import type { Diversion } from '../drivers/linux/diversion.ts';

/** How a host hangs on its machine: two links or three, and what the machine has to be told. */
export interface HostAttachment {
  /** For people: `TUN testudo0, raw IP`. */
  readonly description: string;
  readonly wire: Link;
  /** What the local side sends and gets. */
  readonly local: Link;
  /**
   * Packets that came from the wire in the clear, to be judged; only where the kernel would deliver
   * them otherwise.
   */
  readonly inspect?: Link;
  /** Copies of ICMP errors that the machine gets from the wire; only where it does. */
  readonly errors?: Link;
  /** SO_MARK of sockets whose packets bypass the host; only where packets are diverted. */
  readonly mark?: number;
  /** What the wire carries in one packet. */
  readonly wireMtu: number;
  /** Addresses that are this host's own. */
  addresses(): readonly Address[];
  /** From now on these packets go through the engine. */
  divert(diversion: Diversion): void;
  /**
   * From now on ESP in UDP to these ports, which programs have bound, comes in by `inspect`, and
   * what else comes to them goes on to the programs. Missing where that cannot be.
   */
  sharePorts?(ports: readonly number[]): void;
  /** How many octets protection adds at most: what the local side sends must leave them free. */
  setOverhead(octets: number): void;
  /** Devices or addresses of the machine may have changed. */
  refresh(): void;
  /** Undoes everything. */
  close(): void;
}
