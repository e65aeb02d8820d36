import type { Usage } from './lifetime.ts';
import type { Sa, SaSpec, SaState } from './sa.ts';

/**
 * An SA at one moment. Its keys are the exception: they live in the SA, which zeroes them at its
 * end, and no copy outlives them.
 */
export interface SaView {
  readonly sa: Sa;
  readonly spec: SaSpec;
  readonly state: SaState;
  readonly usage: Usage;
  readonly addedWallMs: number;
  readonly firstUseWallMs: number;
  readonly sentSeq: number;
}

export function viewOf(sa: Sa): SaView {
  const { spec, state, addedWallMs, firstUseWallMs, sentSeq } = sa;
  return { sa, spec, state, usage: { ...sa.usage }, addedWallMs, firstUseWallMs, sentSeq };
}
