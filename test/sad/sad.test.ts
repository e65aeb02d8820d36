import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import type { Lifetime } from '../../src/sad/lifetime.ts';
import { NO_LIMIT } from '../../src/sad/lifetime.ts';
import type { Sa } from '../../src/sad/sa.ts';
import { SPI_MIN } from '../../src/sad/sa-checks.ts';
import { Sad } from '../../src/sad/sad.ts';
import { memorySequences } from '../../src/sad/sequence.ts';
import { type SaOptions, sa, testEnv } from '../engine/rig.ts';

const A = '10.0.0.1';
const B = '10.0.0.2';

function given(spi: number, more: Partial<SaOptions> = {}) {
  return sa({ spi, src: A, dst: B, ...more });
}

function table(options: { saMax?: number; larvalSeconds?: number } = {}) {
  const env = testEnv();
  const expired: string[] = [];
  const onExpire: ((one: Sa) => void)[] = [];
  const sad = new Sad({
    clock: env.clock,
    random: env.random,
    sequences: memorySequences(),
    expired: (one, limit) => {
      expired.push(`${limit} ${one.spec.spi} ${one.state}`);
      for (const act of onExpire) act(one);
    },
    ...options,
  });
  const wait = (seconds: number) => {
    env.advance(seconds * 1000);
    return sad.poll(env.clock.monotonicMs());
  };
  return { env, sad, expired, onExpire, wait };
}

function limit(some: Partial<Lifetime>): Lifetime {
  return { ...NO_LIMIT, ...some };
}

describe('identity', () => {
  test('SPI, protocol and destination', () => {
    const { sad } = table();
    const first = sad.add(given(0x1001), 'mature');
    const ah = sad.add(given(0x1001, { protocol: 'ah', auth: 'hmac-sha1' }), 'mature');
    const other = sad.add(given(0x1001, { dst: '10.0.0.3' }), 'mature');
    const six = sad.add(given(0x1001, { src: '::1', dst: '::2' }), 'mature');
    expect(() => sad.add(given(0x1001, { src: '10.0.0.9' }), 'mature')).toThrow(
      /esp SPI 0x00001001 to 10.0.0.2 is in use/,
    );
    expect(sad.get('esp', 0x1001, address(B))).toBe(first);
    expect(sad.get('ah', 0x1001, address(B))).toBe(ah);
    expect(sad.get('esp', 0x1001, address('::2'))).toBe(six);
    expect(sad.get('esp', 0x1002, address(B))).toBeUndefined();
    const p = Uint8Array.of(9, 9, 10, 0, 0, 3);
    expect(sad.inbound('esp', 0x1001, p, 2, 4)).toBe(other);
    expect(sad.inbound('ah', 0x1001, p, 2, 4)).toBeUndefined();
    expect([...sad.all()]).toEqual([first, ah, other, six]);
  });

  test('SPIs up to 255 are reserved, both ends are of one family, and the table has an end', () => {
    const { sad } = table({ saMax: 2 });
    for (const spi of [0, 1, 255, 2 ** 32])
      expect(() => sad.add(given(spi), 'mature')).toThrow(/reserved/);
    expect(() => sad.add(given(0x1001, { src: '::1' }), 'mature')).toThrow(/different families/);
    sad.add(given(256), 'mature');
    sad.add(given(0xffff_ffff), 'mature');
    expect(() => sad.add(given(257), 'mature')).toThrow(/room for 2/);
    expect(sad.size).toBe(2);
  });

  test('every change has a new generation', () => {
    const { sad } = table();
    const seen = new Set([sad.generation]);
    const one = sad.add(given(0x1001), 'mature');
    seen.add(sad.generation);
    sad.update(one, { ...one.spec, reqid: 5 });
    seen.add(sad.generation);
    sad.remove(one);
    seen.add(sad.generation);
    expect(seen.size).toBe(4);
  });
});

