import type { Lookup } from '../spd/policy-index.ts';
import type { Cursor } from '../wire/cursor.ts';
import type { Packet } from '../wire/packet.ts';
import type { Core } from './core.ts';
import type { Flight } from './flight.ts';
import { isSameFlow } from './same-flow.ts';

/**
 * Looking ahead pays when there are so many policies that finding one is waiting for memory, and
 * the flow cache did not know at least so many packets since the last batch: what it knows is
 * faster asked one by one, when its turn comes.
 */
const MIN = { policies: 8192, misses: 16 } as const;

/**
 * Asks for the policies of many packets at once, before the first of them is decided: in a large
 * table of policies that is faster for each than alone (`Spd.lookupBatch`).
 */
export class LookAhead {
  readonly #packets: Packet[] = [];
  readonly #cursors: Cursor[] = [];
  readonly #flights: Flight[] = [];
  readonly #answers: Lookup[] = [];
  #misses = 0;

  /** Whether it pays, by the packets of late. To be asked once a batch. */
  isWorth({ spd }: Core): boolean {
    if (spd.count('out') < MIN.policies) return false;
    const misses = spd.cacheCounters[4].misses + spd.cacheCounters[6].misses;
    const since = misses - this.#misses;
    this.#misses = misses;
    return since >= MIN.misses;
  }

  /**
   * Leaves the policies of those packets that are going to be asked for in their decoded flights. A
   * decision may change the policies (by an ACQUIRE): they count for their generation alone.
   */
  run({ spd }: Core, flights: readonly Flight[], count: number): void {
    let asked = 0;
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      if (!flight.active || flight.cursor.isFragment) continue;
      if (i > 0 && flights[i - 1]!.active && isNext(flight, flights[i - 1]!)) continue;
      this.#packets[asked] = flight.packet;
      this.#cursors[asked] = flight.cursor;
      this.#flights[asked] = flight;
      asked++;
    }
    spd.lookupBatch('out', this.#packets, this.#cursors, asked, this.#answers);
    for (let i = 0; i < asked; i++) {
      this.#flights[i]!.foreseen = this.#answers[i];
      this.#flights[i]!.foreseenIn = spd.generation;
    }
  }
}

/** It will be decided as the one before it. */
function isNext(flight: Flight, before: Flight): boolean {
  return isSameFlow(flight.packet, flight.cursor, before.packet, before.cursor);
}
