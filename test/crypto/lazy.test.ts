import { describe, expect, test } from 'vitest';
import { KeyError } from '../../src/base/error.ts';
import { ALGORITHMS, type Algorithm } from '../../src/crypto/algorithms.ts';
import { LazyCrypto } from '../../src/crypto/lazy.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import type { CryptoProvider, TransformSpec } from '../../src/crypto/provider.ts';
import type { JobQueue } from '../../src/crypto/transform.ts';

const usable = ALGORITHMS.filter((row) => nodeCrypto.supports(row) && row.name !== 'null');
const ciphers = usable.filter((row) => row.kind !== 'mac');
const macs = usable.filter((row) => row.kind === 'mac');

function keyOf(row: Algorithm, bits = row.keyBits.max): Uint8Array {
  return Uint8Array.from({ length: bits / 8 }, (_, i) => (i * 37 + 11) & 255);
}

function specOf(row: Algorithm, key = keyOf(row)): TransformSpec {
  const none = new Uint8Array(0);
  return row.kind === 'mac'
    ? { mac: row, macKey: key, cipherKey: none, allowLegacy: true }
    : { cipher: row, cipherKey: key, macKey: none, allowLegacy: true };
}

/** Counts what is really made. */
function counted(): { crypto: LazyCrypto; made: () => number } {
  let made = 0;
  const eager: CryptoProvider = {
    name: nodeCrypto.name,
    supports: nodeCrypto.supports,
    esp: (spec) => {
      made++;
      return nodeCrypto.esp(spec);
    },
    ah: (spec) => {
      made++;
      return nodeCrypto.ah(spec);
    },
  };
  return { crypto: new LazyCrypto(eager), made: () => made };
}

