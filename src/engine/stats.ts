import { DROPS, type DropReason } from '../base/drop.ts';

/** Which side of the host counted: packets coming in from the wire, or going out to it. */
export type Side = 'in' | 'out';

export type Drops = Readonly<Record<Side, Readonly<Record<DropReason, number>>>>;

/** What a host counts. Plain fields, so that counting costs an addition. */
export class Stats {
  /** Packets that arrived from the wire, and those of them handed on after all checks. */
  inPackets = 0;
  inDelivered = 0;
  /**
   * Packets that the local side sent, and those that left: protected, and in the clear by policy.
   */
  outPackets = 0;
  outProtected = 0;
  outClear = 0;
  /** Layers opened and sealed. */
  espOpened = 0;
  espSealed = 0;
  ahOpened = 0;
  ahSealed = 0;
  /** Outer fragments made; datagrams put together, and the fragments that they came in. */
  fragmentsMade = 0;
  reassembled = 0;
  fragmentsJoined = 0;
  acquires = 0;
  tooBigSent = 0;
  natMappings = 0;
  keepalivesSent = 0;

  readonly #drops = { in: noDrops(), out: noDrops() };

  get drops(): Drops {
    return this.#drops;
  }

  drop(side: Side, reason: DropReason): void {
    this.#drops[side][reason]++;
  }

  /** All reasons that have counted, with their numbers: what `status` shows. */
  dropped(side: Side): [DropReason, number][] {
    const rows = Object.entries(this.#drops[side]) as [DropReason, number][];
    return rows.filter(([, count]) => count > 0);
  }
}

function noDrops(): Record<DropReason, number> {
  const names = Object.keys(DROPS) as DropReason[];
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<DropReason, number>;
}
