import type { Random } from '../../src/base/env.ts';
import {
  type FaultCounts,
  type FaultLink,
  type Faults,
  faultLink,
} from '../../src/drivers/fault.ts';
import { type MemoryLink, memoryPair } from '../../src/drivers/memory.ts';

/** A wire between two hosts whose both directions suffer the same faults. */
export class Wire {
  readonly ends: readonly [FaultLink, FaultLink];
  readonly #inner: readonly [MemoryLink, MemoryLink];

  constructor(random: Random) {
    const pair = memoryPair({ delivery: 'queued', queueMax: 100_000 });
    this.#inner = pair;
    this.ends = [faultLink(pair[0], random), faultLink(pair[1], random)];
  }

  setFaults(faults: Faults): void {
    for (const end of this.ends) end.setFaults(faults);
  }

  /** Delivers everything that is on its way; how many packets that were. */
  flush(): number {
    return this.#inner[0].flush() + this.#inner[1].flush();
  }

  /** Of both directions together. */
  get counts(): FaultCounts {
    const [a, b] = this.ends;
    const sum = { ...a.counts };
    for (const key of Object.keys(sum) as (keyof FaultCounts)[]) sum[key] += b.counts[key];
    return sum;
  }
}
