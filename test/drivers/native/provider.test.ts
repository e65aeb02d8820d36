import { describe, expect, test } from 'vitest';
import { ALGORITHMS } from '../../../src/crypto/algorithms.ts';
import { nodeCrypto } from '../../../src/crypto/node-provider.ts';
import type { OpenSsl } from '../../../src/drivers/native/openssl.ts';
import { NativeProvider } from '../../../src/drivers/native/provider.ts';
import { hex, type Named, specOf } from '../../crypto/make.ts';
import { fast, ipsecMb, natives, openSsl } from './natives.ts';

const NATIVES = natives();

const GCM = { cipher: 'aes-gcm-16', cipherKey: '01'.repeat(20) };
const SHA512 = { mac: 'hmac-sha512', macKey: '02'.repeat(64) };
const HMAC = { mac: 'hmac-sha256', macKey: '02'.repeat(32) };

describe.each(NATIVES)('$name', ({ provider }) => {
  test('says what node:crypto says about what there is', () => {
    for (const row of ALGORITHMS) {
      expect(provider.supports(row), row.name).toBe(nodeCrypto.supports(row));
    }
  });

  test('does all but what is of yesterday or of nobody', () => {
    const not = ALGORITHMS.filter((row) => nodeCrypto.supports(row) && !provider.isNative(row));
    expect(not.map(({ name }) => name)).toEqual(['keyed-md5', 'keyed-sha1', 'null', 'null']);
    expect(provider.faults).toEqual([]);
  });

  test('what it does not do, node:crypto does, one packet at a time', () => {
    const spec = specOf({ mac: 'keyed-sha1', macKey: '03'.repeat(20) });
    expect(provider.esp(spec).queue).toBeUndefined();
    expect(provider.ah(spec).queue).toBeUndefined();
    const mixed = provider.esp({
      ...specOf(GCM),
      ...specOf({ cipher: 'aes-cbc', cipherKey: '04'.repeat(16) }),
      mac: spec.mac,
      macKey: spec.macKey,
    });
    expect(mixed.queue).toBeUndefined();
  });

  test('the same shape as that of node:crypto', () => {
    for (const row of ALGORITHMS.filter((one) => provider.isNative(one))) {
      const key = Uint8Array.from({ length: row.keyBits.min / 8 }, (_, i) => i * 37);
      const named: Named =
        row.kind === 'mac' ? { mac: row.name, macKey: key } : { cipher: row.name, cipherKey: key };
      if (row.kind === 'mac') expectSame(provider.ah(specOf(named)), nodeCrypto.ah(specOf(named)));
      if (row.kind === 'mac' && row.ivLen > 0) continue;
      expectSame(provider.esp(specOf(named)), nodeCrypto.esp(specOf(named)));
    }
  });

  test.each([
    { cipher: 'aes-gcm-16', cipherKey: '01' },
    { cipher: 'twofish-cbc', cipherKey: '01'.repeat(16) },
    { mac: 'tcp-md5', macKey: '01' },
    { ...GCM, ...HMAC },
  ])('%o is refused as by node:crypto', (named) => {
    expect(messageOf(() => provider.esp(specOf(named)))).toBe(
      messageOf(() => nodeCrypto.esp(specOf(named))),
    );
  });

  test('the keys passed in are not kept', () => {
    const spec = specOf({ ...HMAC, cipher: 'aes-ctr', cipherKey: '05'.repeat(20) });
    const [esp, twin] = [provider.esp(spec), nodeCrypto.esp(spec)];
    spec.cipherKey.fill(0);
    spec.macKey.fill(0);
    const [p, q] = [new Uint8Array(100), new Uint8Array(100)];
    esp.seal(p, 0, 40, -1);
    twin.seal(q, 0, 40, -1);
    expect(hex(p)).toBe(hex(q));
    esp.wipe();
  });

  test('an SA that is new while jobs wait is made without a test, by node:crypto', () => {
    const fresh = new NativeProvider(partsOf(provider));
    const esp = fresh.esp(specOf(GCM));
    esp.sealLater!(new Uint8Array(100), 0, 40, -1);
    expect(fresh.ah(specOf(HMAC)).queue).toBeUndefined();
    expect(fresh.queue.count).toBe(1);
    fresh.queue.run();
    expect(fresh.ah(specOf(HMAC)).queue).toBe(fresh.queue);
  });
});

