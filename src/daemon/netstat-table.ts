import type { Daemon } from './daemon.ts';

/**
 * One number of `netstat -s`. `text` is what stands behind it, in the wording of BSD's netstat,
 * with `(s)`, `(es)` or `(y/ies)` where the plural differs; `key` names the field for machines.
 */
export interface StatCount {
  readonly kind: 'count';
  readonly key: string;
  readonly count: number;
  readonly text: string;
}

/** Counts by name, under a title of their own: only those that are not 0 are shown. */
export interface StatHistogram {
  readonly kind: 'histogram';
  readonly key: string;
  readonly text: string;
  readonly counts: Readonly<Record<string, number>>;
}

export type StatLine = StatCount | StatHistogram;

/** Where the numbers are: a daemon, or a host that was put together without one. */
export type StatSource = Pick<Daemon, 'stats' | 'cacheCounters' | 'keys'>;

/** What `netstat -s -p NAME` shows. */
export interface StatGroup {
  readonly name: string;
  readonly header: string;
  lines(source: StatSource): StatLine[];
}

/** A group with its numbers, as it goes to our own tools. */
export interface StatReport {
  readonly name: string;
  readonly header: string;
  readonly lines: readonly StatLine[];
}

export function count(key: string, number: number, text: string): StatCount {
  return { kind: 'count', key, count: number, text };
}

export function histogram(
  key: string,
  counts: Readonly<Record<string, number>>,
  text: string,
): StatHistogram {
  return { kind: 'histogram', key, text, counts };
}
