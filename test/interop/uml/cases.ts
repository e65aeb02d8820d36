import { type Case, type CaseGiven, makeCase } from '../case.ts';

const MODES = ['transport', 'tunnel'] as const;
const FAMILIES = [4, 6] as const;

/** Every combination that a host can be asked for, and every algorithm once. */
export function makeCases(): readonly Case[] {
  const all: Case[] = [];
  const add = (given: CaseGiven) => all.push(makeCase(all.length + 1, given));
  for (const mode of MODES) {
    for (const family of FAMILIES) {
      const shape = { mode, inner: family, outer: family, stream: true } as const;
      add({ ...shape, enc: 'aes-gcm-16' });
      add({ ...shape, enc: 'aes-cbc', auth: 'hmac-sha256' });
      add({ ...shape, protocol: 'ah', auth: 'hmac-sha256', ahAlignLen: 8 });
      add({ ...shape, enc: 'aes-gcm-16', udp: true });
      add({ ...shape, enc: 'aes-cbc', auth: 'hmac-sha1', udp: true });
      if (family === 4) add({ ...shape, protocol: 'ah', auth: 'hmac-sha256', ahAlignLen: 4 });
    }
  }
  for (const [inner, outer] of [[4, 6] as const, [6, 4] as const]) {
    add({ mode: 'tunnel', inner, outer, enc: 'aes-gcm-16', stream: true });
    add({ mode: 'tunnel', inner, outer, protocol: 'ah', auth: 'hmac-sha1' });
    add({ mode: 'tunnel', inner, outer, enc: 'aes-gcm-16', udp: true });
  }
  for (const family of FAMILIES) {
    for (const mode of MODES) {
      const shape = { mode, inner: family, outer: family } as const;
      add({ ...shape, enc: 'aes-gcm-16', ahAround: 'hmac-sha256', stream: true });
    }
  }
  add({
    mode: 'tunnel',
    inner: 4,
    outer: 6,
    enc: 'aes-cbc',
    auth: 'hmac-sha1',
    ahAround: 'hmac-sha1',
  });
  // The stream crosses the point where the high half of the sequence number becomes 1.
  const esn = { esn: true, lastSeq: 0xffff_fff0, stream: true } as const;
  add({ ...esn, enc: 'aes-gcm-16' });
  add({ ...esn, enc: 'aes-cbc', auth: 'hmac-sha256', mode: 'tunnel', inner: 6, outer: 6 });
  add({ ...esn, protocol: 'ah', auth: 'hmac-sha1' });
  for (const given of ALGORITHMS) add(given);
  return all;
}

/** One ping each: what the matrix above does not use. */
const ALGORITHMS: readonly CaseGiven[] = [
  { enc: 'aes-cbc', encKeyLen: 24, auth: 'hmac-sha384' },
  { enc: 'aes-cbc', encKeyLen: 32, auth: 'hmac-sha512' },
  { enc: 'aes-cbc', auth: 'hmac-sha256-96' },
  { enc: 'aes-cbc', auth: 'hmac-md5' },
  { enc: 'aes-cbc', auth: 'aes-xcbc-mac' },
  { enc: 'aes-cbc', auth: 'aes-cmac' },
  { enc: 'aes-ctr', auth: 'hmac-sha256' },
  { enc: 'aes-ctr', encKeyLen: 36, auth: 'hmac-sha1' },
  { enc: '3des-cbc', auth: 'hmac-sha1' },
  { enc: 'camellia-cbc', auth: 'hmac-sha256' },
  { enc: 'null', auth: 'hmac-sha256' },
  { enc: 'aes-gcm-8' },
  { enc: 'aes-gcm-12' },
  { enc: 'aes-gcm-16', encKeyLen: 28 },
  { enc: 'aes-gcm-16', encKeyLen: 36 },
  { enc: 'aes-ccm-8' },
  { enc: 'aes-ccm-12' },
  { enc: 'aes-ccm-16', encKeyLen: 35 },
  { enc: 'aes-gmac' },
  { enc: 'chacha20-poly1305' },
  { protocol: 'ah', auth: 'hmac-md5' },
  { protocol: 'ah', auth: 'hmac-sha1' },
  { protocol: 'ah', auth: 'hmac-sha384' },
  { protocol: 'ah', auth: 'hmac-sha512' },
  { protocol: 'ah', auth: 'hmac-sha256-96' },
  { protocol: 'ah', auth: 'aes-xcbc-mac' },
  { protocol: 'ah', auth: 'aes-cmac' },
  { protocol: 'ah', auth: 'hmac-sha512', mode: 'tunnel', inner: 6, outer: 6 },
];
