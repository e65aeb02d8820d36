import { expect } from 'vitest';

/**
 * As `expect(actual).toBe(expected)`, for what is asked a hundred thousand times: `expect` itself
 * takes ten microseconds, whether it has anything to say or not.
 */
export function is(actual: unknown, expected: unknown): void {
  if (!Object.is(actual, expected)) expect(actual).toBe(expected);
}
