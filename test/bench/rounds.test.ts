import { describe, expect, test } from 'vitest';
import { runRounds } from '../../bench/network/rounds.ts';
import type { Variant } from '../../bench/network/variant.ts';
import { allVariants } from '../../bench/network/variants.ts';

function variant(id: string, absent?: string): Variant {
  const start = () => Promise.reject(new Error('not to be started'));
  return { id, name: id, limited: false, absent, about: '', start };
}

describe('rounds', () => {
  test('measure all once a round, in turn; what fails or is absent is said, and stops none', async () => {
    const order: string[] = [];
    const said: string[] = [];
    let breaks = 0;
    const measure = async ({ id }: Variant) => {
      order.push(id);
      if (id === 'b' && breaks++ === 0) throw new Error('no answer\nat all');
      return { tcpMbps: order.length };
    };
    const variants = [variant('a'), variant('b'), variant('c', 'not installed')];
    const options = {
      rounds: 2,
      seconds: 1,
      congestion: 'cubic',
      wanted: ['tcp'] as const,
      variants,
      measure,
    };
    const { found, missing } = await runRounds(options, (line) => said.push(line));
    expect(order).toEqual(['a', 'b', 'a', 'b']);
    // A round that failed keeps its place, so that ratios compare what belongs together.
    expect(found.map(({ results }) => results)).toEqual([
      [{ tcpMbps: 1 }, { tcpMbps: 3 }],
      [undefined, { tcpMbps: 4 }],
    ]);
    expect(missing.map(({ variant: { id }, why }) => [id, why])).toEqual([
      ['c', 'not installed'],
      ['b', 'round 1 failed: no answer'],
    ]);
    expect(said[0]).toBe('c: skipped, not installed');
  });
});

describe('variants', () => {
  test('have names of their own, and a bare wire of each kind to compare with', () => {
    const all = allVariants(['no-such-wireguard']);
    const ids = all.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const limited of [false, true]) {
      const own = all.filter((one) => one.limited === limited);
      expect(own[0]!.isBare).toBe(true);
      expect(own.some(({ id }) => id.startsWith('testudo-'))).toBe(true);
    }
  });

  test('a peer that is not installed says how to get it', () => {
    const absent = allVariants(['no-such-wireguard']).find(({ id }) => id.startsWith('wireguard'));
    expect(absent!.absent).toBe('no no-such-wireguard: apt-get install wireguard-go');
  });
});
