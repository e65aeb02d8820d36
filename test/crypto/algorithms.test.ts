import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { KeyError } from '../../src/base/error.ts';
import {
  ALGORITHMS,
  authenticationById,
  authenticationByName,
  checkKeyLength,
  encryptionById,
  encryptionByName,
  isKeyLength,
  keyLengthText,
} from '../../src/crypto/algorithms.ts';
import { octets } from './make.ts';

describe('names', () => {
  test.each([
    ['rijndael-cbc', 'aes-cbc'],
    ['simple', 'null'],
    ['aes-gcm-16', 'aes-gcm-16'],
  ])('-E %s is %s', (name, canonical) => {
    expect(encryptionByName(name)?.name).toBe(canonical);
  });

  test.each([
    ['hmac-sha2-256', 'hmac-sha256', 16],
    ['hmac-sha256', 'hmac-sha256', 16],
    ['hmac-sha2-256-96', 'hmac-sha256-96', 12],
    ['hmac-sha2-384', 'hmac-sha384', 24],
    ['hmac-sha2-512', 'hmac-sha512', 32],
  ])('-A %s is %s with %d octets of ICV', (name, canonical, icvLen) => {
    expect(authenticationByName(name)).toMatchObject({ name: canonical, icvLen });
  });

  test('-E and -A do not see each other, except for null', () => {
    expect(encryptionByName('hmac-sha1')).toBeUndefined();
    expect(authenticationByName('aes-cbc')).toBeUndefined();
    expect(encryptionByName('null')).not.toBe(authenticationByName('null'));
  });

  test('no name and no number twice on one side', () => {
    for (const side of [true, false]) {
      const rows = ALGORITHMS.filter((row) => (row.kind === 'mac') === side);
      const names = rows.flatMap((row) => [row.name, ...row.aliases]);
      expect(new Set(names).size).toBe(names.length);
      expect(new Set(rows.map((row) => row.pfkey)).size).toBe(rows.length);
      const ike = rows.flatMap((row) => row.ike ?? []);
      expect(new Set(ike).size).toBe(ike.length);
    }
  });
});

/** The lists that Linux 6.1 answers a REGISTER with: id, IV bits and key bits, 8 octets each. */
describe("Linux's REGISTER reply", () => {
  const url = new URL('../vectors/data/setkey.json', import.meta.url);
  const reply = octets(JSON.parse(readFileSync(url, 'utf8')).register.reply);
  const view = new DataView(reply.buffer);
  const listed: { type: number; id: number; iv: number; min: number; max: number }[] = [];
  for (let at = 16; at < reply.length; at += 8 * view.getUint16(at, true)) {
    const end = at + 8 * view.getUint16(at, true);
    for (let row = at + 8; row < end; row += 8) {
      listed.push({
        type: view.getUint16(at + 2, true),
        id: reply[row]!,
        iv: reply[row + 1]!,
        min: view.getUint16(row + 2, true),
        max: view.getUint16(row + 4, true),
      });
    }
  }

  test('its MACs have the same numbers and key lengths', () => {
    const ours = listed.filter((row) => row.type === 14 && row.id !== 251);
    expect(ours.length).toBe(7);
    for (const { id, min, max } of ours) {
      expect(authenticationById(id)?.keyBits, `AALG ${id}`).toMatchObject({ min, max });
    }
  });

  test('its ciphers have the same numbers, key lengths and IVs', () => {
    const ours = listed.filter((row) => row.type === 15 && row.id !== 11);
    expect(ours.length).toBeGreaterThan(7);
    for (const { id, iv, min, max } of ours) {
      const row = encryptionById(id);
      if (id === 252) {
        expect(row, 'Serpent is not in setkey').toBeUndefined();
        continue;
      }
      // Linux lists 8 octets of IV also for the CBC ciphers with blocks of 16, and sends 16 (RFC
      // 3602 §3).
      expect(row?.ivLen, `EALG ${id}`).toBe(row?.blockLen === 16 ? 2 * iv : iv);
      // Linux counts keys of GCM and CCM without their salt.
      const salt = row?.kind === 'aead' ? 8 * row.saltLen : 0;
      expect(row?.keyBits, `EALG ${id}`).toMatchObject({ min: min + salt, max: max + salt });
    }
  });
});

/**
 * Which lengths NetBSD's kernel takes and refuses (its tests t_ipsec_esp_keys and t_ipsec_ah_keys).
 */
describe('key lengths', () => {
  test.each([
    ['des-cbc', '64', '56 72'],
    ['3des-cbc', '192', '184 200'],
    ['blowfish-cbc', '40 448', '32 456'],
    ['cast128-cbc', '40 128', '32 136'],
    ['rijndael-cbc', '128 192 256', '120 136 184 200 248 264'],
    ['aes-ctr', '160 224 288', '152 168 216 232 280 296'],
    ['camellia-cbc', '128 192 256', '120 136 184 200 248 264'],
    ['aes-gcm-16', '160 224 288', '152 168 216 232 280 296'],
    ['aes-gmac', '160 224 288', '152 168 216 232 280 296'],
    ['aes-ccm-16', '152 216 280', '144 160 128 256 288'],
    ['chacha20-poly1305', '288', '256 280 296'],
    ['null', '0 2048', '2056'],
  ])('-E %s: %s, not %s', (name, valid, invalid) => {
    checkLengths(encryptionByName(name), valid, invalid);
  });

  test.each([
    ['hmac-md5', '128', '120 136'],
    ['hmac-sha1', '160', '152 168'],
    ['keyed-md5', '128', '120 136'],
    ['keyed-sha1', '160', '152 168'],
    ['hmac-sha256', '256', '248 264'],
    ['hmac-sha384', '384', '376 392'],
    ['hmac-sha512', '512', '504 520'],
    ['hmac-ripemd160', '160', '152 168'],
    ['aes-xcbc-mac', '128', '120 136'],
    ['aes-cmac', '128', '120 136 192'],
    ['aes-gmac-256', '288', '256 224 296'],
    ['tcp-md5', '8 640', '0 648'],
  ])('-A %s: %s, not %s', (name, valid, invalid) => {
    checkLengths(authenticationByName(name), valid, invalid);
  });

  test('the error says what would do', () => {
    expect(() => checkKeyLength(encryptionByName('aes-cbc')!, 160)).toThrow(
      new KeyError('EINVAL', 'aes-cbc takes a key of 128, 192 or 256 bits; this one has 160'),
    );
    expect(() => checkKeyLength(encryptionByName('aes-gcm-16')!, 128)).toThrow(
      'aes-gcm-16 takes a key of 160, 224 or 288 bits (with the 32 bits of salt); this one has 128',
    );
    expect(keyLengthText(encryptionByName('blowfish-cbc')!)).toBe('40 to 448');
    expect(() => checkKeyLength(authenticationByName('hmac-sha1')!, 0)).toThrow('there is none');
  });

  function checkLengths(
    row: ReturnType<typeof encryptionByName>,
    valid: string,
    invalid: string,
  ): void {
    for (const bits of valid.split(' ').map(Number)) {
      expect(isKeyLength(row!, bits), `${bits}`).toBe(true);
      expect(() => checkKeyLength(row!, bits)).not.toThrow();
    }
    for (const bits of invalid.split(' ').map(Number)) {
      expect(isKeyLength(row!, bits), `${bits}`).toBe(false);
      expect(() => checkKeyLength(row!, bits)).toThrow(KeyError);
    }
  }
});
