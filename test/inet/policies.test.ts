import { describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { KeyError } from '../../src/base/error.ts';
import { SocketPolicies } from '../../src/engine/socket-policies.ts';
import { Inet } from '../../src/inet/inet.ts';
import type { PolicyOptionName } from '../../src/inet/policy-options.ts';
import { PolicyOptions } from '../../src/inet/policy-options.ts';
import type { UdpSocket } from '../../src/inet/udp.ts';
import { parsePolicy } from '../../src/spd/set-policy.ts';
import { toHex } from '../../src/wire/bytes.ts';
import { encodeExtension } from '../../src/wire/pfkey-encode.ts';
import { Bus, type Node } from '../peers/node.ts';
import { concat, hex } from '../wire/octets.ts';

const NAMES = { 4: 'IP_IPSEC_POLICY', 6: 'IPV6_IPSEC_POLICY' } as const;

function node(): Node {
  return new Bus().add('10.0.0.1', 'fd00::1');
}

/** The errno of a setsockopt; `none` if it was taken. */
function set(socket: UdpSocket, name: PolicyOptionName, value: string | Uint8Array): string {
  try {
    socket.setsockopt(name, value);
    return 'none';
  } catch (error) {
    if (error instanceof KeyError) return error.errno;
    throw error;
  }
}

/**
 * KAME's libipsec/test-policy.c, test1: every string through setsockopt and getsockopt of a
 * datagram socket of either family. Its `out ipsec` row is older than its grammar.
 */
const KAME: readonly (readonly [string, 'taken' | 'refused'])[] = [
  ['must_error', 'refused'],
  ['in ipsec must_error', 'refused'],
  ['out ipsec esp/must_error', 'refused'],
  ['out discard', 'refused'],
  ['out none', 'refused'],
  ['in entrust', 'taken'],
  ['out entrust', 'taken'],
  ['out ipsec esp', 'refused'],
  ['in ipsec ah/transport', 'taken'],
  ['in ipsec ah/tunnel', 'refused'],
  ['out ipsec ah/transport/', 'taken'],
  ['out ipsec ah/tunnel/', 'refused'],
  ['in ipsec esp / transport / 10.0.0.1-10.0.0.2', 'taken'],
  ['in ipsec esp/tunnel/::1-::2', 'taken'],
  ['in ipsec esp/tunnel/10.0.0.1-::2', 'refused'],
  ['in ipsec esp/tunnel/::1-::2/require', 'taken'],
  ['out ipsec ah/transport//use', 'taken'],
  ['out ipsec ah/transport esp/use', 'refused'],
  ['in ipsec ah/transport esp/tunnel', 'refused'],
  ['in ipsec ah/transport esp/tunnel/::1-::1', 'taken'],
  ['in\nipsec\nesp/transport//use\nah/transport//use', 'taken'],
  [`in ipsec ${'esp/transport//use '.repeat(9)}`, 'taken'],
  ['out ipsec esp/transport/fec0::10-fec0::11/use', 'taken'],
];

describe.each([4, 6] as const)('test-policy.c, IPv%i', (family) => {
  test.each(KAME)('%j is %s', (text, expected) => {
    const socket = node().inet.openUdp(0, () => {});
    const name = NAMES[family];
    expect(set(socket, name, text)).toBe(expected === 'taken' ? 'none' : 'EINVAL');
    if (expected === 'refused') return;
    const direction = text.startsWith('in') ? 'in' : 'out';
    const bytes = encodeExtension(parsePolicy(text), 'linux');
    expect(toHex(socket.getsockopt(name, bytes))).toBe(toHex(bytes));
    expect(socket.getsockopt(name, direction)).toEqual(bytes);
    // ipsec_dump_policy prints what means the same.
    const other = node().inet.openUdp(0, () => {});
    expect(set(other, name, socket.policyText(name, direction))).toBe('none');
    expect(other.getsockopt(name, direction)).toEqual(bytes);
  });
});

describe.each([4, 6] as const)('t_ipsec_policy of NetBSD, an IPv%i socket', (family) => {
  const INET = `0200 0000 0a000001 ${'00'.repeat(8)}`;
  const INET6 = `0a00 0000 00000000 ${'fd'.padEnd(30, '0')}01 00000000`;
  const FAMILIES: Readonly<Record<string, string>> = {
    unspec: `0000${'00'.repeat(14)}`,
    unix: `0100${'00'.repeat(14)}`,
    inet: INET,
    inet6: INET6,
    packet: `1100${'00'.repeat(18)}`,
    unknown: `fe00${'00'.repeat(14)}`,
  };

  /** A policy of `count` tunnels between these ends. */
  function policy(src: string, dst: string, count: number): Uint8Array {
    const ends = concat(hex(src), hex(dst));
    const request = concat(hex('0000 3200 02 02 0000 00000000 00000000'), ends);
    request[0] = request.length;
    const requests = concat(...Array.from({ length: count }, () => request));
    const padded = concat(requests, new Uint8Array(-requests.length & 7));
    const head = hex('0000 1200 0200 02 00 00000000 00000000');
    head[0] = 2 + padded.length / 8;
    return concat(head, padded);
  }

  const combinations = Object.keys(FAMILIES).flatMap((src) =>
    Object.keys(FAMILIES).map((dst) => [src, dst] as const),
  );
  test.each(combinations)('tunnel from %s to %s', (src, dst) => {
    const socket = node().inet.openUdp(0, () => {});
    const works = src === dst && src.startsWith('inet');
    for (const count of [1, 2]) {
      const bytes = policy(FAMILIES[src]!, FAMILIES[dst]!, count);
      expect(set(socket, NAMES[family], bytes)).toBe(works ? 'none' : 'EINVAL');
      if (!works) continue;
      // No octet more, none less (PR 60669).
      expect(toHex(socket.getsockopt(NAMES[family], 'out'))).toBe(toHex(bytes));
    }
  });
});

describe('who may', () => {
  test('bypass needs privilege, which a socket has from when it was opened', () => {
    const { inet, host } = node();
    const socket = inet.openUdp(0, () => {});
    expect(set(socket, 'IP_IPSEC_POLICY', 'out bypass')).toBe('EACCES');
    expect(host.sockets.size).toBe(0);
    expect(set(socket, 'IP_IPSEC_POLICY', 'out ipsec esp/transport//require')).toBe('none');
    expect(set(socket, 'IP_IPSEC_POLICY', 'out bypass')).toBe('EACCES');
    expect(socket.policyText('IP_IPSEC_POLICY', 'out')).toContain('ipsec');
    const root = inet.openUdp(0, () => {}, { privileged: true });
    expect(set(root, 'IP_IPSEC_POLICY', 'out bypass')).toBe('none');
  });

  test('the option of a family that the socket does not have is not there', () => {
    const { inet } = node();
    const socket = inet.openUdp(0, () => {}, { local: address('10.0.0.1') });
    expect(set(socket, 'IPV6_IPSEC_POLICY', 'out entrust')).toBe('EOPNOTSUPP');
    expect(() => socket.getsockopt('IPV6_IPSEC_POLICY', 'in')).toThrow(/no IPv6 packets/);
    expect(set(socket, 'IP_IPSEC_POLICY', 'out entrust')).toBe('none');
  });

  test('what was never set is entrust', () => {
    const socket = node().inet.openUdp(0, () => {});
    expect(socket.policyText('IP_IPSEC_POLICY', 'in')).toBe('in entrust');
    expect(
      socket.getsockopt('IPV6_IPSEC_POLICY', hex('0200 1200 0000 02 00 00000000 00000000')),
    ).toEqual(hex('0200 1200 0300 02 00 00000000 00000000'));
  });

  test('unique requests get reqids as those of spdadd do, from the same numbers', () => {
    const { inet, setkey, dumpPolicies } = bound(node());
    const socket = inet.openUdp(0, () => {});
    socket.setsockopt('IP_IPSEC_POLICY', 'out ipsec esp/transport//unique');
    setkey('spdadd 10.0.0.1 10.0.0.9 any -P out ipsec esp/transport//unique;');
    socket.setsockopt('IP_IPSEC_POLICY', 'in ipsec esp/transport//unique');
    expect(socket.policyText('IP_IPSEC_POLICY', 'out')).toContain('unique#16384');
    expect(dumpPolicies().join()).toContain('unique#16385');
    expect(socket.policyText('IP_IPSEC_POLICY', 'in')).toContain('unique#16386');
  });

  function bound(one: Node) {
    return {
      inet: one.inet,
      setkey: (script: string) => expect(one.setkey(script)).toEqual([]),
      dumpPolicies: () => one.dumpPolicies(),
    };
  }
});

test('a table that has room for one family only takes neither', () => {
  const host = {
    sockets: new SocketPolicies({ max: 3 }),
    outputOf: () => {},
    protectionOf: () => {
      throw new Error('nobody asks');
    },
  };
  const inet = new Inet({ addresses: [address('10.0.0.1')], send: () => {} });
  inet.join({ host, reqid: () => 1, dialect: 'linux' });
  inet.openRaw(89, () => {});
  expect(host.sockets.size).toBe(2);
  expect(() => inet.openRaw(89, () => {})).toThrow(/there is room for 3 sockets/);
  expect(host.sockets.size).toBe(2);
});

/** xnu's tests: "listener policy copied to accepted socket"; for the TCP of this host. */
test('an accepted socket has the policies of the listener', () => {
  const { host } = node();
  const service = { host, reqid: () => 1, dialect: 'linux' } as const;
  const at = (remotePort: number) => (family: 4 | 6) => ({
    ...{ family, protocol: 6, localPort: 80, remotePort },
    ...(remotePort ? { remote: address(family === 4 ? '10.0.0.2' : 'fd00::2') } : {}),
  });
  const listener = new PolicyOptions(() => service, at(0), true);
  listener.set('IP_IPSEC_POLICY', 'in ipsec esp/transport//require');
  listener.set('IPV6_IPSEC_POLICY', 'out bypass');
  const accepted = listener.inherit((family) => (family === 4 ? at(7)(4) : undefined));
  expect(accepted.text('IP_IPSEC_POLICY', 'in')).toContain('esp/transport//require');
  expect(accepted.entry(6)).toBeUndefined();
  expect(host.sockets.size).toBe(3);
  listener.close();
  expect(accepted.text('IP_IPSEC_POLICY', 'in')).toContain('esp/transport//require');
  accepted.close();
  expect(host.sockets.size).toBe(0);
});
