import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { authenticationByName, encryptionByName } from '../../src/crypto/algorithms.ts';
import { nodeCrypto } from '../../src/crypto/node-provider.ts';
import { Spd } from '../../src/spd/spd.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import { extension } from '../../src/wire/pfkey-message.ts';
import { policy as policyOf } from '../engine/rig.ts';
import { A, B, dst, key, lifetime, policy, rig, sa, src } from '../key/rig.ts';
import { counting } from '../wire/octets.ts';
import { Network } from './network.ts';
import { datagramOf } from './octets.ts';

/**
 * Linux's tools/testing/selftests/net/ipsec.c: a tunnel with every combination of algorithms
 * between two hosts, over which datagrams of a page go and come back; and messages to who listens.
 * What is asked there by netlink is asked here by PF_KEY. IPComp is left out.
 */

/** Linux's names, ours (none for what setkey cannot name), and the length of keys in bits. */
const AUTH = [
  ['digest_null', 'null', 0],
  ['hmac(md5)', 'hmac-md5', 128],
  ['hmac(sha1)', 'hmac-sha1', 160],
  ['hmac(sha256)', 'hmac-sha256', 256],
  ['hmac(sha384)', 'hmac-sha384', 384],
  ['hmac(sha512)', 'hmac-sha512', 512],
  ['xcbc(aes)', 'aes-xcbc-mac', 128],
  ['cmac(aes)', 'aes-cmac', 128],
] as const;
const CIPHERS = [
  ['ecb(cipher_null)', 'null', 0],
  ['cbc(des)', 'des-cbc', 64],
  ['cbc(des3_ede)', '3des-cbc', 192],
  ['cbc(cast5)', 'cast128-cbc', 128],
  ['cbc(blowfish)', 'blowfish-cbc', 448],
  ['cbc(aes)', 'aes-cbc', 256],
  ['cbc(serpent)', undefined, 128],
  ['cbc(camellia)', 'camellia-cbc', 256],
  ['cbc(twofish)', 'twofish-cbc', 256],
  ['rfc3686(ctr(aes))', 'aes-ctr', 288],
] as const;
/** Listed there as not implemented; here they are. */
const AEADS = [
  ['rfc4106(gcm(aes))-128', 'aes-gcm-16', 160],
  ['rfc4106(gcm(aes))-192', 'aes-gcm-16', 224],
  ['rfc4106(gcm(aes))-256', 'aes-gcm-16', 288],
  ['rfc4543(gcm(aes))-128', 'aes-gmac', 160],
  ['rfc4543(gcm(aes))-256', 'aes-gmac', 288],
  ['rfc4309(ccm(aes))-128', 'aes-ccm-16', 152],
  ['rfc4309(ccm(aes))-256', 'aes-ccm-16', 280],
  ['rfc7539esp(chacha20,poly1305)', 'chacha20-poly1305', 288],
] as const;

const OUTER = ['192.168.0.1', '192.168.0.2'] as const;
const INNER = ['10.0.0.1', '10.0.0.2'] as const;
const PAGE = 4096;

function keyText(bits: number): string {
  const octets = Array.from({ length: bits / 8 }, (_, i) => ((37 * i + 11) & 255) | 256);
  return bits === 0 ? '' : `0x${octets.map((octet) => octet.toString(16).slice(1)).join('')}`;
}

function pair() {
  const network = new Network();
  const options = { allowLegacy: true };
  const [a, b] = [
    network.node([INNER[0], OUTER[0]], options),
    network.node([INNER[1], OUTER[1]], options),
  ];
  return { a, b, wire: network.wire(a, b) };
}

/** SAs and policies of one of the two, as xfrm_set() and xfrm_prepare() there. */
function config(host: 0 | 1, protocol: 'esp' | 'ah', args: string): string {
  const [out, into] = host === 0 ? ['out', 'in'] : ['in', 'out'];
  const rule = (from: string, to: string) => `ipsec ${protocol}/tunnel/${from}-${to}/require`;
  return `
    add ${OUTER[0]} ${OUTER[1]} ${protocol} 0x1001 -m tunnel -r 32 ${args};
    add ${OUTER[1]} ${OUTER[0]} ${protocol} 0x1002 -m tunnel -r 32 ${args};
    spdadd ${INNER[0]} ${INNER[1]} any -P ${out} ${rule(OUTER[0], OUTER[1])};
    spdadd ${INNER[1]} ${INNER[0]} any -P ${into} ${rule(OUTER[1], OUTER[0])};`;
}

