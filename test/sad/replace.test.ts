import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { ReplayWindow } from '../../src/sad/replay.ts';
import { type SaSpec, saSpec } from '../../src/sad/sa.ts';
import { Sad } from '../../src/sad/sad.ts';
import { memorySequences } from '../../src/sad/sequence.ts';

const DST = address('10.0.0.2');

function sad(saMax: number): Sad {
  return new Sad({
    clock: { monotonicMs: () => 0, wallMs: () => 0 },
    random: { fill: () => undefined },
    sequences: memorySequences(),
    saMax,
  });
}

function spec(spi: number): SaSpec {
  const keys = { auth: 5, encrypt: 0, authKey: Uint8Array.of(spi), encryptKey: new Uint8Array(0) };
  const ah = { ivLen: 0, icvLen: 16, sign: () => {}, verify: () => false, wipe: () => {} };
  return saSpec({ protocol: 'ah', spi, src: address('10.0.0.1'), dst: DST, keys, ah });
}

function spis(table: Sad): number[] {
  return [...table.all()].map((one) => one.spec.spi);
}

describe('Sad.planReplace', () => {
  test('changes nothing until it is carried out; then others stand in place, under one identity too', () => {
    const table = sad(3);
    const [first, second] = [table.add(spec(256), 'mature'), table.add(spec(257), 'mature')];
    const apply = table.planReplace([first], [spec(256), spec(258)]);
    expect(spis(table)).toEqual([256, 257]);
    const { generation } = table;
    const made = apply();
    expect(made.map((one) => [one.spec.spi, one.state])).toEqual([
      [256, 'mature'],
      [258, 'mature'],
    ]);
    expect(table.get('ah', 256, DST)).toBe(made[0]);
    expect(table.get('ah', 257, DST)).toBe(second);
    expect(first.state).toBe('dead');
    expect(table.generation).toBeGreaterThan(generation);
  });

  test('refuses what add refuses', () => {
    const table = sad(2);
    const [first] = [table.add(spec(256), 'mature'), table.add(spec(257), 'mature')];
    expect(() => table.planReplace([], [spec(256)])).toThrow(/in use/);
    expect(() => table.planReplace([first], [spec(300), spec(300)])).toThrow(/in use/);
    expect(() => table.planReplace([first], [spec(255)])).toThrow(/reserved/);
    expect(() => table.planReplace([first], [spec(300), spec(301)])).toThrow(/room for 2/);
    expect(spis(table)).toEqual([256, 257]);
  });
});

describe('ReplayWindow.startAt', () => {
  test.each([0, 1, 31, 32, 100, 127])('everything up to %i is seen, and nothing above', (top) => {
    const window = new ReplayWindow(64, false);
    window.startAt(top);
    for (let seq = Math.max(0, top - 70); seq <= top; seq++) expect(window.check(seq)).toBe(-1);
    // Later ones that arrive out of order.
    expect(window.commit(top + 40)).toBe(true);
    for (let seq = top + 1; seq < top + 40; seq++) {
      expect(window.check(seq)).toBe(seq);
      expect(window.commit(seq)).toBe(true);
    }
    for (let seq = top + 1; seq <= top + 40; seq++) expect(window.check(seq)).toBe(-1);
  });
});
