import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Address, address, sameAddress } from '../../src/base/address.ts';
import { KeyError } from '../../src/base/error.ts';
import { HeldKeys } from '../../src/sad/held-keys.ts';
import { type Sa, type SaMode, saSpec } from '../../src/sad/sa.ts';
import { Sad } from '../../src/sad/sad.ts';
import { memorySequences } from '../../src/sad/sequence.ts';
import { SharedValues } from '../../src/sad/shared-values.ts';
import { Slab } from '../../src/sad/slab.ts';
import { is } from '../is.ts';

const NO_KEYS = { auth: 0, encrypt: 0, authKey: new Uint8Array(0), encryptKey: new Uint8Array(0) };
const NAT = { srcPort: 4500, dstPort: 4500 };
const ADDRESSES = ['10.0.0.1', '10.0.0.2', '2001:db8::1', '2001:db8::2'].map(address);
const ESP = {
  ivLen: 8,
  icvLen: 16,
  alignLen: 4,
  iv: 'unique',
  authenticates: true,
  seal: () => undefined,
  open: () => false,
  wipe: () => undefined,
} as const;

function newSad(): Sad {
  return new Sad({
    clock: { monotonicMs: () => 0, wallMs: () => 0 },
    random: { fill: () => undefined },
    sequences: memorySequences(),
  });
}

const small = fc.nat({ max: 3 });
const operation = fc.record({
  what: fc.constantFrom('add', 'add', 'add', 'remove', 'move', 'age', 'reserve'),
  spi: fc.integer({ min: 256, max: 259 }),
  src: small,
  dst: small,
  mode: fc.constantFrom<SaMode>('any', 'transport', 'tunnel'),
  reqid: fc.nat({ max: 2 }),
  which: fc.nat(),
});

/** The dumbest possible table: a list in the order of arrival. */
function outboundOf(
  all: readonly Sa[],
  mode: 'tunnel' | 'transport',
  src: Address,
  dst: Address,
  reqid: number,
  old: boolean,
) {
  const fit = all.filter(
    ({ spec }) =>
      sameAddress(spec.src, src) &&
      sameAddress(spec.dst, dst) &&
      spec.mode !== (mode === 'tunnel' ? 'transport' : 'tunnel') &&
      (reqid === 0 || spec.reqid === reqid),
  );
  const of = (state: string) => fit.filter((sa) => sa.state === state);
  return old ? (of('dying')[0] ?? of('mature')[0]) : (of('mature').at(-1) ?? of('dying').at(-1));
}

test('SAs are found as a search through all finds them, whatever comes, goes and moves', () => {
  fc.assert(
    fc.property(
      fc.array(operation, { minLength: 10, maxLength: 40, size: 'max' }),
      (operations) => {
        const sad = newSad();
        for (const { what, spi, mode, reqid, which, ...ends } of operations) {
          const [src, dst] = [ADDRESSES[ends.src]!, ADDRESSES[ends.dst]!];
          const all = [...sad.all()];
          const one = all[which % (all.length || 1)];
          try {
            if (what === 'add') {
              const given = { protocol: 'esp', spi, src, dst, keys: NO_KEYS, mode, reqid } as const;
              const encapsulation = which % 2 === 0 ? NAT : undefined;
              sad.add(saSpec({ ...given, esp: ESP, encapsulation }), 'mature');
            } else if (one && what === 'remove') sad.remove(one);
            else if (one && what === 'reserve') {
              sad.reserve({ ...one.spec, esp: undefined }, 256, 270, 1);
            } else if (one && what === 'move') {
              const encapsulation = which % 3 === 0 ? NAT : undefined;
              sad.update(one, { ...one.spec, src, dst, encapsulation, esp: ESP });
            } else if (one?.isUsable) one.state = 'dying';
          } catch (error) {
            if (!(error instanceof KeyError)) throw error;
          }
          compare(sad);
        }
        sad.flush();
        expect(sad.sizes()).toEqual([]);
        expect([...sad.encapsulated()]).toEqual([]);
        expect([0, 1, 2].map((number) => sad.hasReqid(number))).toEqual([false, false, false]);
      },
    ),
    { numRuns: 25 },
  );
});