function pingByUdp({ a, b, wire }: ReturnType<typeof pair>, size: number, times: number): string[] {
  const data = counting(size);
  const server = b.inet.openUdp(0, (got, from, port) => server.send(got, from, port));
  let answers = 0;
  const client = a.inet.openUdp(0, (got) => {
    expect(got).toEqual(data);
    answers++;
  });
  for (let i = 0; i < times; i++) client.send(data, address(INNER[1]), server.port);
  expect(answers).toBe(times);
  for (const socket of [client, server]) socket.close();
  return [...new Set(wire.take().map((flow) => flow.split(' ')[0]!))];
}

function createTunnel(protocol: 'esp' | 'ah', args: string): void {
  const hosts = pair();
  expect(pingByUdp(hosts, 1000, 1)).toEqual(['udp']);
  for (const [i, node] of [hosts.a, hosts.b].entries()) {
    node.configure(config(i as 0 | 1, protocol, args));
  }
  expect(pingByUdp(hosts, PAGE, 3)).toEqual([protocol]);
  for (const { host } of [hosts.a, hosts.b]) {
    expect([host.stats.dropped('in'), host.stats.dropped('out')]).toEqual([[], []]);
  }
  for (const node of [hosts.a, hosts.b]) {
    for (const [from, to, spi] of [
      [OUTER[0], OUTER[1], '0x1001'],
      [OUTER[1], OUTER[0], '0x1002'],
    ]) {
      node.configure(`delete ${from} ${to} ${protocol} ${spi};`);
    }
    expect([node.dumpSas().length, node.dumpPolicies().length]).toEqual([0, 2]);
    node.configure('spdflush;');
  }
  expect(pingByUdp(hosts, 1000, 1)).toEqual(['udp']);
}

const isHere = (name: string | undefined): name is string =>
  name !== undefined && nodeCrypto.supports(encryptionByName(name)!);

const COMBINATIONS = AUTH.flatMap(([auth, authName, authBits]) =>
  CIPHERS.filter(([, name]) => isHere(name)).map(([cipher, name, bits]) => {
    const args = `-E ${name} ${keyText(bits)} -A ${authName} ${keyText(authBits)}`;
    return [`create tunnel: [50, '${auth}', '${cipher}']`, args] as const;
  }),
);

describe('create tunnel', () => {
  test.each(
    AUTH.filter(([, name]) => name !== 'null').map(([auth, name, bits]) => {
      return [`create tunnel: [51, '${auth}']`, `-A ${name} ${keyText(bits)}`] as const;
    }),
  )('%s', (_, args) => createTunnel('ah', args));

  test.each(COMBINATIONS)('%s', (_, args) => createTunnel('esp', args));

  test.each(
    AEADS.map(([aead, name, bits]) => {
      return [`create tunnel: [50, '${aead}']`, `-E ${name} ${keyText(bits)}`] as const;
    }),
  )('%s', (_, args) => createTunnel('esp', args));

  test('what the library has not got is refused, and the tunnel stays closed', () => {
    const absent = CIPHERS.filter(([, name]) => name !== undefined && !isHere(name));
    for (const [, name, bits] of absent) {
      const { a, wire } = pair();
      const script = config(0, 'esp', `-E ${name} ${keyText(bits)}`);
      expect(a.setkey(script)).toEqual(['EOPNOTSUPP', 'EOPNOTSUPP']);
      a.send(datagramOf(INNER[0], INNER[1], 100));
      expect(wire.take()).toEqual([]);
    }
  });

  test("create tunnel: [51, 'digest_null']: refused, since AH without an ICV is none", () => {
    expect(pair().a.setkey(config(0, 'ah', '-A null'))).toEqual(['EINVAL', 'EINVAL']);
    expect(authenticationByName('null')).toBeDefined();
  });
});

const ENDS = [src(A), dst(B)] as const;