describe.skipIf(!openSsl)('a library that gives wrong answers', () => {
  const { hashes, ...rest } = openSsl!;
  // Of the same make, but not the same hash.
  const sha512 = { ...hashes.sha512, init: hashes.sha384.init };
  const isWrong: OpenSsl = { ...rest, hashes: { ...hashes, sha512 } };

  test.each([
    ['no compiler', undefined],
    ['compiled', fast],
  ] as const)('is not asked again: OpenSSL, %s', (_, compiled) => {
    const provider = new NativeProvider({ openSsl: isWrong, fast: compiled });
    const ah = provider.ah(specOf(SHA512));
    expect(ah.queue).toBeUndefined();
    expect(provider.esp(specOf(GCM)).queue).toBe(provider.queue);
    expect(provider.faults).toEqual(['hmac-sha512 by node:crypto, since other answers are wrong']);
    const [icv, right] = [new Uint8Array(100), new Uint8Array(100)];
    ah.sign(icv.slice(), 0, 50, -1, icv, 0);
    nodeCrypto.ah(specOf(SHA512)).sign(right.slice(), 0, 50, -1, right, 0);
    expect(hex(icv)).toBe(hex(right));
  });

  test.skipIf(!ipsecMb).each([
    ['no compiler', undefined],
    ['compiled', fast],
  ] as const)('is not asked again: intel-ipsec-mb, %s; OpenSSL is', (_, compiled) => {
    const [short, middle, long] = ipsecMb!.gcm;
    const imb = { ...ipsecMb!, gcm: [short, middle, { ...long, ...openOf(short, long) }] as const };
    const provider = new NativeProvider({ openSsl: openSsl!, imb, fast: compiled });
    const key = { cipher: 'aes-gcm-16', cipherKey: '06'.repeat(36) };
    const [esp, twin] = [provider.esp(specOf(key)), nodeCrypto.esp(specOf(key))];
    expect(provider.faults).toEqual(['aes-gcm-16 not by intel-ipsec-mb, whose answers are wrong']);
    expect(esp.queue).toBe(provider.queue);
    const p = new Uint8Array(100);
    twin.seal(p, 0, 40, -1);
    expect(esp.open(p, 0, 56, -1)).toBe(true);
    expect(provider.isNative(specOf(HMAC).mac!)).toBe(true);
    expect(provider.faults.length).toBe(1);
  });
});

/** Opens with the rounds of a shorter key. */
function openOf(short: NonNullable<typeof ipsecMb>['gcm'][0], long: typeof short) {
  const [seal, , ...gmac] = long.addresses;
  return { open: short.open, addresses: [seal!, short.addresses[1]!, ...gmac] };
}

function partsOf(provider: NativeProvider) {
  const { name } = NATIVES.find((one) => one.provider === provider)!;
  return {
    openSsl: openSsl!,
    imb: name.startsWith('ipsec-mb') ? ipsecMb : undefined,
    fast: name.includes('no compiler') ? undefined : fast,
  };
}

function expectSame<T extends { wipe(): void }>(transform: T, twin: T): void {
  for (const name of ['ivLen', 'icvLen', 'alignLen', 'iv', 'authenticates'] as const) {
    const of = (one: T) => (one as Readonly<Record<string, unknown>>)[name];
    expect([name, of(transform)]).toEqual([name, of(twin)]);
  }
  transform.wipe();
}

function messageOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return String(error);
  }
  throw new Error('nothing was thrown');
}