describe('lazy transforms', () => {
  test.each(ciphers.map((row) => [row.name, row] as const))('%s is as it is', (_, row) => {
    const lazy = new LazyCrypto(nodeCrypto).esp(specOf(row));
    const eager = nodeCrypto.esp(specOf(row));
    for (const name of ['ivLen', 'icvLen', 'alignLen', 'iv', 'authenticates'] as const) {
      expect([name, lazy[name]]).toEqual([name, eager[name]]);
    }
    const [p, q] = [new Uint8Array(200).fill(7), new Uint8Array(200).fill(7)];
    lazy.seal(p, 0, 8 + lazy.ivLen + 96, -1);
    eager.seal(q, 0, 8 + eager.ivLen + 96, -1);
    expect(p).toEqual(q);
    expect(lazy.open(p, 0, 8 + lazy.ivLen + 96 + lazy.icvLen, -1)).toBe(true);
  });

  test.each(macs.map((row) => [row.name, row] as const))('%s for AH is as it is', (_, row) => {
    if (row.name === 'tcp-md5') return;
    const lazy = new LazyCrypto(nodeCrypto).ah(specOf(row));
    const eager = nodeCrypto.ah(specOf(row));
    expect([lazy.icvLen, lazy.ivLen]).toEqual([eager.icvLen, eager.ivLen]);
    const [icv, same] = [new Uint8Array(80), new Uint8Array(80)];
    const p = new Uint8Array(100).fill(3);
    lazy.sign(p, 0, 100, -1, icv, 0);
    eager.sign(p, 0, 100, -1, same, 0);
    expect(icv).toEqual(same);
    expect(lazy.verify(p, 0, 100, -1, icv, 0)).toBe(true);
  });

  test('one is made for each combination, and one for each transform that is used', () => {
    const { crypto, made } = counted();
    const row = ciphers.find(({ name }) => name === 'aes-gcm-16')!;
    const first = crypto.esp(specOf(row));
    for (let i = 0; i < 10; i++) crypto.esp(specOf(row));
    expect(made()).toBe(1);
    crypto.esp(specOf(row, keyOf(row, row.keyBits.min)));
    expect(made()).toBe(2);
    const p = new Uint8Array(100);
    for (let i = 0; i < 3; i++) first.seal(p, 0, 40, -1);
    expect(made()).toBe(3);
  });

  test.each([1, 2])('what is refused is refused at once, also the %ith time', () => {
    const crypto = new LazyCrypto(nodeCrypto);
    const row = ciphers.find(({ name }) => name === 'aes-gcm-16')!;
    const weak = ciphers.find(({ name }) => name === 'des-cbc')!;
    crypto.esp(specOf(row));
    crypto.esp(specOf(weak));
    expect(() => crypto.esp(specOf(row, new Uint8Array(7)))).toThrow(KeyError);
    expect(() => crypto.esp({ ...specOf(weak), allowLegacy: false })).toThrow(KeyError);
    // Of the same length as a good one, and one of the weak keys of DES.
    expect(() => crypto.esp(specOf(weak, new Uint8Array(8).fill(1)))).toThrow(/weak/);
  });

  test('wiped is wiped, used before or not', () => {
    const crypto = new LazyCrypto(nodeCrypto);
    const row = ciphers.find(({ name }) => name === 'aes-gcm-16')!;
    const idle = crypto.esp(specOf(row));
    idle.wipe();
    expect(() => idle.seal(new Uint8Array(100), 0, 40, -1)).toThrow('assertion failed');
    expect(LazyCrypto.around(crypto)).toBe(crypto);
  });

  test('jobs go to the queue of the provider, by transforms made at their first packet', () => {
    const { crypto, made, noted, queue } = queued();
    const esp = crypto.esp(specOf(ciphers.find(({ name }) => name === 'aes-gcm-16')!));
    const ah = crypto.ah(specOf(macs.find(({ name }) => name === 'hmac-sha256')!));
    expect(made()).toBe(2);
    expect([esp.queue, ah.queue]).toEqual([queue, queue]);
    expect(made()).toBe(4);
    const p = new Uint8Array(100);
    expect(esp.sealLater!(p, 1, 2, 3)).toBe(0);
    expect(esp.openLater!(p, 4, 5, -1)).toBe(1);
    expect(ah.signLater!(p, 6, 7, 8, p, 9)).toBe(2);
    expect(ah.verifyLater!(p, 10, 11, 12, p, 13)).toBe(3);
    const packets = [{ bytes: p, at: 5 }];
    expect(esp.sealRowLater!(packets, 0, 1, 2, 30, 7)).toBe(4);
    expect(esp.openRowLater!(packets, 0, 1, 3, 20, -1)).toBe(5);
    expect(noted).toEqual([
      ['sealLater', p, 1, 2, 3],
      ['openLater', p, 4, 5, -1],
      ['signLater', p, 6, 7, 8, p, 9],
      ['verifyLater', p, 10, 11, 12, p, 13],
      ['sealRowLater', packets, 0, 1, 2, 30, 7],
      ['openRowLater', packets, 0, 1, 3, 20, -1],
    ]);
    expect(made()).toBe(4);
  });

  test('a provider without a queue has none here', () => {
    const crypto = new LazyCrypto(nodeCrypto);
    expect(crypto.esp(specOf(ciphers[0]!)).queue).toBeUndefined();
    expect(crypto.ah(specOf(macs[0]!)).queue).toBeUndefined();
  });
});

/** A provider with a queue, which notes down what it is asked for. */
function queued() {
  let made = 0;
  const noted: unknown[][] = [];
  const ok = { ok: () => true, countOk: (_job: number, count: number) => count };
  const queue: JobQueue = { capacity: 256, count: 0, run: () => {}, ...ok };
  const later =
    (name: string) =>
    (...job: unknown[]) =>
      noted.push([name, ...job]) - 1;
  const eager: CryptoProvider = {
    name: 'queued',
    supports: nodeCrypto.supports,
    esp: (spec) => {
      made++;
      const esp = nodeCrypto.esp(spec);
      const own = {
        ...{ queue, sealLater: later('sealLater'), openLater: later('openLater') },
        ...{ sealRowLater: later('sealRowLater'), openRowLater: later('openRowLater') },
      };
      return Object.assign(Object.create(esp), own, { wipe: () => esp.wipe() });
    },
    ah: (spec) => {
      made++;
      const ah = nodeCrypto.ah(spec);
      const own = { queue, signLater: later('signLater'), verifyLater: later('verifyLater') };
      return Object.assign(Object.create(ah), own, { wipe: () => ah.wipe() });
    },
  };
  return { crypto: new LazyCrypto(eager), made: () => made, noted, queue };
}
