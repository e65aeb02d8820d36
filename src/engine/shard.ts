import type { Sa } from '../sad/sa.ts';
import type { Policy } from '../spd/policy.ts';
import type { Flight } from './flight.ts';

/**
 * A host whose work is divided: each shard has an engine of its own and uses the SAs that it owns
 * (`Sa.owner`), on a thread of its own. Shard 0 is the main one: it alone has what is not a
 * matter of one SA (larval SAs, packets that wait, fragments, ICMP errors, sockets, paths). This
 * is what an engine asks and tells the shard that it belongs to.
 *
 * What passes a packet on copies it, and returns false when it could not: then the packet is still
 * the caller's, to be dropped and counted.
 */
export interface Shard {
  readonly self: number;
  /** Packets that came out of SAs must go to the main shard, which knows who they are for. */
  readonly mainDelivers: boolean;
  /** To the owner of layer `from`: a packet that was decided about, with the layers from there. */
  passOutput(flight: Flight, from: number): boolean;
  /** To the owner of `flight.sa`: a packet from the wire, and the layers that were taken off it. */
  passInput(flight: Flight): boolean;
  /** To the main shard: a packet of the local side that nobody has decided about. */
  referOutput(flight: Flight): boolean;
  /** To the main shard: a packet from the wire, and the layers that were taken off it. */
  referInput(flight: Flight): boolean;
  /** A batch ends: others see what was passed to them. */
  flush(): void;
  /** A packet followed a policy. */
  noteUsed(policy: Policy): void;
  /** The peer of an SA, behind a NAT, is at another place now. */
  peerMoved(sa: Sa): void;
}

/** Only the main shard knows what is not a matter of one SA. */
export function isWorker(shard: Shard | undefined): shard is Shard {
  return shard !== undefined && shard.self !== 0;
}

/**
 * Leaves in a flight what another shard has found out about packet `i` of a batch. `anew`: that is
 * not true any more, and the packet is as it was before; `gone`: an SA has gone that the packet has
 * been through, or half through.
 */
export type Way = (i: number, flight: Flight) => 'known' | 'anew' | 'gone';
