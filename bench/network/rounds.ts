import type { MeasureOptions, measure, Result } from './measure.ts';
import type { Variant } from './variant.ts';

export interface NetworkOptions extends MeasureOptions {
  readonly rounds: number;
  readonly variants: readonly Variant[];
  readonly measure: typeof measure;
}

/** What was found of a variant: one result a round, undefined where it failed. */
export interface Found {
  readonly variant: Variant;
  readonly results: readonly (Result | undefined)[];
}

/** Why a variant has no results, or has fewer than there were rounds. */
export interface Missing {
  readonly variant: Variant;
  readonly why: string;
}

/**
 * All variants once a round, one after the other, so that ratios compare what ran under the same
 * conditions. One that fails is said to have failed, and does not stop the others. `say`: what
 * happens meanwhile.
 */
export async function runRounds(
  { rounds, variants, measure, ...how }: NetworkOptions,
  say: (line: string) => void,
): Promise<{ found: Found[]; missing: Missing[] }> {
  const missing: Missing[] = [];
  for (const variant of variants) {
    if (variant.absent === undefined) continue;
    missing.push({ variant, why: variant.absent });
    say(`${variant.name}: skipped, ${variant.absent}`);
  }
  const found = variants
    .filter(({ absent }) => absent === undefined)
    .map((variant) => ({ variant, results: [] as (Result | undefined)[] }));
  for (let round = 1; round <= rounds; round++) {
    for (const { variant, results } of found) {
      try {
        const result = await measure(variant, how);
        results.push(result);
        say(`round ${round}: ${variant.id}: ${inShort(result)}`);
      } catch (error) {
        results.push(undefined);
        const why = error instanceof Error ? error.message : String(error);
        missing.push({ variant, why: `round ${round} failed: ${why.split('\n')[0]}` });
        say(`round ${round}: ${variant.id}: ${why}`);
      }
    }
  }
  return { found, missing };
}

function inShort({ tcpMbps, tcp4Mbps, pingIdle, pingLoaded, udp }: Result): string {
  const parts = [
    tcpMbps === undefined ? '' : `${tcpMbps.toFixed(0)} Mbit/s`,
    tcp4Mbps === undefined ? '' : `four streams ${tcp4Mbps.toFixed(0)} Mbit/s`,
    pingIdle === undefined ? '' : `ping ${pingIdle.median} ms`,
    pingLoaded === undefined ? '' : `loaded ${pingLoaded.median} ms`,
    ...Object.entries(udp ?? {}).map(([mix, { sustained }]) => {
      return `${mix}: ${(sustained / 1000).toFixed(0)} kpps`;
    }),
  ];
  return parts.filter(Boolean).join(', ');
}
