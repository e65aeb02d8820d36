import { describe, expect, test } from 'vitest';
import { encodeStatus } from '../../src/daemon/socket-status.ts';
import { ENTRUST } from '../../src/engine/socket-rule.ts';
import type { ProtectionLayer } from '../../src/engine/socket-status.ts';
import { h32, h64 } from '../../src/wire/pfkey-bytes.ts';

/** That a C program reads it so is tested where one does: test/hosts/exec-sockets.test.ts. */
describe('what a program is told about a socket', () => {
  const layer = (spi: number, algorithms: string[]): ProtectionLayer => ({
    ...{ protocol: algorithms.length === 0 ? 'ah' : 'esp', spi, mode: 'transport' },
    ...{ src: '10.0.0.1', dst: 'fd00::2', algorithms },
  });
  const text = (p: Uint8Array, at: number) =>
    new TextDecoder().decode(p.subarray(at, at + 32)).replace(/\0.*$/s, '');

  test('is outermost first in both directions, and says how many there were', () => {
    const layers = Array.from({ length: 6 }, (_, i) => layer(i + 1, ['aes-cbc', 'hmac-sha1']));
    const direction = { state: 'protected', layers, packets: 2 ** 40, lastWallMs: 0 } as const;
    const p = encodeStatus({ in: direction, out: direction }, ENTRUST);
    expect(p.length).toBe(872);
    for (const [at, first] of [
      [8, 1],
      [440, 6],
    ] as const) {
      expect([...p.subarray(at, at + 3)]).toEqual([2, 0, 6]);
      expect(h64(p, at + 8)).toBe(2 ** 40);
      expect(h32(p, at + 16)).toBe(first);
      expect(h32(p, at + 16 + 3 * 104)).toBe(first === 1 ? 4 : 3);
      expect([text(p, at + 56), text(p, at + 88)]).toEqual(['aes-cbc', 'hmac-sha1']);
    }
  });

  test('names are cut, and always end', () => {
    const layers = [layer(1, ['x'.repeat(40)])];
    const direction = { state: 'ready', layers, packets: 0, lastWallMs: 0 } as const;
    const p = encodeStatus({ in: direction, out: direction }, ENTRUST);
    expect(text(p, 8 + 56)).toBe('x'.repeat(31));
  });
});
