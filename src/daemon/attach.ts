import type { Address } from '../base/address.ts';
import type { BacklogCounts } from '../drivers/backlog-counts.ts';
import type { Link } from '../drivers/link.ts';
import type { DiversionTable } from '../drivers/linux/diversion.ts';
import type { DiverterEvents } from '../drivers/linux/diverter.ts';
import type { SocketPort } from '../drivers/linux/redirect-filter.ts';
import type { SocketDevice } from '../drivers/linux/socket-device.ts';
import type { SocketSink } from '../engine/core.ts';
import type { Host } from '../engine/host.ts';
import type { PolicyService } from '../inet/policy-options.ts';

/** How a host hangs on its machine: two links or three, and what the machine has to be told. */
export interface HostAttachment {
  /** For people: `TUN testudo0, raw IP`. */
  readonly description: string;
  /** For people: how packets are exchanged with the kernel, where there is a choice. */
  describeIo?(): readonly string[];
  readonly wire: Link;
  /** Packets that wait because the wire is slower than the host; only where they do. */
  readonly backlog?: BacklogCounts;
  /** What the local side sends and gets. */
  readonly local: Link;
  /**
   * Packets that came from the wire in the clear, to be judged; only where the kernel would deliver
   * them otherwise.
   */
  readonly inspect?: Link;
  /** To sockets with policies of their own, where they are to be told apart from others. */
  readonly deliverToSockets?: SocketSink;
  /**
   * The device for sockets whose policies ask for protection, opened by the first call; only where
   * programs have sockets of the machine. Throws an Error.
   */
  openSocketDevice?(): SocketDevice;
  /** The same, if it is open. */
  readonly socketDevice?: SocketDevice | undefined;
  /** Where sockets on that device take clear packets, which go to `inspect`. Throws an Error. */
  divertPorts?(ports: readonly SocketPort[]): void;
  /** The host is there, and its local side may use the table of sockets. */
  joined?(host: Host, reqid: PolicyService['reqid']): void;
  /** Copies of ICMP errors that the machine gets from the wire; only where it does. */
  readonly errors?: Link;
  /** SO_MARK of sockets whose packets bypass the host; only where packets are diverted. */
  readonly mark?: number;
  /** What the wire carries in one packet. */
  readonly wireMtu: number;
  /** Handles the packets that have arrived by now; only where they may wait in the kernel. */
  handleArrived?(): void;
  /** Addresses that are this host's own. */
  addresses(): readonly Address[];
  /**
   * From now on these packets go through the engine. The work is that of what has changed in the
   * table since the last call; without a change, what has failed is tried again.
   */
  divert(table: DiversionTable): void;
  /**
   * From now on ESP in UDP to these ports, which programs have bound, comes in by `inspect`, and
   * what else comes to them goes on to the programs. Missing where that cannot be.
   */
  sharePorts?(ports: readonly number[]): void;
  /** How many octets protection adds at most: what the local side sends must leave them free. */
  setOverhead(octets: number): void;
  /** The machine's network is followed, and these are told what came of it; where there is one. */
  follow?(events: DiverterEvents): void;
  /** Looks at the machine anew, after a failure. */
  refresh(): void;
  /** Undoes everything. */
  close(): void;
}
