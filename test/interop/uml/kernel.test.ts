import { createHash } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { address } from '../../../src/base/address.ts';
import { toHex } from '../../../src/wire/bytes.ts';
import { PROTO } from '../../../src/wire/protocol.ts';
import { type Case, innerAddress, outerAddress, saFrom } from '../case.ts';
import { describeWithPeer } from '../peer.ts';
import { makeCases } from './cases.ts';
import { STREAM_PORT } from './kernel-config.ts';
import { type KernelPeer, startKernelPeer } from './kernel-peer.ts';
import { missingUml } from './uml.ts';

/**
 * A live Linux kernel on the other end of the wire: it has an SA and a policy for each case, and so have we. Whatever arrives
 * was opened and admitted by the one, and made by the other.
 */

/** None, a few, as many as make the protected packet larger than the wire's 1500, and more than two packets' worth. */
const PING_LENS = [0, 1, 100, 1430, 3000];
const STREAM_LEN = 1_000_000;

describeWithPeer('the Linux kernel agrees', missingUml(), () => {
  const cases = makeCases();
  let peer: KernelPeer;

  beforeAll(async () => {
    peer = await startKernelPeer(cases);
  });
  afterAll(async () => {
    await peer?.stop();
  });

  for (const one of cases) {
    const us = address(innerAddress(one, 'us'));
    const kernel = address(innerAddress(one, 'peer'));

    test(`${one.name}: ping both ways`, async () => {
      for (const len of PING_LENS) await peer.stack.ping(us, kernel, len);
      for (const len of PING_LENS) {
        const question = {
          do: 'ping',
          from: innerAddress(one, 'peer'),
          to: innerAddress(one, 'us'),
          len,
        };
        expect(await peer.ask(question), `${len} octets`).toEqual({ ok: true });
      }
      expectProtected(peer, one);
    });

    if (!one.stream) continue;
    test(`${one.name}: a stream both ways`, async () => {
      const data = Uint8Array.from({ length: STREAM_LEN }, (_, i) => (i * 31 + (i >> 8)) ^ one.id);
      const back = await peer.stack.stream(us, kernel, STREAM_PORT, data);
      const sum = createHash('sha256').update(data).digest('hex');
      expect(toHex(back, 0, 32)).toBe(sum);
      expect(createHash('sha256').update(back.subarray(32)).digest('hex')).toBe(sum);
      expectProtected(peer, one);
    });
  }

  test('the kernel counted as many packets on each SA as we did', async () => {
    const { states } = await peer.ask({ do: 'states' });
    const ours = [...peer.host.sad.all()].map((sa) => [`${sa.spec.spi}`, sa.usage.packets]);
    expect(states).toEqual(Object.fromEntries(ours));
    for (const [spi, packets] of ours)
      expect(packets, `SPI ${spi}`).toBeGreaterThan(PING_LENS.length);
  });

  test('extended sequence numbers went past 32 bits, both ways', () => {
    for (const one of cases.filter((each) => each.esn)) {
      const find = (from: 'us' | 'peer') => {
        const { protocol, spi, dst } = saFrom(one, from);
        return peer.host.sad.get(protocol, spi, dst)!;
      };
      expect(find('us').sentSeq).toBeGreaterThan(2 ** 32);
      expect(find('peer').replay.top).toBeGreaterThan(2 ** 32);
    }
  });

  test('packets larger than the wire went in fragments, and came so', () => {
    expect(peer.host.stats.fragmentsMade).toBeGreaterThan(2 * cases.length);
    expect(peer.host.stats.reassembled).toBeGreaterThan(cases.length);
  });

  test('nobody dropped anything', async () => {
    const { counters } = await peer.ask({ do: 'counters' });
    const wrong = Object.entries(counters as Record<string, number>).filter(([, n]) => n !== 0);
    expect(Object.keys(counters as object)).toContain('XfrmInNoPols');
    expect(wrong).toEqual([]);
    expect(peer.host.stats.dropped('in')).toEqual([]);
    expect(peer.host.stats.dropped('out')).toEqual([]);
    expect(peer.stack.strays).toEqual([]);
  });

  test('the guest ends well', async () => {
    expect(await peer.quit()).toBe(0);
  });
});

/** Nothing of the case was on the wire but what its protocol makes. */
function expectProtected(peer: KernelPeer, one: Case): void {
  const plain = one.protocol === 'esp' ? PROTO.ESP : PROTO.AH;
  expect(peer.seen(outerAddress(one, 'us'))).toEqual([one.udp ? PROTO.UDP : plain]);
  if (one.mode === 'tunnel') expect(peer.seen(innerAddress(one, 'us'))).toEqual([]);
}
