import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { encryptionByName } from '../../src/crypto/algorithms.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import type { EspTransform } from '../../src/crypto/transform.ts';
import { espOf, hex, type Named, octets } from '../crypto/make.ts';

/**
 * ESP packets that Linux, scapy and DPDK made, below their IP headers: each opens, and sealed again
 * with its own IV is the same octet by octet.
 */

interface Case {
  readonly name: string;
  readonly algorithms: Named;
  readonly packet: string;
  /** Where ESP begins in `packet`, and what its text must contain. */
  readonly espAt: number;
  readonly text: string;
  readonly seqHigh: number;
}

interface Frame {
  readonly proto: 'esp' | 'ah';
  readonly id: number;
  readonly enc?: string;
  readonly enckey: string;
  readonly aead?: string;
  readonly icv: number;
  readonly auth?: string;
  readonly authkey?: string;
  readonly encap: boolean;
  readonly esn: boolean;
  readonly seqHi: number;
  readonly outer: 4 | 6;
  readonly frame?: string;
  readonly packet?: string;
  readonly payload: string;
}

const CIPHER: Readonly<Record<string, string>> = { 'cast5-cbc': 'cast128-cbc' };
const MAC: Readonly<Record<string, string>> = {
  'hmac-md5-96': 'hmac-md5',
  'hmac-sha1-96': 'hmac-sha1',
  'hmac-sha256-128': 'hmac-sha256',
  'hmac-sha256-96': 'hmac-sha256-96',
  'hmac-sha384-192': 'hmac-sha384',
  'hmac-sha512-256': 'hmac-sha512',
  'hmac-ripemd160-96': 'hmac-ripemd160',
  'aes-xcbc-96': 'aes-xcbc-mac',
  'aes-cmac-96': 'aes-cmac',
};

test.each([
  ['linux-6.1-esp-ah.json', 176, 170],
  ['scapy-2.5.0.json', 128, 128],
])('%s', (file, all, known) => {
  const frames: readonly Frame[] = read(file).frames;
  const esp = frames.filter((frame) => frame.proto === 'esp').map(fromFrame);
  expect(esp.length).toBe(all);
  // Serpent is not an algorithm of setkey.
  expect(run(esp)).toBe(known);
});

test('dpdk-esp-ah.json', () => {
  const packets: readonly Dpdk[] = read('dpdk-esp-ah.json').packets;
  const esp = packets.filter((packet) => packet.proto === 'esp').map(fromDpdk);
  expect(run(esp)).toBe(21);
});

describe('RFC 3602 §4, cases 5 to 8', () => {
  interface Rfc3602 {
    readonly case: string;
    readonly key: string;
    readonly esp: string;
    readonly payload: string;
  }
  const cases: readonly Rfc3602[] = read('rfc3602-esp.json');
  test.each(cases)('$case', ({ key, esp, payload }) => {
    const algorithms = { cipher: 'aes-cbc', cipherKey: key };
    expect(
      run([{ name: 'rfc3602', algorithms, packet: esp, espAt: 0, text: payload, seqHigh: -1 }]),
    ).toBe(1);
  });
});

/** Checks all cases; returns how many have algorithms that are in the table. */
function run(cases: readonly Case[]): number {
  let known = 0;
  for (const one of cases) {
    const cipher = encryptionByName(one.algorithms.cipher ?? 'null');
    if (!cipher) continue;
    known++;
    if (nodeCrypto.supports(cipher)) check(one);
    else expect(() => espOf(one.algorithms), one.name).toThrow(/does not have it/);
  }
  return known;
}

function check({ name, algorithms, packet, espAt, text, seqHigh }: Case): void {
  const inbound = espOf(algorithms);
  const p = octets(packet);
  expect(inbound.open(p, espAt, p.length, seqHigh), `${name} opens`).toBe(true);
  const end = p.length - inbound.icvLen;
  const opened = p.slice(espAt + 8 + inbound.ivLen, end);
  expect(hex(opened), `${name} has the payload`).toContain(text);
  p.fill(0, end);
  const outbound = espOf(algorithms);
  outbound.seal(p, espAt, end, seqHigh);
  expect(hex(p), `${name} sealed again`).toBe(packet);
  expectBrokenIcvRefused(name, espOf(algorithms), octets(packet), espAt, seqHigh);
}

function expectBrokenIcvRefused(
  name: string,
  esp: EspTransform,
  p: Uint8Array,
  espAt: number,
  seqHigh: number,
): void {
  if (!esp.authenticates) return;
  p[p.length - 1]! ^= 1;
  expect(esp.open(p, espAt, p.length, seqHigh), `${name} with a wrong ICV`).toBe(false);
}

function fromFrame(frame: Frame): Case {
  const linkLen = frame.frame === undefined ? 0 : 14;
  const ipLen = frame.outer === 4 ? 20 : 40;
  const algorithms = frame.aead
    ? { cipher: aeadName(frame.aead, frame.icv / 8), cipherKey: frame.enckey }
    : {
        cipher: CIPHER[frame.enc!] ?? frame.enc!,
        cipherKey: frame.enckey,
        ...(frame.auth === 'none' ? {} : { mac: MAC[frame.auth!]!, macKey: frame.authkey! }),
      };
  return {
    name: `case ${frame.id}`,
    algorithms,
    packet: (frame.frame ?? frame.packet)!,
    espAt: linkLen + ipLen + (frame.encap ? 8 : 0),
    text: frame.payload,
    seqHigh: frame.esn ? frame.seqHi : -1,
  };
}

interface Dpdk {
  readonly name: string;
  readonly proto: 'esp' | 'ah';
  readonly outer: 4 | 6;
  readonly aead?: string;
  readonly enc?: string;
  readonly auth?: string;
  readonly key: string;
  readonly salt?: string;
  readonly authKey?: string;
  readonly icvOctets: number;
  readonly plain: string;
  readonly protected: string;
}

function fromDpdk(packet: Dpdk): Case {
  const mac = packet.auth === 'aes-xcbc' ? 'aes-xcbc-mac' : packet.auth;
  return {
    name: packet.name,
    algorithms: packet.aead
      ? {
          cipher: aeadName(packet.aead, packet.icvOctets),
          cipherKey: packet.key + packet.salt,
        }
      : {
          cipher: packet.enc!,
          cipherKey: packet.key,
          ...(mac === undefined || mac === 'none' ? {} : { mac, macKey: packet.authKey! }),
        },
    packet: packet.protected,
    espAt: packet.outer === 4 ? 20 : 40,
    text: packet.plain,
    seqHigh: -1,
  };
}

function aeadName(aead: string, icvLen: number): string {
  return aead === 'aes-gcm' || aead === 'aes-ccm' ? `${aead}-${icvLen}` : aead;
}

function read(file: string) {
  return JSON.parse(readFileSync(new URL(`./data/${file}`, import.meta.url), 'utf8'));
}
