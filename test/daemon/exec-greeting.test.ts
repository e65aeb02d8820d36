import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodeAnswer, parseGreeting } from '../../src/daemon/exec-greeting.ts';

function greeting(operation: number, value: number): Uint8Array {
  const octets = new Uint8Array(44).fill(7, 12);
  octets.set(new TextEncoder().encode('TSD1'));
  new DataView(octets.buffer).setUint32(4, operation, true);
  new DataView(octets.buffer).setUint32(8, value, true);
  return octets;
}

describe('greetings', () => {
  test.each([
    [1, 'pfkey'],
    [2, 'bypass'],
    [3, 'entrust'],
    [4, 'encapsulate'],
    [5, 'receive-buffer'],
  ])('%d is %s', (number, operation) => {
    const token = new Uint8Array(32).fill(7);
    expect(parseGreeting(greeting(number, 0xffff_fff0))).toEqual({
      operation,
      value: 0xffff_fff0,
      token,
    });
  });

  test('anything else is none', () => {
    expect(parseGreeting(greeting(0, 0))).toBeUndefined();
    expect(parseGreeting(greeting(6, 0))).toBeUndefined();
    expect(parseGreeting(greeting(0xffff_ffff, 0))).toBeUndefined();
    expect(parseGreeting(greeting(1, 0).subarray(0, 43))).toBeUndefined();
    expect(parseGreeting(new Uint8Array(44))).toBeUndefined();
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (p) => parseGreeting(p) === undefined));
  });

  test('an answer is an int of this machine', () => {
    expect([...encodeAnswer(95)]).toEqual([95, 0, 0, 0]);
  });
});
