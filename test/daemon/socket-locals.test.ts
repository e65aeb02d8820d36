import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { LocalAddresses } from '../../src/daemon/socket-locals.ts';

describe('addresses of this machine', () => {
  const locals = new LocalAddresses();
  locals.set(['10.0.0.1', '192.168.0.1', 'fd00::1', 'fd01::1'].map(address));
  const has = (text: string) => {
    const { family, bytes } = address(text);
    // Somewhere in a packet.
    return locals.has(family, Uint8Array.of(9, 9, ...bytes), 2);
  };

  test.each([
    ['10.0.0.1', true],
    ['192.168.0.1', true],
    ['10.0.0.2', false],
    ['fd00::1', true],
    ['fd01::1', true],
    ['fd02::1', false],
    // The last 32 bits are those of another one.
    ['fd00::a00:1', false],
    ['224.0.0.1', true],
    ['239.255.255.255', true],
    ['240.0.0.1', false],
    ['255.255.255.255', true],
    ['ff02::1', true],
  ])('%s: %s', (text, expected) => {
    expect(has(text)).toBe(expected);
  });

  test('those that are gone are not', () => {
    const changing = new LocalAddresses();
    changing.set([address('10.0.0.1')]);
    changing.set([address('10.0.0.2')]);
    const { bytes } = address('10.0.0.1');
    expect(changing.has(4, bytes, 0)).toBe(false);
  });
});
