import { expect, test } from 'vitest';
import { Network } from './network.ts';

/**
 * FreeBSD's tests/sys/netipsec/tunnel: hostA - ipsecA - router - ipsecB - hostB, with the same
 * setkey file but for the directions, and a ping. The files whose names begin with aesni_ have the
 * same algorithms by another driver; test/drivers/native compares ours.
 */

const KEY = (len: number) => `"${'1234567890'.repeat(4).slice(0, len)}"`;
const FILES = [
  ['aes_cbc_128_hmac_sha1', `-E rijndael-cbc ${KEY(16)} -A hmac-sha1 ${KEY(20)}`],
  ['aes_cbc_256_hmac_sha2_256', `-E rijndael-cbc ${KEY(32)} -A hmac-sha2-256 ${KEY(32)}`],
  ['aes_gcm_128', `-E aes-gcm-16 ${KEY(20)}`],
  ['aes_gcm_256', `-E aes-gcm-16 ${KEY(36)}`],
  ['chacha20_poly1305', `-E chacha20-poly1305 ${KEY(36)}`],
  // Ours wants no key where the algorithm has none, not even an empty one.
  ['empty', '-E null'],
] as const;

const NETS = {
  v4: {
    lan: ['192.0.2.0/24', '203.0.113.0/24'],
    host: ['192.0.2.1', '203.0.113.1'],
    inside: ['192.0.2.2', '203.0.113.2'],
    gateway: ['198.51.100.2', '198.51.100.6'],
    router: ['198.51.100.1', '198.51.100.5'],
  },
  v6: {
    lan: ['2001:db8:1::/64', '2001:db8:45::/64'],
    host: ['2001:db8:1::1', '2001:db8:45::1'],
    inside: ['2001:db8:1::2', '2001:db8:45::2'],
    gateway: ['2001:db8:23::2', '2001:db8:34::2'],
    router: ['2001:db8:23::3', '2001:db8:34::3'],
  },
} as const;

const ROWS = FILES.flatMap(([name, args]) =>
  (['v4', 'v6'] as const).map((family) => [`${name} ${family}`, args, family] as const),
);

test.each(ROWS)('%s', (_, args, family) => {
  const { lan, host, inside, gateway, router } = NETS[family];
  const network = new Network();
  // Encryption alone is against RFC 8221, and none at all is for tests.
  const options = { allowLegacy: true };
  const [hostA, hostB] = [network.node([host[0]]), network.node([host[1]])];
  const ipsecA = network.node([gateway[0], inside[0]], options);
  const ipsecB = network.node([gateway[1], inside[1]], options);
  const middle = network.node(router);
  network.wire(hostA, ipsecA);
  network.wire(ipsecB, hostB);
  const wires = [network.wire(ipsecA, middle), network.wire(middle, ipsecB)];
  for (const [node, out, into] of [
    [ipsecA, 'out', 'in'],
    [ipsecB, 'in', 'out'],
  ] as const) {
    node.configure(`
      flush; spdflush;
      spdadd ${lan[0]} ${lan[1]} any -P ${out} ipsec esp/tunnel/${gateway[0]}-${gateway[1]}/require;
      spdadd ${lan[1]} ${lan[0]} any -P ${into} ipsec esp/tunnel/${gateway[1]}-${gateway[0]}/require;
      add ${gateway[0]} ${gateway[1]} esp 0x1000 ${args};
      add ${gateway[1]} ${gateway[0]} esp 0x1001 ${args};`);
  }
  expect(hostA.ping(host[1])).toBe(true);
  const there = `esp ${gateway[0]} > ${gateway[1]}`;
  const back = `esp ${gateway[1]} > ${gateway[0]}`;
  for (const wire of wires) expect(wire.take()).toEqual([there, back]);
});