describe('the SA to send with', () => {
  const find = (sad: Sad, reqid = 0, old = false) =>
    sad.outbound('esp', 'transport', address(A), address(B), reqid, old)?.spec.spi;

  test('a mature one before a dying one, then the newest', () => {
    const { sad } = table();
    expect(find(sad)).toBeUndefined();
    const all = [1, 2, 3].map((n) => sad.add(given(0x1000 + n, { reqid: n }), 'mature'));
    sad.add(given(0x1009), 'larval');
    expect([find(sad), find(sad, 0, true), find(sad, 2)]).toEqual([0x1003, 0x1001, 0x1002]);
    all[2]!.state = 'dying';
    expect(find(sad)).toBe(0x1002);
    sad.remove(all[1]!);
    sad.remove(all[0]!);
    expect(find(sad)).toBe(0x1003);
  });

  test('between exactly these addresses, in this mode', () => {
    const { sad } = table();
    sad.add(given(0x1001, { mode: 'tunnel' }), 'mature');
    sad.add(given(0x1002, { src: B, dst: A }), 'mature');
    sad.add(given(0x1003, { protocol: 'ah', auth: 'hmac-sha1' }), 'mature');
    expect(find(sad)).toBeUndefined();
    expect(sad.outbound('esp', 'tunnel', address(A), address(B), 0)?.spec.spi).toBe(0x1001);
    expect(sad.between('esp', address(A), address(B)).map(({ spec }) => spec.spi)).toEqual([
      0x1001,
    ]);
  });
});

describe('lifetimes', () => {
  test.each([
    ['packets', { packets: 3 }, { packets: 5 }],
    ['bytes', { bytes: 300 }, { bytes: 500 }],
  ])('%s: soft, then dying; hard, then dead and its keys gone', (_, soft, hard) => {
    const { sad, expired } = table();
    const one = sad.add(given(0x1001, { soft: limit(soft), hard: limit(hard) }), 'mature');
    const states: string[] = [];
    for (let i = 0; i < 5; i++) {
      sad.account(one, 1, 100);
      states.push(one.state);
    }
    expect(states).toEqual(['mature', 'mature', 'dying', 'dying', 'dead']);
    expect(expired).toEqual(['soft 4097 dying', 'hard 4097 dead']);
    expect([sad.size, one.spec.keys.encryptKey.every((octet) => octet === 0)]).toEqual([0, true]);
  });

  test('seconds since it was added, used or not', () => {
    const { sad, expired, wait } = table();
    sad.add(
      given(0x1001, { soft: limit({ addSeconds: 10 }), hard: limit({ addSeconds: 20 }) }),
      'mature',
    );
    wait(9);
    expect(expired).toEqual([]);
    wait(1);
    expect(expired).toEqual(['soft 4097 dying']);
    wait(9);
    expect(expired.length).toBe(1);
    expect(wait(1)).toBe(Number.POSITIVE_INFINITY);
    expect([expired, sad.size]).toEqual([['soft 4097 dying', 'hard 4097 dead'], 0]);
  });

  test('seconds since it was first used', () => {
    const { sad, expired, wait } = table();
    const one = sad.add(given(0x1001, { hard: limit({ useSeconds: 10 }) }), 'mature');
    expect(wait(100)).toBe(Number.POSITIVE_INFINITY);
    sad.account(one, 1, 1);
    wait(5);
    sad.account(one, 1, 1);
    wait(4);
    expect(expired).toEqual([]);
    wait(1);
    expect(expired).toEqual(['hard 4097 dead']);
  });

  test('hard without soft ends it all the same (KAME forgot that)', () => {
    const { sad, wait } = table();
    sad.add(given(0x1001, { hard: limit({ addSeconds: 5 }) }), 'mature');
    wait(5);
    expect(sad.size).toBe(0);
  });

  test('poll says when it must be called again', () => {
    const { env, sad } = table();
    const now = env.clock.monotonicMs();
    sad.add(
      given(0x1001, { soft: limit({ addSeconds: 10 }), hard: limit({ addSeconds: 20 }) }),
      'mature',
    );
    sad.add(given(0x1002, { hard: limit({ addSeconds: 15 }) }), 'mature');
    expect(sad.poll(now)).toBe(now + 10_000);
    env.advance(10_000);
    expect(sad.poll(now + 10_000)).toBe(now + 15_000);
    env.advance(5_000);
    expect(sad.poll(now + 15_000)).toBe(now + 20_000);
  });

  test('a larval SA waits so long and is gone without a word', () => {
    const { sad, expired, wait } = table({ larvalSeconds: 30 });
    sad.add(given(0x1001), 'larval');
    wait(29);
    expect(sad.size).toBe(1);
    wait(1);
    expect([sad.size, expired]).toEqual([0, []]);
  });

  test('whoever is told may remove others, also those that would be next', () => {
    const { sad, expired, onExpire, wait } = table();
    const hard = limit({ addSeconds: 5 });
    const all = [1, 2, 3].map((n) => sad.add(given(0x1000 + n, { hard }), 'mature'));
    onExpire.push(() => {
      if (all[1]!.state !== 'dead') sad.remove(all[1]!);
    });
    wait(5);
    expect(expired).toEqual(['hard 4097 dead', 'hard 4099 dead']);
    expect(sad.size).toBe(0);
  });

  test('what is accounted to a dead SA does nothing', () => {
    const { sad, expired } = table();
    const one = sad.add(given(0x1001, { hard: limit({ packets: 1 }) }), 'mature');
    sad.account(one, 1, 1);
    sad.account(one, 1, 1);
    expect(expired).toEqual(['hard 4097 dead']);
  });
});

