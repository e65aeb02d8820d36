import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { formatAddress } from '../../src/base/address.ts';
import { authenticationByName, encryptionByName } from '../../src/crypto/algorithms.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import type { Sa, SaSpec } from '../../src/sad/sa.ts';
import { fromHex, setU16, toHex, u32 } from '../../src/wire/bytes.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { policy, Rig, request, sa, testEnv } from '../engine/rig.ts';
import { vectorFile } from '../files.ts';

/**
 * The packets that DPDK checks its drivers with, and the examples of RFC 3602: each is opened, and
 * made again.
 */

interface Case {
  readonly name: string;
  readonly proto: 'esp' | 'ah';
  readonly mode: 'tunnel' | 'transport';
  readonly spi: number;
  readonly seq: number;
  readonly aead?: string;
  readonly enc?: string;
  readonly key?: string;
  readonly salt?: string;
  readonly iv?: string;
  readonly auth?: string;
  readonly authKey?: string;
  readonly icvOctets: number;
  readonly plain: string;
  readonly protected: string;
}

const AUTH: Record<string, string> = { 'aes-xcbc': 'aes-xcbc-mac', 'aes-gmac': 'aes-gmac-128' };

function algorithms({ proto, aead, enc, auth, icvOctets }: Case) {
  const cipher = aead === undefined ? enc : `${aead}-${icvOctets}`;
  const mac = auth === undefined || auth === 'none' ? undefined : (AUTH[auth] ?? auth);
  return {
    ...(proto === 'esp' ? { enc: cipher! } : {}),
    ...(mac === undefined ? {} : { auth: mac }),
  };
}

function isSupported(one: Case): boolean {
  const { enc, auth } = algorithms(one);
  const rows = [enc && encryptionByName(enc), auth && authenticationByName(auth)];
  return rows.every((row) => !row || nodeCrypto.supports(row));
}

function specOf(one: Case, wire: Uint8Array): SaSpec {
  const family = wire[0]! >> 4 === 4 ? 4 : 6;
  const [at, len] = family === 4 ? [ipv4.SRC_AT, 4] : [8, 16];
  const end = (from: number) => formatAddress({ family, bytes: wire.slice(from, from + len) });
  const salt = one.salt ?? '';
  return sa({
    protocol: one.proto,
    spi: one.spi,
    src: end(at),
    dst: end(at + len),
    mode: one.mode,
    ...algorithms(one),
    ...(one.key === undefined ? {} : { encKey: fromHex(one.key + salt) }),
    ...(one.authKey === undefined
      ? {}
      : { authKey: fromHex(one.authKey + (one.key === undefined ? salt : '')) }),
  });
}

function protect(rig: Rig, direction: 'in' | 'out', spec: SaSpec): void {
  const ends = { src: formatAddress(spec.src), dst: formatAddress(spec.dst) };
  const mode = spec.mode === 'tunnel' ? 'tunnel' : 'transport';
  const one = request({ protocol: spec.protocol, mode, ...(mode === 'tunnel' ? ends : {}) });
  for (const all of ['0.0.0.0/0', '::/0'])
    rig.spd.add(policy(direction, all, all, { requests: [one] }));
}

/** Many of the SPIs are reserved ones, which the table refuses. */
function add(rig: Rig, spec: SaSpec): Sa {
  const living = rig.sad.add({ ...spec, spi: 0x1_0000 }, 'mature');
  living.spec = spec;
  rig.sad.inbound = (_, spi) => (spi === spec.spi ? living : undefined);
  return living;
}

function opened(one: Case): Uint8Array {
  const wire = fromHex(one.protected);
  const rig = new Rig();
  const spec = specOf(one, wire);
  add(rig, spec);
  protect(rig, 'in', spec);
  const [plain] = rig.input(wire);
  expect(rig.drops()).toEqual({});
  return plain!;
}

/** With the IV, the sequence number and the outer identification that were chosen there. */
function made(one: Case): Uint8Array {
  const wire = fromHex(one.protected);
  const spec = specOf(one, wire);
  const iv = fromHex(one.iv ?? '');
  const isIpv4 = wire[0]! >> 4 === 4;
  const env = testEnv();
  env.random.fill = (octets) => {
    if (octets.length === 2) setU16(octets, 0, isIpv4 ? ipv4.id(wire, 0) - 1 : 0);
    else octets.set(iv);
  };
  const dfbit = isIpv4 && ipv4.dontFragment(wire, 0) ? 'set' : 'clear';
  const lease = () => ({ start: one.seq, extend: (needed: number) => needed, release: () => {} });
  const rig = new Rig({ env, settings: { dfbit }, sequences: { lease } });
  const living = add(rig, spec);
  if ((spec.esp?.iv ?? 'unique') === 'unique' && iv.length === 8) {
    living.ivMask[0] = u32(iv, 0);
    living.ivMask[1] = (u32(iv, 4) ^ one.seq) >>> 0;
  }
  protect(rig, 'out', spec);
  const [sealed] = rig.output(fromHex(one.plain));
  expect(rig.drops()).toEqual({});
  // The TTL of a tunnel header is the sender's own choice, and no ICV covers it.
  if (isIpv4) {
    ipv4.setTtl(sealed!, 0, ipv4.ttl(wire, 0));
    ipv4.updateChecksum(sealed!, 0);
  }
  return sealed!;
}

const { packets } = JSON.parse(readFileSync(vectorFile('dpdk-esp-ah.json'), 'utf8')) as {
  packets: readonly Case[];
};
const supported = packets.filter(isSupported);

/** AH covers the identification, and where it is 0 ours is another (see `Output`). */
function hasNoId({ mode, plain }: Case): boolean {
  return mode === 'transport' && plain.slice(8, 12) === '0000';
}

describe('DPDK', () => {
  test('only what OpenSSL dropped is left out', () => {
    expect(packets.length).toBe(24);
    const left = packets.filter((one) => !isSupported(one));
    expect(new Set(left.map(({ enc }) => enc))).toEqual(
      new Set(left.length > 0 ? ['des-cbc'] : []),
    );
  });

  test.each(supported.map((one) => [one.name, one] as const))('opens %s', (_, one) => {
    expect(toHex(opened(one))).toBe(one.plain);
  });

  const again = supported.filter((one) => !hasNoId(one));
  test.each(again.map((one) => [one.name, one] as const))('makes %s again', (_, one) => {
    expect(toHex(made(one))).toBe(one.protected);
  });

  test.each(supported.map((one) => [one.name, one] as const))(
    'notices what was altered in %s',
    (_, one) => {
      if (one.auth === 'none') return;
      const wire = fromHex(one.protected);
      wire[wire.length - 1]! ^= 1;
      const rig = new Rig();
      const spec = specOf(one, wire);
      add(rig, spec);
      protect(rig, 'in', spec);
      expect(rig.input(wire)).toEqual([]);
      expect(rig.drops()).toEqual({ [`in ${one.proto}-bad-icv`]: 1 });
    },
  );
});
