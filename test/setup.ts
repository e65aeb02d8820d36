import { expect } from 'vitest';

/**
 * Arrays of numbers that are the same to the last bit are found so at once. vitest's own
 * comparison, which looks at each number as at a property with a name, is asked about all others,
 * and has the last word on them.
 */
function sameBits(a: unknown, b: unknown): true | undefined {
  if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b)) return undefined;
  if (a.constructor !== b.constructor || a.byteLength !== b.byteLength) return undefined;
  return Buffer.compare(octetsOf(a), octetsOf(b)) === 0 ? true : undefined;
}

function octetsOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

// This is run before each file of tests, and files that share a process share the comparison.
const DONE = Symbol.for('testudo.test.setup');
const shared = globalThis as { [DONE]?: true };
if (!shared[DONE]) {
  shared[DONE] = true;
  expect.addEqualityTesters([sameBits]);
}
