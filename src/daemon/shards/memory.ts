import { Bells } from './bell.ts';
import { controlMemory } from './control.ts';
import { RingReader, RingWriter, ringMemory } from './ring.ts';

/**
 * Octets of packets that may wait from one shard for another: what a turn of the event loop brings,
 * a few times.
 */
const RING_LEN = 4 << 20;

/** What the threads of a host share: sent to each when it starts. */
export interface ShardMemory {
  readonly bells: SharedArrayBuffer;
  /** Of shard `i + 1`, with the main one. */
  readonly controls: readonly SharedArrayBuffer[];
  /** `rings[from][to]`; none from a shard to itself. */
  readonly rings: readonly (readonly (SharedArrayBuffer | undefined)[])[];
}

export function shardMemory(count: number, ringLen = RING_LEN): ShardMemory {
  const all = Array.from({ length: count }, (_, i) => i);
  return {
    bells: Bells.memory(count),
    controls: all.slice(1).map(controlMemory),
    rings: all.map((from) => all.map((to) => (from === to ? undefined : ringMemory(ringLen)))),
  };
}

/** The ends of the rings at one shard. */
export function ringEnds({ rings }: ShardMemory, self: number) {
  const writers = rings[self]!.map((memory) => memory && new RingWriter(memory));
  const readers = rings.map((row) => row[self] && new RingReader(row[self]));
  return { writers, readers };
}
