import { describe, expect, test } from 'vitest';
import { type Lifetime, NO_LIMIT } from '../../src/sad/lifetime.ts';
import { counting, ipv4Packet, udp } from '../wire/octets.ts';
import { type LayerGiven, Pair } from './pair.ts';

const PLAIN = ipv4Packet({ protocol: 17 }, udp(counting(32)));
const ten = Array.from({ length: 10 }, () => PLAIN);

function limit(some: Partial<Lifetime>): Lifetime {
  return { ...NO_LIMIT, ...some };
}

describe.each([
  ['ESP', {}],
  ['AH', { protocol: 'ah' }],
  ['ESP tunnel', { tunnel: 4 }],
] as const satisfies readonly (readonly [string, LayerGiven])[])('%s', (_, layer) => {
  test.each([
    ['packets', { packets: 4 }],
    // 40 octets of UDP; in a tunnel 60 of IP.
    ['bytes', { bytes: 'tunnel' in layer ? 240 : 160 }],
  ])(
    'a batch never goes beyond a hard limit of %s, and neither does one after the other',
    (_, hard) => {
      for (const batches of [[ten], ten.map((one) => [one])]) {
        const pair = new Pair([{ ...layer, hard: limit(hard) }]);
        const sent = batches.flatMap((batch) => pair.a.output(...batch));
        expect(sent.length).toBe(4);
        expect(pair.a.expired.map(([one, which]) => [one.spec.spi, which])).toEqual([
          [0x1001, 'hard'],
        ]);
        expect(pair.a.drops()).toEqual({ 'out no-sa': 6 });
        const dead = pair.a.expired[0]![0];
        expect([
          dead.state,
          dead.usage.packets,
          dead.spec.keys.authKey.every((x) => x === 0),
        ]).toEqual(['dead', 4, true]);
      }
    },
  );

  test('coming in, too: what is over the limit is not delivered', () => {
    const pair = new Pair([layer]);
    const wire = pair.a.output(...ten);
    const inbound = [...pair.b.sad.all()].find(({ spec }) => spec.spi === 0x1001)!;
    pair.b.sad.update(inbound, { ...inbound.spec, hard: limit({ packets: 4 }) });
    expect(pair.b.input(...wire).length).toBe(4);
    expect(pair.b.drops()).toEqual({ 'in sa-not-usable': 6 });
    expect(pair.b.input(...pair.a.output(PLAIN))).toEqual([]);
    expect(pair.b.drops()).toEqual({ 'in sa-not-usable': 6, 'in no-sa-for-spi': 1 });
  });

  test('a soft limit is announced once, and the SA goes on', () => {
    const pair = new Pair([{ ...layer, soft: limit({ packets: 3 }) }]);
    expect(pair.send(...ten).delivered.length).toBe(10);
    expect(pair.a.expired.map(([one, which]) => [one.spec.spi, which, one.state])).toEqual([
      [0x1001, 'soft', 'dying'],
    ]);
    expect(pair.b.expired.length).toBe(1);
  });
});

test.each([
  ['ESP', {}],
  ['AH', { protocol: 'ah' }],
] as const)('%s: the last sequence number goes out, and with it the SA', (_, layer) => {
  const pair = new Pair([layer]);
  const { a } = pair;
  const one = a.sad.all().next().value!;
  expect(one.takeSeq(0xffff_fffd)).toBe(1);
  const wire = a.output(...ten);
  expect([wire.length, pair.b.input(...wire).length]).toEqual([2, 2]);
  expect(a.expired.map(([sa, which]) => [sa, which])).toEqual([[one, 'hard']]);
  expect([one.state, one.sentSeq]).toEqual(['dead', 0xffff_ffff]);
  expect(a.output(PLAIN)).toEqual([]);
  expect(a.drops()).toEqual({ 'out sequence-exhausted': 8, 'out no-sa': 1 });
});

test('seconds since first use begin with the first packet', () => {
  const pair = new Pair([{ hard: limit({ useSeconds: 10 }) }]);
  const { a } = pair;
  const wait = (seconds: number) => {
    a.env.advance(seconds * 1000);
    return a.host.poll(a.env.clock.monotonicMs());
  };
  wait(100);
  a.output(PLAIN);
  expect(a.sad.poll(a.env.clock.monotonicMs())).toBe(a.env.clock.monotonicMs() + 10_000);
  wait(9);
  expect(a.output(PLAIN).length).toBe(1);
  wait(1);
  expect(a.output(PLAIN).length).toBe(0);
  // The SA of the other direction was never used.
  expect(a.expired.map(([one]) => one.spec.spi)).toEqual([0x1001]);
});

test('the older SA takes over when the newer one is gone', () => {
  const pair = new Pair([{ hard: limit({ packets: 2 }) }]);
  const [first] = [...pair.a.sad.all()];
  pair.a.sad.update(first!, { ...first!.spec, hard: NO_LIMIT });
  const fresh = new Pair([{ hard: limit({ packets: 2 }) }]).a.sad.all().next().value!.spec;
  pair.a.sad.add({ ...fresh, spi: 0x1101 }, 'mature');
  const spis = ten
    .slice(0, 4)
    .flatMap((one) => pair.a.output(one))
    .map((p) => (p[22]! << 8) | p[23]!);
  expect(spis).toEqual([0x1101, 0x1101, 0x1001, 0x1001]);
});
