/**
 * Limits of an SA (RFC 2367 §2.3.2); 0 is no limit. Times in seconds: since it was added, and since
 * it was first used.
 */
export interface Lifetime {
  readonly packets: number;
  readonly bytes: number;
  readonly addSeconds: number;
  readonly useSeconds: number;
}

export const NO_LIMIT: Lifetime = { packets: 0, bytes: 0, addSeconds: 0, useSeconds: 0 };

/** What an SA has done so far. Monotonic milliseconds; `firstUseMs` is -1 until then. */
export interface Usage {
  readonly packets: number;
  readonly bytes: number;
  readonly addedMs: number;
  readonly firstUseMs: number;
}

/** Whether a limit is reached. */
export function reached(limit: Lifetime, used: Usage, nowMs: number): boolean {
  return countReached(limit, used) || nowMs >= dueMs(limit, used);
}

/** Whether a limit of packets or bytes is reached. */
export function countReached(limit: Lifetime, used: Usage): boolean {
  return (
    (limit.packets > 0 && used.packets >= limit.packets) ||
    (limit.bytes > 0 && used.bytes >= limit.bytes)
  );
}

/** Whether so many more packets, of so many octets together, do not reach it. */
export function staysBelow(limit: Lifetime, used: Usage, packets: number, bytes: number): boolean {
  return (
    (limit.packets === 0 || used.packets + packets < limit.packets) &&
    (limit.bytes === 0 || used.bytes + bytes < limit.bytes)
  );
}

/** When a time limit will be reached, in monotonic milliseconds; Infinity when there is none. */
export function dueMs(limit: Lifetime, used: Usage): number {
  const added = limit.addSeconds > 0 ? used.addedMs + limit.addSeconds * 1000 : Infinity;
  const inUse =
    limit.useSeconds > 0 && used.firstUseMs >= 0
      ? used.firstUseMs + limit.useSeconds * 1000
      : Infinity;
  return Math.min(added, inUse);
}
