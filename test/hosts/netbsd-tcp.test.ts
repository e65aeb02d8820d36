import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DaemonHost } from './daemon-host.ts';
import { announceSkip, type Lab, whyNoHosts } from './namespaces.ts';
import { A, B, makePair } from './pair.ts';
import { tcp } from './programs.ts';

const skipped = announceSkip('netbsd-tcp.test.ts', whyNoHosts());

/**
 * NetBSD's tests/net/ipsec/t_ipsec_tcp.sh with real connections: 512 lines by ESP, by AH and by
 * neither; over IPv4, over IPv6, and over IPv4 by sockets of IPv6.
 */
const FILE_LEN = 512 * '0123456789\n'.length;
const ALGORITHMS = {
  esp: '-E rijndael-cbc "0123456789012345"',
  ah: '-A hmac-sha1 "01234567890123456789"',
} as const;
const FAMILIES = {
  ipv4: { ends: [A.v4, B.v4], to: B.v4 },
  ipv6: { ends: [A.v6, B.v6], to: B.v6 },
  // The server is a socket of IPv6 in all of them; here the client is one as well.
  ipv4mappedipv6: { ends: [A.v4, B.v4], to: `::ffff:${B.v4}` },
} as const;

const ROWS = (['esp', 'ah', 'none'] as const).flatMap((proto) =>
  (['ipv4', 'ipv6', 'ipv4mappedipv6'] as const).map((family) => {
    const alg = { esp: '_rijndaelcbc', ah: '_hmacsha1', none: '' }[proto];
    return [`ipsec_tcp_${family}_${proto}${alg}`, proto, family] as const;
  }),
);

describe.skipIf(skipped)('t_ipsec_tcp', () => {
  let lab: Lab;
  let spaces: readonly [string, string];
  let hosts: readonly [DaemonHost, DaemonHost];

  beforeAll(async () => {
    const pair = makePair();
    lab = pair.lab;
    spaces = [pair.a, pair.b];
    hosts = await Promise.all([
      DaemonHost.start(lab, pair.a, 'spdflush;'),
      DaemonHost.start(lab, pair.b, 'spdflush;'),
    ]);
  });
  afterAll(() => lab?.close());

  /** SAs of both directions, and a policy for what goes out only. */
  function config(proto: 'esp' | 'ah', ends: readonly [string, string], host: 0 | 1): string {
    const [local, peer] = ends;
    const [from, to] = host === 0 ? [local, peer] : [peer, local];
    return `
      add ${local} ${peer} ${proto} 10000 ${ALGORITHMS[proto]};
      add ${peer} ${local} ${proto} 10001 ${ALGORITHMS[proto]};
      spdadd ${from} ${to} any -P out ipsec ${proto}/transport//require;`;
  }

  test.each(ROWS)('%s', async (_, proto, family) => {
    const { ends, to } = FAMILIES[family];
    for (const [i, host] of hosts.entries()) {
      host.setkey('flush; spdflush;');
      if (proto !== 'none') host.setkey(config(proto, ends, i as 0 | 1));
    }
    const capture = await lab.capture(spaces[0], 'w0');
    const moved = await tcp(lab, spaces[0], spaces[1], to, FILE_LEN);
    expect(moved).toMatchObject({ octets: FILE_LEN, received: moved.sent });
    const { packets, clear } = await capture.stop();
    const flows = [...new Set(packets.map(({ kind, src, dst }) => `${kind} ${src} ${dst}`))].sort();
    const both = [`${proto} ${ends[0]} ${ends[1]}`, `${proto} ${ends[1]} ${ends[0]}`];
    expect(flows).toEqual(proto === 'none' ? [] : both);
    // Protocol 6 is TCP in the clear.
    const plain = clear.filter((what) => what.endsWith(' 6'));
    if (proto === 'none') expect(plain.length).toBeGreaterThan(6);
    else expect(plain).toEqual([]);
    for (const host of hosts) expect((await host.status()).drops).toEqual([]);
  });
});
