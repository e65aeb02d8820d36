import { expect, test } from 'vitest';
import { pingInMemory } from '../../examples/in-memory.ts';

test('the library example pings through ESP', async () => {
  expect(await pingInMemory()).toEqual([
    'out IP 192.0.2.1 > 192.0.2.2: ESP spi 0x00001001 seq 1, length 52',
    'in IP 192.0.2.2 > 192.0.2.1: ESP spi 0x00001002 seq 1, length 52',
    'reply 1: hello, bob',
  ]);
});
