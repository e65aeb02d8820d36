import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { formatAddress } from '../../src/base/address.ts';
import { authenticationByName, encryptionByName } from '../../src/crypto/algorithms.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import type { SaSpec } from '../../src/sad/sa.ts';
import * as ah from '../../src/wire/ah.ts';
import { fromHex, setU16, toHex, u16, u32 } from '../../src/wire/bytes.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { policy, Rig, request, sa, testEnv } from '../engine/rig.ts';

/**
 * Whole packets that the Linux kernel, scapy and DPDK made: the engine must open each, and given
 * their IV and identification build each again octet for octet.
 */

interface Case {
  readonly id: number;
  readonly proto: 'esp' | 'ah';
  readonly enc?: string;
  readonly enckey?: string;
  readonly aead?: string;
  readonly icv: number;
  readonly auth?: string;
  readonly authkey?: string;
  readonly mode: 'transport' | 'tunnel';
  readonly encap: boolean;
  readonly esn: boolean;
  readonly align4?: boolean;
  readonly spi: number;
  readonly seqHi: number;
  readonly payload: string;
  readonly frame?: string;
  readonly packet?: string;
  readonly plain?: string;
}

const ENC: Record<string, string> = { 'cast5-cbc': 'cast128-cbc' };
const AUTH: Record<string, string> = {
  'hmac-md5-96': 'hmac-md5',
  'hmac-sha1-96': 'hmac-sha1',
  'hmac-sha256-128': 'hmac-sha2-256',
  'hmac-sha256-96': 'hmac-sha2-256-96',
  'hmac-sha384-192': 'hmac-sha2-384',
  'hmac-sha512-256': 'hmac-sha2-512',
  'hmac-ripemd160-96': 'hmac-ripemd160',
  'aes-xcbc-96': 'aes-xcbc-mac',
  'aes-cmac-96': 'aes-cmac',
};

function encName(one: Case): string | undefined {
  if (one.aead === undefined) return one.enc === undefined ? undefined : (ENC[one.enc] ?? one.enc);
  const hasSizes = one.aead === 'aes-gcm' || one.aead === 'aes-ccm';
  return hasSizes ? `${one.aead}-${one.icv / 8}` : one.aead;
}

function authName(one: Case): string | undefined {
  return one.auth === undefined || one.auth === 'none' ? undefined : AUTH[one.auth];
}

/** Algorithms that this OpenSSL does not have; the reasons are printed. */
function isSupported(one: Case): boolean {
  const enc = encName(one);
  const row = enc === undefined ? undefined : encryptionByName(enc);
  if (enc !== undefined && (row === undefined || !nodeCrypto.supports(row))) return false;
  const auth = authName(one);
  const mac = auth === undefined ? undefined : authenticationByName(auth);
  return auth === undefined || (mac !== undefined && nodeCrypto.supports(mac));
}

function specOf(one: Case, wire: Uint8Array): SaSpec {
  const isIpv4 = wire[0]! >> 4 === 4;
  const addressLen = isIpv4 ? 4 : 16;
  const srcAt = isIpv4 ? 12 : 8;
  const at = (from: number) =>
    formatAddress({ family: isIpv4 ? 4 : 6, bytes: wire.slice(from, from + addressLen) });
  const enc = encName(one);
  const auth = authName(one);
  return sa({
    protocol: one.proto,
    spi: one.spi,
    src: at(srcAt),
    dst: at(srcAt + addressLen),
    mode: one.mode,
    esn: one.esn,
    ahAlignLen: one.align4 ? 4 : 8,
    ...(enc === undefined ? {} : { enc, encKey: fromHex(one.enckey ?? '') }),
    ...(auth === undefined ? {} : { auth, authKey: fromHex(one.authkey!) }),
    ...(one.encap ? { encapsulation: { srcPort: 4500, dstPort: 4500 } } : {}),
  });
}

function opened(one: Case, wire: Uint8Array): { rig: Rig; plain: Uint8Array } {
  const rig = new Rig();
  const spec = specOf(one, wire);
  const living = rig.sad.add(spec, 'mature');
  if (one.esn) living.replay.startAt(one.seqHi * 2 ** 32);
  for (const everything of ['0.0.0.0/0', '::/0']) {
    const ends = { src: formatAddress(spec.src), dst: formatAddress(spec.dst) };
    const rule = request({
      protocol: one.proto,
      mode: one.mode,
      ...(one.mode === 'tunnel' ? ends : {}),
    });
    rig.spd.add(policy('in', everything, everything, { requests: [rule] }));
  }
  const [plain] = rig.input(wire);
  expect(rig.drops()).toEqual({});
  return { rig, plain: plain! };
}

/** The octets of IV, the sequence number and the identification of a packet that somebody made. */
function choices(
  one: Case,
  wire: Uint8Array,
  ivLen: number,
): { iv: Uint8Array; seq: number; id: number } {
  const cursor = new Cursor();
  expect(decode(wire, 0, wire.length, cursor)).toBeUndefined();
  const espAt = cursor.upperAt + (one.encap ? 8 : 0);
  const low = u32(wire, one.proto === 'esp' ? espAt + 4 : cursor.upperAt + 8);
  return {
    iv: wire.slice(espAt + 8, espAt + 8 + ivLen),
    seq: one.seqHi * 2 ** 32 + low,
    id: cursor.family === 4 ? ipv4.id(wire, 0) : 0,
  };
}