describe('update', () => {
  test('a larval SA gets its keys and is another object; a living one keeps what it has seen', () => {
    const { sad } = table();
    const larval = sad.add(given(0x1001), 'larval');
    const mature = sad.update(larval, given(0x1001));
    expect([larval.state, mature.state, sad.size]).toEqual(['dead', 'mature', 1]);
    mature.replay.commit(7);
    sad.account(mature, 1, 50);
    const same = sad.update(mature, { ...mature.spec, reqid: 9 });
    expect(same).toBe(mature);
    expect([same.replay.top, same.usage.bytes, same.spec.reqid]).toEqual([7, 50, 9]);
  });

  test('a longer soft limit makes a dying SA mature, and is announced when it is reached in turn', () => {
    const { sad, expired } = table();
    const one = sad.add(given(0x1001, { soft: limit({ packets: 1 }) }), 'mature');
    sad.account(one, 1, 1);
    sad.update(one, { ...one.spec, soft: limit({ packets: 2 }) });
    expect(one.state).toBe('mature');
    sad.account(one, 1, 1);
    expect(expired).toEqual(['soft 4097 dying', 'soft 4097 dying']);
  });

  test('other addresses are found under the new ones only', () => {
    const { sad } = table();
    const one = sad.add(given(0x1001), 'mature');
    sad.update(one, { ...one.spec, src: address('10.0.0.9') });
    expect(sad.between('esp', address(A), address(B))).toEqual([]);
    expect(sad.between('esp', address('10.0.0.9'), address(B))).toEqual([one]);
  });
});