test('alloc spi: the very last one, when only that is asked for', () => {
  const client = rig().connect();
  const range = { type: 'SPIRANGE', min: 0xffff_ffff, max: 0xffff_ffff } as const;
  expect(extension(client.one('GETSPI', 'ah', ...ENDS, range), 'SA')!.spi).toBe(0xffff_ffff);
  expect(client.errno('GETSPI', 'ah', ...ENDS, range)).not.toBe(0);
});

test('monitor acquire: what one program asks for the others hear, in its own words', () => {
  const host = rig();
  const [asking, listening] = [host.connect(), host.connect()];
  for (const client of [asking, listening]) expect(client.errno('REGISTER', 'esp')).toBe(0);
  asking.heard();
  listening.heard();
  const limits = { allocations: 0xba, bytes: 0xad, addTime: 0xba, useTime: 0xbe };
  const bits = { authBits: { min: 0xfe, max: 0xed }, encryptBits: { min: 0xba, max: 0xad } };
  const comb = { auth: 5, encrypt: 12, flags: 0, ...bits, soft: limits, hard: limits };
  const proposal = { type: 'PROPOSAL', replay: 32, combs: [comb] } as const;
  expect(asking.errno('ACQUIRE', 'esp', ...ENDS, proposal)).toBe(0);
  const [heard, ...more] = listening.heard();
  expect([more, heard!.type, extension(heard!, 'PROPOSAL')]).toEqual([[], 'ACQUIRE', proposal]);
});

test('expire state: who listens is told that it was the hard limit', () => {
  const host = rig();
  const client = host.connect();
  expect(client.errno('REGISTER', 'esp')).toBe(0);
  const limit = lifetime('LIFETIME_HARD', { addTime: 1 });
  expect(client.errno('ADD', 'esp', sa(0x1001), ...ENDS, key(), limit)).toBe(0);
  client.heard();
  host.advance(1000);
  const [heard] = client.heard();
  expect([heard!.type, extension(heard!, 'SA')!.spi]).toEqual(['EXPIRE', 0x1001]);
  expect(extension(heard!, 'LIFETIME_HARD')).toMatchObject({ addTime: 1 });
  expect(extension(heard!, 'LIFETIME_SOFT')).toBeUndefined();
  expect(host.sad.size).toBe(0);
});

test('expire policy: who listens is told which policy it was', () => {
  const host = rig();
  const client = host.connect();
  expect(client.errno('REGISTER', 'esp')).toBe(0);
  const limit = lifetime('LIFETIME_HARD', { addTime: 1 });
  const added = client.one('X_SPDADD', 'unspec', ...ENDS, limit, policy(2));
  client.heard();
  host.advance(1000);
  const [heard] = client.heard();
  expect(heard!.type).toBe('X_SPDEXPIRE');
  expect(extension(heard!, 'X_POLICY')!.id).toBe(extension(added, 'X_POLICY')!.id);
  expect(host.spd.size).toBe(0);
});

test('spdinfo attributes: on either side of the thresholds there, the same policy is found', () => {
  const clock = { monotonicMs: () => 0, wallMs: () => 0 };
  const spd = new Spd({ clock, expired: () => {} });
  // There /32 and /31, /120 and /16 decide whether a policy is looked up by hash or in a tree.
  for (const [from, to] of [
    ['10.0.0.1/32', '10.0.0.2/31'],
    ['10.0.0.1/32', '10.0.0.2/32'],
    ['10.0.0.0/31', '10.0.0.2/31'],
    ['2001:db8::100/120', '2001:db8::/16'],
    ['2001:db8::100/121', '2001:db8::/17'],
    ['2001:db8::100/119', '2001::/15'],
  ] as const) {
    const one = spd.add(policyOf('out', from, to, { type: 'none' }));
    const family = from.includes(':') ? ['2001:db8::101', '2001:db8::2'] : ['10.0.0.1', '10.0.0.2'];
    const octets = datagramOf(family[0]!, family[1]!, 100);
    const cursor = new Cursor();
    decode(octets, 0, octets.length, cursor);
    expect(spd.lookup('out', octets, cursor)).toBe(one);
    spd.flush();
  }
});
