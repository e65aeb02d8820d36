import { beforeEach, describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { type Lifetime, NO_LIMIT } from '../../src/sad/lifetime.ts';
import { type Sa, type SaSpec, saSpec } from '../../src/sad/sa.ts';
import { Sad } from '../../src/sad/sad.ts';
import { memorySequences } from '../../src/sad/sequence.ts';
import { sa as specOf } from '../engine/rig.ts';

const A = address('10.0.0.1');
const B = address('10.0.0.2');

let nowMs: number;
let sad: Sad;
let expired: [Sa, string][];

beforeEach(() => {
  nowMs = 1000;
  expired = [];
  sad = new Sad({
    clock: { monotonicMs: () => nowMs, wallMs: () => nowMs },
    random: { fill: () => undefined },
    sequences: memorySequences(),
    expired: (one, limit) => expired.push([one, limit]),
  });
});

function add(spi: number, more: Partial<SaSpec> = {}): Sa {
  const given = { ...specOf({ spi, src: '10.0.0.1', dst: '10.0.0.2' }), ...more };
  return sad.add(saSpec(given), 'mature');
}

function limit(packets: number): Lifetime {
  return { ...NO_LIMIT, packets };
}

function wait(ms: number): void {
  nowMs += ms;
  sad.poll(nowMs);
}

const arrives = (spi: number) => sad.inbound('esp', spi, B.bytes, 0, 4);
const isWiped = (one: Sa) => one.spec.keys.encryptKey.every((octet) => octet === 0);

describe('an SA that has received and was replaced', () => {
  function replaced(more: Partial<SaSpec> = {}): Sa {
    const old = add(0x1001, more);
    sad.account(old, 1, 100);
    add(0x1002);
    return old;
  }

  test('is gone for everybody but packets that are under way', () => {
    const old = replaced({ encapsulation: { srcPort: 4500, dstPort: 4500 }, reqid: 0 });
    const { generation } = sad;
    sad.retire(old);
    expect(sad.generation).toBeGreaterThan(generation);
    expect([...sad.all()].map(({ spec }) => spec.spi)).toEqual([0x1002]);
    expect([sad.size, sad.get('esp', 0x1001, B)]).toEqual([1, undefined]);
    expect([sad.ofSpi('esp', 0x1001), [...sad.encapsulated()]]).toEqual([[], []]);
    expect(sad.between('esp', A, B).map(({ spec }) => spec.spi)).toEqual([0x1002]);
    expect(sad.outbound('esp', 'transport', A, B, 0, true)!.spec.spi).toBe(0x1002);
    expect(arrives(0x1001)).toBe(old);
    expect([old.isUsable, isWiped(old)]).toEqual([true, false]);
    sad.account(old, 1, 100);
    expect(old.usage.packets).toBe(2);
  });

  test('ends soon, without a word', () => {
    const old = replaced();
    sad.retire(old);
    wait(499);
    expect(arrives(0x1001)).toBe(old);
    wait(1);
    expect([arrives(0x1001), old.state, isWiped(old), expired]).toEqual([
      undefined,
      'dead',
      true,
      [],
    ]);
  });

  test('at its hard limit earlier', () => {
    const old = replaced({ hard: limit(3) });
    sad.retire(old);
    sad.account(old, 1, 100);
    expect(old.state).toBe('mature');
    sad.account(old, 1, 100);
    expect([old.state, arrives(0x1001), expired]).toEqual(['dead', undefined, []]);
  });

  test('its name is free', () => {
    const old = replaced();
    sad.retire(old);
    const again = add(0x1001);
    expect([old.state, arrives(0x1001)]).toEqual(['dead', again]);
  });

  test.each([
    ['a flush', () => sad.flush()],
    ['a flush of its protocol', () => sad.flush('esp')],
  ])('%s ends it at once', (_, flush) => {
    const old = replaced();
    sad.retire(old);
    flush();
    expect([old.state, isWiped(old)]).toEqual(['dead', true]);
  });

  test('there are not ever more of them', () => {
    const all = Array.from({ length: 1100 }, (_, i) => {
      const one = add(0x2000 + i);
      sad.account(one, 1, 100);
      return one;
    });
    add(0x1000);
    for (const one of all) sad.retire(one);
    const living = all.filter(({ state }) => state !== 'dead');
    expect(living).toEqual(all.slice(-1024));
    wait(500);
    expect(all.every(({ state }) => state === 'dead')).toBe(true);
  });
});

describe('others end at once', () => {
  test.each([
    ['it has received nothing', () => add(0x1001), () => add(0x1002)],
    [
      'it sends',
      () => {
        const one = add(0x1001);
        one.takeSeq(1);
        sad.account(one, 1, 100);
        return one;
      },
      () => add(0x1002),
    ],
    ['nothing replaces it', used, () => undefined],
    ['what is newer is for something else', used, () => add(0x1002, { reqid: 7 })],
    ['what is newer is dead', used, () => sad.remove(add(0x1002))],
  ])('%s', (_, make, next) => {
    const one = make();
    next();
    sad.retire(one);
    expect([one.state, arrives(0x1001), isWiped(one)]).toEqual(['dead', undefined, true]);
  });

  function used(): Sa {
    const one = add(0x1001);
    sad.account(one, 1, 100);
    return one;
  }

  test('an older one replaces nothing', () => {
    add(0x1002);
    const one = used();
    sad.retire(one);
    expect(one.state).toBe('dead');
  });
});
