import { describe, expect, test } from 'vitest';
import { defaultSettings } from '../../src/engine/settings.ts';
import { Sysctl } from '../../src/engine/sysctl.ts';
import { keyVariables } from '../../src/key/sysctl.ts';
import { extension } from '../../src/wire/pfkey-message.ts';
import { A, B, dst, policy, request, rig, src } from './rig.ts';

const ENDS = [src(A), dst(B)] as const;
const ANY = [src(A, { proto: 255 }), dst(B, { proto: 255 })] as const;
const TRIGGER = { cursor: { protocol: 17, portsKnown: true, sport: 1, dport: 2 } };

function host() {
  const made = rig();
  const packets = defaultSettings();
  const { settings, sad } = made;
  const sysctl = new Sysctl(keyVariables({ settings, sad, engine: packets }));
  const set = (name: string, value: number) => sysctl.call(`net.key.${name}`, value);
  return { ...made, packets, set };
}

describe('SPIs', () => {
  test('spi_min_value and spi_max_value bound what is given out unasked', () => {
    const { connect, set } = host();
    const client = connect();
    set('spi_max_value', 0x2003);
    set('spi_minval', 0x2000);
    const spis = [1, 2, 3, 4].map(() => extension(client.one('GETSPI', 'esp', ...ENDS), 'SA')!.spi);
    expect(spis.sort()).toEqual([0x2000, 0x2001, 0x2002, 0x2003]);
  });

  test('they must not cross, and 255 is reserved', () => {
    const { set, settings } = host();
    set('spi_max_value', 0x2000);
    expect(() => set('spi_min_value', 0x2001)).toThrow(/smallest SPI 8193/);
    expect(() => set('spi_max_value', 0xff)).toThrow(/from 256/);
    expect([settings.spiMin, settings.spiMax]).toEqual([0x100, 0x2000]);
  });

  test('spi_try: with a single try, an SPI in use is an error', () => {
    const { connect, set } = host();
    const client = connect();
    set('spi_min_value', 0x2000);
    set('spi_max_value', 0x2001);
    const taken = extension(client.one('GETSPI', 'esp', ...ENDS), 'SA')!.spi;
    expect([0x2000, 0x2001]).toContain(taken);
    const outcomes = (tries: number) => {
      set('spi_trycnt', tries);
      return [1, 2, 3, 4, 5, 6, 7, 8].map(() => {
        const [reply] = client.ask('GETSPI', 'esp', ...ENDS);
        if (reply!.errno !== 0) return 'full';
        client.ask('DELETE', 'esp', extension(reply!, 'SA')!, ...ENDS);
        return 'found';
      });
    };
    expect(outcomes(1)).toContain('full');
    expect(outcomes(1000)).not.toContain('full');
  });

  test('larval_lifetime: how long a reserved SPI waits', () => {
    const { connect, set, sad, advance } = host();
    const client = connect();
    set('larval_lifetime', 5);
    client.ask('GETSPI', 'esp', ...ENDS);
    advance(4_999);
    expect(sad.size).toBe(1);
    advance(1);
    expect(sad.size).toBe(0);
  });
});

describe('ACQUIRE', () => {
  function asking() {
    const made = host();
    const client = made.connect();
    for (const type of ['esp', 'ah'] as const) client.ask('REGISTER', type);
    client.ask('X_SPDADD', 'unspec', policy(2, { requests: [request()] }), ...ANY);
    const [wanted] = made.spd.list('out');
    const ask = (protocol: 'esp' | 'ah' = 'esp') => {
      client.notices.length = 0;
      const one = { ...wanted!.requests[0]!, protocol };
      made.engine.acquire(wanted!, one, A, B, TRIGGER);
      return client.notices.map((message) => extension(message, 'PROPOSAL')!.combs);
    };
    return { ...made, ask };
  }

  test('blockacq_count: so many packets later it is said again', () => {
    const { ask, set } = asking();
    set('blockacq_count', 2);
    expect([1, 2, 3, 4, 5].map(() => ask().length)).toEqual([1, 0, 0, 1, 0]);
  });

  test('blockacq_lifetime: so many seconds later it starts over', () => {
    const { ask, set, advance } = asking();
    set('blockacq_lifetime', 3);
    expect(ask().length).toBe(1);
    advance(2_999);
    expect(ask().length).toBe(0);
    advance(1);
    expect(ask().length).toBe(1);
  });

  test('esp_keymin and ah_keymin: shorter keys are not proposed', () => {
    const { ask, set, advance } = asking();
    set('esp_keymin', 256);
    set('ah_keymin', 384);
    const [esp] = ask('esp');
    const [ah] = ask('ah');
    // AES-CBC and AES-GCM with their salt.
    for (const comb of esp!) expect(comb.encryptBits.min).toBeGreaterThanOrEqual(256);
    expect(ah!.map(({ auth }) => auth).sort()).toEqual([6, 7]);
    set('ah_keymin', 128);
    advance(20_000);
    expect(ask('ah')[0]!.length).toBeGreaterThan(2);
  });

  test('esp_auth: whether ciphers are proposed with a MAC', () => {
    const { ask, set, advance } = asking();
    const bare = (combs: readonly { encrypt: number; auth: number }[]) =>
      combs.filter(({ encrypt, auth }) => encrypt === 12 && auth === 0).length;
    expect(bare(ask()[0]!)).toBe(0);
    set('esp_auth', 0);
    advance(20_000);
    expect(bare(ask()[0]!)).toBe(1);
  });
});

test('preferred_oldsa by both spellings, and the keep-alive, are the engine’s', () => {
  const { set, packets } = host();
  set('prefered_oldsa', 1);
  set('natt_keepalive_interval', 7);
  expect(packets).toMatchObject({ preferOldSa: true, keepaliveSeconds: 7 });
  set('preferred_oldsa', 0);
  expect(packets.preferOldSa).toBe(false);
});
