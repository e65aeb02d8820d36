import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { address } from '../../src/base/address.ts';
import { encode } from '../../src/wire/pfkey.ts';
import type { AddressExtension, Message } from '../../src/wire/pfkey-message.ts';
import { DaemonHost } from './daemon-host.ts';
import { announceSkip, whyNoHosts } from './namespaces.ts';
import { A, B, config, makePair, type Pair } from './pair.ts';

/**
 * A key exchange deletes an SA when its peer has said that it sends no more by it. On a kernel all
 * that has come before is opened by then; here it may still wait in a socket.
 */

const skipped = announceSkip('delete-order.test.ts', whyNoHosts());
/** More than the host reads in one turn. */
const COUNT = 300;

describe.skipIf(skipped)('packets that came before a request', () => {
  let pair: Pair;
  let [a, b]: DaemonHost[] = [];

  beforeEach(async () => {
    pair = makePair();
    [a, b] = await Promise.all([
      DaemonHost.start(pair.lab, pair.a, config('a')),
      DaemonHost.start(pair.lab, pair.b, config('b')),
    ]);
  });
  afterEach(() => pair.lab.close());

  function end(type: 'ADDRESS_SRC' | 'ADDRESS_DST', of: string): AddressExtension {
    return { type, proto: 0, prefixLen: 32, address: address(of), port: 0, scopeId: 0 };
  }

  test.each([
    ['DELETE', 'esp', [0x1001, end('ADDRESS_SRC', A.v4), end('ADDRESS_DST', B.v4)]],
    ['FLUSH', 'unspec', []],
  ] as const)('are opened by the SAs that it takes away: %s', async (type, satype, parts) => {
    const [spi, ...ends] = parts;
    const sa = { type: 'SA', replay: 0, state: 0, auth: 0, encrypt: 0, flags: 0 } as const;
    const extensions = spi === undefined ? [] : [{ ...sa, spi }, ...ends];
    const request: Message = { type, satype, errno: 0, seq: 1, pid: 1, reserved: 0, extensions };
    const client = connect(b!.socket);
    await once(client, 'connect');
    const before = await b!.count('delivered');
    process.kill(b!.pid, 'SIGSTOP');
    const send = `for i in {1..${COUNT}}; do echo x > /dev/udp/${B.v4}/5005; done`;
    const sent = await a!.count('sent protected');
    pair.lab.sh(pair.a, send);
    while ((await a!.count('sent protected')) < sent + COUNT);
    client.write(encode(request, 'linux'));
    process.kill(b!.pid, 'SIGCONT');
    const [answer] = (await once(client, 'data')) as [Uint8Array];
    expect(answer[2]).toBe(0);
    client.destroy();
    const { drops, packets, sas } = await b!.status();
    expect(drops.filter(({ side }) => side === 'in')).toEqual([]);
    expect(packets.delivered).toBe(before + COUNT);
    expect(sas.mature).toBe(type === 'FLUSH' ? 0 : 3);
  });
});
