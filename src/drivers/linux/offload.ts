import { type Libc, libc } from './libc.ts';
import { type PacketMemory, packetMemory } from './packet-memory.ts';
import { type Segments, segments } from './segments.ts';

/**
 * `auto`: large packets are taken from and given to the kernel wherever it and this installation
 * can do that. `off`: each packet by itself.
 */
export type OffloadWish = 'auto' | 'off';

/** What work with large packets needs, or why there is none. */
export type Offload =
  | { readonly memory: PacketMemory; readonly segments: Segments }
  | { readonly why: string };

let found: Segments | string | undefined;

export function offload(wish: OffloadWish, c: Libc = libc('packet memory')): Offload {
  if (wish === 'off') return { why: 'switched off' };
  const memory = packetMemory(c);
  found ??= segments(c, memory);
  return typeof found === 'string' ? { why: found } : { memory, segments: found };
}
