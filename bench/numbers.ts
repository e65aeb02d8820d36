/**
 * What is said about repeated measurements: the middle, and how far they lie apart.
 */

/** The middle one; of an even number the upper. NaN of none. */
export function median(of: ArrayLike<number>): number {
  return quantile(of, 0.5);
}

/** The number below which the share `q` of them lies. NaN of none. */
export function quantile(of: ArrayLike<number>, q: number): number {
  const sorted = Float64Array.from(of).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

export function mean(of: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < of.length; i++) sum += of[i]!;
  return sum / of.length;
}

/** `median [least, most]`, with as many decimals as asked for. */
export function spread(of: readonly number[], decimals = 0): string {
  if (of.length === 0) return '';
  const [least, middle, most] = [Math.min(...of), median(of), Math.max(...of)];
  const text = (number: number) => number.toFixed(decimals);
  return of.length === 1 ? text(middle) : `${text(middle)} [${text(least)}, ${text(most)}]`;
}

/**
 * The median of the ratios of what was measured in the same round; NaN where no round has both.
 */
export function ratio(
  of: readonly (number | undefined)[],
  to: readonly (number | undefined)[],
): number {
  const ratios: number[] = [];
  for (const [i, one] of of.entries()) {
    const other = to[i];
    if (one !== undefined && other !== undefined && other > 0) ratios.push(one / other);
  }
  return median(ratios);
}
