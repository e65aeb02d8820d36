import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodeAnswer, parseGreeting } from '../../src/daemon/exec-greeting.ts';

function greeting(operation: number, value: number, details: number[] = []): Uint8Array {
  const octets = new Uint8Array(44 + details.length).fill(7, 12);
  octets.set(details, 44);
  octets.set(new TextEncoder().encode('TSD2'));
  new DataView(octets.buffer).setUint32(4, operation, true);
  new DataView(octets.buffer).setUint32(8, value, true);
  return octets;
}

describe('greetings', () => {
  test.each([
    [1, 'pfkey'],
    [2, 'set-policy'],
    [3, 'get-policy'],
    [4, 'encapsulate'],
    [5, 'receive-buffer'],
    [6, 'moved'],
    [7, 'status'],
  ])('%d is %s', (number, operation) => {
    const token = new Uint8Array(32).fill(7);
    expect(parseGreeting(greeting(number, 0xffff_fff0))).toEqual({
      operation,
      value: 0xffff_fff0,
      token,
      details: new Uint8Array(),
    });
    const details = parseGreeting(greeting(number, 0, [1, 2, 3]))?.details;
    expect(details).toEqual(Uint8Array.of(1, 2, 3));
  });

  test('anything else is none', () => {
    expect(parseGreeting(greeting(0, 0))).toBeUndefined();
    expect(parseGreeting(greeting(8, 0))).toBeUndefined();
    expect(parseGreeting(greeting(0xffff_ffff, 0))).toBeUndefined();
    expect(parseGreeting(greeting(1, 0).subarray(0, 43))).toBeUndefined();
    expect(parseGreeting(new Uint8Array(44))).toBeUndefined();
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (p) => parseGreeting(p) === undefined));
  });

  test('an answer is an int of this machine, and what was asked for', () => {
    expect([...encodeAnswer(95)]).toEqual([95, 0, 0, 0]);
    expect([...encodeAnswer(0, Uint8Array.of(7, 8))]).toEqual([0, 0, 0, 0, 7, 8]);
  });
});