describe('reserve', () => {
  test('a free SPI of the range, at random', () => {
    const { sad } = table();
    const spis = Array.from({ length: 50 }, () => sad.reserve(given(0), 0x1000, 0x103f).spec.spi);
    expect(new Set(spis).size).toBe(50);
    expect(Math.min(...spis)).toBeGreaterThanOrEqual(0x1000);
    expect(Math.max(...spis)).toBeLessThanOrEqual(0x103f);
    expect([...spis].sort((a, b) => a - b)).not.toEqual(spis);
    expect([...sad.all()].every(({ state }) => state === 'larval')).toBe(true);
  });

  test('the whole range can come, its ends too', () => {
    const { sad } = table();
    const spis = Array.from(
      { length: 3 },
      () => sad.reserve(given(0), 0xffff_fffd, 0xffff_ffff, 1e4).spec.spi,
    );
    expect(spis.sort()).toEqual([0xffff_fffd, 0xffff_fffe, 0xffff_ffff]);
    expect(() => sad.reserve(given(0), 0xffff_fffd, 0xffff_ffff, 10)).toThrow(/no free SPI/);
  });

  test('one SPI, a reserved one, none', () => {
    const { sad } = table();
    expect(sad.reserve(given(0), SPI_MIN, SPI_MIN).spec.spi).toBe(SPI_MIN);
    expect(() => sad.reserve(given(0), SPI_MIN, SPI_MIN)).toThrow(/in use/);
    expect(() => sad.reserve(given(0), 255, 300)).toThrow(/reserved/);
    expect(() => sad.reserve(given(0), 400, 300)).toThrow(/empty/);
  });
});

test('flush: all, or all of a protocol', () => {
  const { sad } = table();
  sad.add(given(0x1001), 'mature');
  sad.add(given(0x1002), 'larval');
  sad.add(given(0x1003, { protocol: 'ah', auth: 'hmac-sha1' }), 'mature');
  expect([sad.flush('esp'), sad.size, sad.flush(), sad.size]).toEqual([2, 1, 1, 0]);
});

describe('sequence numbers', () => {
  test('begin with 1 and are never used twice under one key, not even by an SA that comes later', () => {
    const { sad } = table();
    const one = sad.add(given(0x1001), 'mature');
    expect([one.sentSeq, one.takeSeq(1), one.takeSeq(10), one.takeSeq(1), one.sentSeq]).toEqual([
      0, 1, 2, 12, 12,
    ]);
    sad.remove(one);
    const again = sad.add(given(0x1001), 'mature');
    expect(again.takeSeq(1)).toBe(13);
    const otherKey = sad.add(given(0x1002, { encKey: new Uint8Array(20).fill(7) }), 'mature');
    expect(otherKey.takeSeq(1)).toBe(1);
  });

  test('end at 2^32 - 1 without ESN, in one piece or not at all', () => {
    const env = testEnv();
    const lease = () => ({
      start: 2 ** 32 - 5,
      extend: (needed: number) => needed,
      release: () => {},
    });
    const sad = new Sad({ clock: env.clock, random: env.random, sequences: { lease } });
    const one = sad.add(given(0x1001), 'mature');
    expect([one.takeSeq(6), one.takeSeq(4), one.takeSeq(1), one.takeSeq(1)]).toEqual([
      -1,
      2 ** 32 - 5,
      2 ** 32 - 1,
      -1,
    ]);
    const extended = sad.add(given(0x1002, { esn: true }), 'mature');
    expect(extended.takeSeq(10)).toBe(2 ** 32 - 5);
  });

  test('what was not used is given back, and nothing is handed out that is not reserved', () => {
    const calls: string[] = [];
    let works = true;
    const env = testEnv();
    const lease = () => ({
      start: 1,
      extend: (needed: number) => {
        calls.push(`extend ${needed}`);
        return works ? needed + 2 : -1;
      },
      release: (next: number) => void calls.push(`release ${next}`),
    });
    const sad = new Sad({ clock: env.clock, random: env.random, sequences: { lease } });
    const one = sad.add(given(0x1001), 'mature');
    for (let i = 0; i < 3; i++) one.takeSeq(1);
    works = false;
    expect([one.takeSeq(1), one.takeSeq(1)]).toEqual([-2, -2]);
    works = true;
    expect(one.takeSeq(1)).toBe(4);
    sad.remove(one);
    expect(calls).toEqual(['extend 2', 'extend 5', 'extend 5', 'extend 5', 'release 5']);
  });
});