function compare(sad: Sad): void {
  const all = [...sad.all()].sort((a, b) => a.serial - b.serial);
  for (const src of ADDRESSES) {
    for (const dst of ADDRESSES) {
      const between = all.filter(
        ({ spec }) => sameAddress(spec.src, src) && sameAddress(spec.dst, dst),
      );
      expect(sad.between('esp', src, dst)).toEqual(between);
      for (const reqid of [0, 1]) {
        for (const old of [false, true]) {
          for (const mode of ['transport', 'tunnel'] as const) {
            const found = sad.outbound('esp', mode, src, dst, reqid, old);
            is(found, outboundOf(all, mode, src, dst, reqid, old));
          }
        }
      }
    }
    for (const spi of [256, 257, 258, 259]) {
      const found = all.find(({ spec }) => spec.spi === spi && sameAddress(spec.dst, src));
      is(sad.get('esp', spi, src), found);
      is(sad.inbound('esp', spi, src.bytes, 0, src.bytes.length), found);
    }
  }
  const reqids = new Set(all.map(({ spec }) => spec.reqid));
  expect([1, 2].map((number) => sad.hasReqid(number))).toEqual([reqids.has(1), reqids.has(2)]);
  const kinds = all.filter(({ spec }) => spec.esp !== undefined);
  const inUdp = new Set(kinds.map(({ spec }) => spec.encapsulation !== undefined));
  expect(sad.sizes().length).toBe(inUdp.size);
  const encapsulated = all.filter(({ spec }) => spec.encapsulation !== undefined);
  expect(new Set(sad.encapsulated())).toEqual(new Set(encapsulated));
}

test('those of other reqids between the same ends cost nothing', () => {
  const sad = newSad();
  const [src, dst] = [ADDRESSES[0]!, ADDRESSES[1]!];
  const all = Array.from({ length: 1000 }, (_, i) => {
    const given = { protocol: 'esp', spi: 256 + i, src, dst, keys: NO_KEYS, reqid: 1 + i } as const;
    return sad.add(saSpec({ ...given, esp: ESP, mode: i % 2 === 0 ? 'any' : 'tunnel' }), 'mature');
  });
  const larval = { protocol: 'esp', src, dst, keys: NO_KEYS, reqid: 501 } as const;
  for (let i = 0; i < 100; i++) sad.reserve(saSpec({ ...larval, spi: 0 }), 2000 + i, 2000 + i);
  let looks = 0;
  for (const sa of sad.all()) {
    const { state } = sa;
    Object.defineProperty(sa, 'state', { get: () => ++looks && state });
  }
  for (const mode of ['tunnel', 'transport'] as const) {
    expect(sad.outbound('esp', mode, src, dst, 501)).toBe(all[500]);
  }
  expect(looks).toBeLessThan(10);
});

describe('keys in a slab', () => {
  const key = (len: number, first: number) => Uint8Array.from({ length: len }, (_, i) => first + i);

  test('are copies, and zeroing those of one SA leaves its neighbours alone', () => {
    const slab = new Slab();
    const given = { auth: 5, encrypt: 12, authKey: key(32, 1), encryptKey: key(16, 101) };
    const [one, two] = [new HeldKeys(given, slab), new HeldKeys(given, slab)];
    given.authKey.fill(0);
    expect([one.authKey, one.encryptKey]).toEqual([key(32, 1), key(16, 101)]);
    one.authKey.fill(0);
    one.encryptKey.fill(0);
    expect([one.authKey, one.encryptKey]).toEqual([new Uint8Array(32), new Uint8Array(16)]);
    expect([two.authKey, two.encryptKey]).toEqual([key(32, 1), key(16, 101)]);
  });

  test('more than a slab has room for', () => {
    const slab = new Slab();
    const all = Array.from({ length: 2000 }, (_, i) => slab.copy(key(20, i & 127)));
    expect(all.every((one, i) => one.join() === key(20, i & 127).join())).toBe(true);
    expect(slab.copy(key(20_000, 0)).length).toBe(20_000);
  });

  test('equal values become one object, and different ones do not', () => {
    const shared = new SharedValues(new Slab());
    expect(shared.address(address('10.0.0.1'))).toBe(shared.address(address('10.0.0.1')));
    for (let i = 0; i < 1000; i++) {
      const one = address(`10.0.${i >> 8}.${i & 255}`);
      expect(shared.address(one)).toEqual(one);
    }
    const limit = { packets: 1, bytes: 2, addSeconds: 3, useSeconds: 4 };
    expect(shared.lifetime({ ...limit })).toBe(shared.lifetime({ ...limit }));
    expect(shared.lifetime({ ...limit, bytes: 3 })).toEqual({ ...limit, bytes: 3 });
  });
});
