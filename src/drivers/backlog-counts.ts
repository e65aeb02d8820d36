/** Packets that a link could not send at once, because the wire is slower than the host. */
export interface BacklogCounts {
  /** How many have waited so far, and how many do now. */
  readonly waited: number;
  readonly waiting: number;
  /** How often the local side was not read for a while. */
  readonly pauses: number;
  /** For how many there was no room. The link counts them among what it refuses, too. */
  readonly full: number;
}

export const NO_BACKLOG: BacklogCounts = { waited: 0, waiting: 0, pauses: 0, full: 0 };

/** Of all threads. */
export function sumOfBacklogs(all: readonly BacklogCounts[]): BacklogCounts {
  return all.reduce((sum, one) => {
    return {
      waited: sum.waited + one.waited,
      waiting: sum.waiting + one.waiting,
      pauses: sum.pauses + one.pauses,
      full: sum.full + one.full,
    };
  }, NO_BACKLOG);
}