function rebuilt(one: Case, wire: Uint8Array, plain: Uint8Array): Uint8Array {
  const spec = specOf(one, wire);
  const { iv, seq, id } = choices(one, wire, spec.esp?.ivLen ?? 0);
  const env = testEnv();
  let first = true;
  const random = env.random.fill;
  env.random.fill = (bytes) => {
    if (bytes.length === 2 && first) setU16(bytes, 0, (id + 0xffff - 1) % 0xffff);
    else if (bytes.length > 16) bytes.set(iv);
    else random(bytes);
    if (bytes.length === 2) first = false;
  };
  const df =
    wire[0]! >> 4 === 4 && ipv4.dontFragment(wire, 0) ? ('set' as const) : ('clear' as const);
  const rig = new Rig({
    env,
    settings: { dfbit: df },
    sequences: { lease: () => ({ start: seq, extend: (needed) => needed, release: () => {} }) },
  });
  const living = rig.sad.add(spec, 'mature');
  if (spec.esp?.iv === 'unique') {
    living.ivMask[0] = u32(iv, 0) ^ Math.floor(seq / 2 ** 32);
    living.ivMask[1] = u32(iv, 4) ^ (seq % 2 ** 32);
  }
  const ends = { src: formatAddress(spec.src), dst: formatAddress(spec.dst) };
  const rule = request({
    protocol: one.proto,
    mode: one.mode,
    ...(one.mode === 'tunnel' ? ends : {}),
  });
  for (const everything of ['0.0.0.0/0', '::/0']) {
    rig.spd.add(policy('out', everything, everything, { requests: [rule] }));
  }
  const [sealed] = rig.output(plain);
  expect(rig.drops()).toEqual({});
  return sealed!;
}

/** The flow label of a tunnel header is the sender's own choice (RFC 6437). */
function withFlowLabel(of: Uint8Array, from: Uint8Array): Uint8Array {
  if (of[0]! >> 4 === 6) ipv6.setFlowLabel(of, 0, ipv6.flowLabel(from, 0));
  return of;
}

/**
 * Linux leaves whatever was in memory in AH's padding, and authenticates it: nobody else can build
 * the same packet.
 */
function hasStrayPadding(one: Case): boolean {
  if (one.proto === 'esp') return false;
  const wire = ipPacket(one);
  const cursor = new Cursor();
  decode(wire, 0, wire.length, cursor);
  const icvEnd = cursor.upperAt + 12 + specOf(one, wire).ah!.icvLen;
  return wire
    .subarray(icvEnd, cursor.upperAt + ah.len(wire, cursor.upperAt))
    .some((octet) => octet !== 0);
}

function load(file: string): Case[] {
  const text = readFileSync(new URL(`data/${file}`, import.meta.url), 'utf8');
  return (JSON.parse(text) as { frames: Case[] }).frames;
}

function ipPacket(one: Case): Uint8Array {
  const octets = fromHex(one.frame ?? one.packet!);
  const ip = one.frame === undefined ? octets : octets.slice(14);
  const len = ip[0]! >> 4 === 4 ? u16(ip, 2) : 40 + u16(ip, 4);
  return ip.slice(0, len);
}

function label(one: Case): string {
  const algorithm = one.proto === 'ah' ? one.auth : `${one.aead ?? one.enc}/${one.auth ?? ''}`;
  return `${one.id} ${one.proto} ${one.mode} ${algorithm}${one.encap ? ' udp' : ''}${one.esn ? ' esn' : ''}`;
}

for (const file of ['linux-6.1-esp-ah.json', 'scapy-2.5.0.json']) {
  const cases = load(file);
  const supported = cases.filter(isSupported);
  describe(file, () => {
    test('only algorithms that OpenSSL dropped are left out', () => {
      const left = new Set(cases.filter((one) => !isSupported(one)).map((one) => one.enc));
      const gone = ['blowfish-cbc', 'cast5-cbc', 'des-cbc', 'serpent-cbc', 'twofish-cbc'];
      for (const enc of left) expect(gone).toContain(enc);
      expect(supported.length).toBeGreaterThan(cases.length * 0.85);
    });

    test.each(supported.map((one) => [label(one), one] as const))('opens %s', (_, one) => {
      const { plain } = opened(one, ipPacket(one));
      expect(toHex(plain)).toContain(one.payload);
      if (one.plain !== undefined) expect(toHex(plain)).toBe(one.plain);
    });

    const rebuildable = supported.filter((one) => !hasStrayPadding(one));

    test('nearly all can be built again', () => {
      expect(rebuildable.length).toBeGreaterThan(supported.length * 0.88);
    });

    test.each(rebuildable.map((one) => [label(one), one] as const))('builds %s again', (_, one) => {
      const wire = ipPacket(one);
      const { plain } = opened(one, wire);
      expect(toHex(withFlowLabel(rebuilt(one, wire, plain), wire))).toBe(toHex(wire));
    });
  });
}
