/** We are wrong: on in production, because a host that goes on with a broken invariant leaks. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
