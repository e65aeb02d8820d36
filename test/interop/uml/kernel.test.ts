import { createHash } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { address } from '../../../src/base/address.ts';
import { setU32, toHex, u32 } from '../../../src/wire/bytes.ts';
import * as checksum from '../../../src/wire/checksum.ts';
import { Cursor, decode } from '../../../src/wire/cursor.ts';
import { packetFrom } from '../../../src/wire/packet.ts';
import { PROTO } from '../../../src/wire/protocol.ts';
import { type Case, innerAddress, outerAddress, saFrom } from '../case.ts';
import { describeWithPeer } from '../peer.ts';
import { makeCases } from './cases.ts';
import { STREAM_PORT } from './kernel-config.ts';
import { type KernelPeer, type Newest, startKernelPeer } from './kernel-peer.ts';
import { missingUml } from './uml.ts';

/**
 * A live Linux kernel on the other end of the wire: it has an SA and a policy for each case, and so
 * have we. Whatever arrives was opened and admitted by the one, and made by the other.
 */

/**
 * None, a few, as many as make the protected packet larger than the wire's 1500, and more than two
 * packets' worth.
 */
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

  for (const one of cases) testCase(one, () => peer);

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
    expect(await refusals(peer)).toEqual({});
    expect(peer.host.stats.dropped('in')).toEqual([]);
    expect(peer.host.stats.dropped('out')).toEqual([]);
    expect(peer.stack.strays).toEqual([]);
  });

  test('both refuse what they have seen before', async () => {
    for (const { sent, received } of newestOf(peer, cases)) {
      peer.inject(sent);
      peer.host.input([packetFrom(received)], 1);
    }
    expect(await refusals(peer)).toEqual({ XfrmInStateSeqError: cases.length });
    const { espSas, ahSas } = outermostSas(cases);
    expect(peer.host.stats.dropped('in')).toEqual([
      ['esp-replay', espSas],
      ['ah-replay', ahSas],
    ]);
  });

  test('both refuse what was altered on the way', async () => {
    for (const { sent, received } of newestOf(peer, cases)) {
      peer.inject(later(sent));
      peer.host.input([packetFrom(later(received))], 1);
    }
    const before = { XfrmInStateSeqError: cases.length };
    expect(await refusals(peer)).toEqual({ ...before, XfrmInStateProtoError: cases.length });
    const { espSas, ahSas } = outermostSas(cases);
    expect(peer.host.stats.drops.in['esp-bad-icv']).toBe(espSas);
    expect(peer.host.stats.drops.in['ah-bad-icv']).toBe(ahSas);
    expect(peer.stack.strays).toEqual([]);
  });

  test('the guest ends well', async () => {
    expect(await peer.quit()).toBe(0);
  });
});

/** The tests of one case; the peer is there when they run. */
function testCase(one: Case, peer: () => KernelPeer): void {
  const us = address(innerAddress(one, 'us'));
  const kernel = address(innerAddress(one, 'peer'));

  test(`${one.name}: ping both ways`, async () => {
    for (const len of PING_LENS) await peer().stack.ping(us, kernel, len);
    for (const len of PING_LENS) {
      const question = {
        do: 'ping',
        from: innerAddress(one, 'peer'),
        to: innerAddress(one, 'us'),
        len,
      };
      expect(await peer().ask(question), `${len} octets`).toEqual({ ok: true });
    }
    expectProtected(peer(), one);
  });

  if (!one.stream) return;
  test(`${one.name}: a stream both ways`, async () => {
    const data = Uint8Array.from({ length: STREAM_LEN }, (_, i) => (i * 31 + (i >> 8)) ^ one.id);
    const back = await peer().stack.stream(us, kernel, STREAM_PORT, data);
    const sum = createHash('sha256').update(data).digest('hex');
    expect(toHex(back, 0, 32)).toBe(sum);
    expect(createHash('sha256').update(back.subarray(32)).digest('hex')).toBe(sum);
    expectProtected(peer(), one);
  });
}

/** The kernel's counters of what went wrong, without those that are 0. */
async function refusals(peer: KernelPeer): Promise<Record<string, number>> {
  const { counters } = (await peer.ask({ do: 'counters' })) as { counters: Record<string, number> };
  expect(Object.keys(counters)).toContain('XfrmInNoPols');
  return Object.fromEntries(Object.entries(counters).filter(([, count]) => count !== 0));
}

function newestOf(peer: KernelPeer, cases: readonly Case[]): readonly Newest[] {
  return cases.map((one) => peer.newest(outerAddress(one, 'us')));
}

function isAhOutside(one: Case): boolean {
  return one.protocol === 'ah' || one.ahAround !== undefined;
}

function outermostSas(cases: readonly Case[]): { espSas: number; ahSas: number } {
  const ahSas = cases.filter(isAhOutside).length;
  return { espSas: cases.length - ahSas, ahSas };
}

/** The packet with a sequence number that is still to come: only the ICV can tell. */
function later(packet: Uint8Array): Uint8Array {
  const altered = packet.slice();
  const cursor = new Cursor();
  expect(decode(altered, 0, altered.length, cursor)).toBeUndefined();
  const seqAt = { [PROTO.ESP]: 4, [PROTO.AH]: 8, [PROTO.UDP]: 8 + 4 }[cursor.protocol]!;
  const at = cursor.upperAt + seqAt;
  setU32(altered, at, u32(altered, at) + 20);
  if (cursor.family === 6) checksum.updateTransportChecksum(altered, cursor);
  return altered;
}

/** Nothing of the case was on the wire but what its protocol makes. */
function expectProtected(peer: KernelPeer, one: Case): void {
  const outermost = isAhOutside(one) ? PROTO.AH : one.udp ? PROTO.UDP : PROTO.ESP;
  expect(peer.seen(outerAddress(one, 'us'))).toEqual([outermost]);
  if (one.mode === 'tunnel') expect(peer.seen(innerAddress(one, 'us'))).toEqual([]);
}
