import { expect, test } from 'vitest';
import { wiresharkTable } from '../../src/daemon/wireshark.ts';
import { Rig, type SaGiven, sa } from '../engine/rig.ts';

const PAIR = { spi: 0x1001, src: '10.0.0.1', dst: '10.0.0.2' };

function tableOf(given: SaGiven, state: 'larval' | 'mature' = 'mature'): string {
  const rig = new Rig();
  rig.sad.add(sa(given), state);
  return wiresharkTable(rig.sad.all());
}

test('a cipher and a MAC', () => {
  const encKey = new Uint8Array(16).fill(0xa5);
  const authKey = new Uint8Array(32).fill(0x0f);
  const enc = 'aes-cbc';
  expect(tableOf({ ...PAIR, enc, encKey, auth: 'hmac-sha256', authKey })).toBe(
    `"IPv4","10.0.0.1","10.0.0.2","0x00001001","AES-CBC [RFC3602]","0x${'a5'.repeat(16)}",` +
      `"HMAC-SHA-256-128 [RFC4868]","0x${'0f'.repeat(32)}"\n`,
  );
});

test('an AEAD has no MAC beside it, and its salt is part of the key', () => {
  const encKey = new Uint8Array(20).fill(0x5a);
  const given = { ...PAIR, spi: 0xfedcba98, src: '2001:db8::1', dst: '2001:db8::2', encKey };
  expect(tableOf({ ...given, enc: 'aes-gcm-12' })).toBe(
    `"IPv6","2001:db8::1","2001:db8::2","0xfedcba98","AES-GCM with 12 octet ICV [RFC4106]",` +
      `"0x${'5a'.repeat(20)}","NULL",""\n`,
  );
});

test('no encryption, and a key that null does not use', () => {
  const authKey = new Uint8Array(20).fill(1);
  const given = { ...PAIR, enc: 'null', encKey: Uint8Array.of(7, 7), auth: 'hmac-sha1', authKey };
  expect(tableOf(given)).toContain(`"NULL","","HMAC-SHA-1-96 [RFC2404]","0x${'01'.repeat(20)}"`);
});

test('what Wireshark does not know is said, without the key', () => {
  const encKey = new Uint8Array(36).fill(0xc3);
  expect(tableOf({ ...PAIR, enc: 'chacha20-poly1305', encKey })).toBe(
    '# 0x00001001 to 10.0.0.2: Wireshark does not know chacha20-poly1305\n',
  );
  const keyed = tableOf({ ...PAIR, enc: 'aes-cbc', auth: 'keyed-md5' });
  expect(keyed).toBe('# 0x00001001 to 10.0.0.2: Wireshark does not know keyed-md5\n');
});

test('AH, and SAs without keys, are left out', () => {
  expect(tableOf({ ...PAIR, protocol: 'ah', auth: 'hmac-sha1' })).toBe('');
  expect(tableOf(PAIR, 'larval')).toBe('');
  const rig = new Rig();
  const dead = rig.sad.add(sa(PAIR), 'mature');
  rig.sad.remove(dead);
  expect(wiresharkTable([dead])).toBe('');
});

test('one line for each, in their order', () => {
  const rig = new Rig();
  for (const spi of [0x3000, 0x2000]) rig.sad.add(sa({ ...PAIR, spi }), 'mature');
  const lines = wiresharkTable(rig.sad.all()).trimEnd().split('\n');
  expect(lines.map((text) => text.split(',')[3])).toEqual(['"0x00003000"', '"0x00002000"']);
});
