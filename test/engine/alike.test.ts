import { describe, expect, test } from 'vitest';
import { setU16, u8 } from '../../src/wire/bytes.ts';
import * as esp from '../../src/wire/esp.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import { counting, ipv4Packet, ipv6Packet, udp } from '../wire/octets.ts';
import { A, B, type LayerGiven, Pair } from './pair.ts';
import { policy, type Rig, request, sa } from './rig.ts';

/**
 * Packets of a batch that could be taken for more of the same, and are not: whatever octet it is
 * in which one differs, it goes as it goes alone.
 */

const NATT = { srcPort: 4500, dstPort: 4500 };

function datagram(family: 4 | 6, len = 60): Uint8Array {
  const upper = udp(counting(len));
  setU16(upper, 0, 1234);
  setU16(upper, 2, 80);
  return family === 4 ? ipv4Packet({ protocol: PROTO.UDP, id: 7 }, upper) : ipv6Packet(17, upper);
}

function seen({ host, sad }: Rig): unknown {
  const sas = [...sad.all()].map(({ usage, sentSeq, replay, replays, badIcvs }) => {
    const { packets, bytes } = usage;
    return { packets, bytes, sentSeq, top: replay.top, replays, badIcvs };
  });
  return { families: structuredClone(host.stats.families), sas };
}

/** A policy for exactly that datagram; everything else goes in the clear. */
function exactly(family: 4 | 6): { protocol: number; sport: number; dport: number } & {
  src: string;
  dst: string;
} {
  const p = datagram(family);
  expect(u8(p, 0) >>> 4).toBe(family);
  const len = family === 4 ? 32 : 128;
  return {
    ...{ src: `${A[family]}/${len}`, dst: `${B[family]}/${len}` },
    ...{ protocol: PROTO.UDP, sport: 1234, dport: 80 },
  };
}

describe.each([4, 6] as const)('of IPv%i, one of three differs in an octet', (family) => {
  const headersLen = family === 4 ? 28 : 48;
  const octets = Array.from({ length: headersLen }, (_, i) => i);

  /** The packet and two copies, with a bit of the second one changed. */
  function three(packet: Uint8Array, at: number, bit: number): Uint8Array[] {
    const all = [packet.slice(), packet.slice(), packet.slice()];
    all[1]![at]! ^= bit;
    return all;
  }

  function sender(): Rig {
    const { a } = new Pair([], { family });
    a.spd.flush();
    const { src, dst, ...ports } = exactly(family);
    const one = { src: A[4], dst: B[4], mode: 'tunnel', reqid: 1, spi: 0x1001 } as const;
    a.sad.add(sa({ ...one, tunnel: { df: 'copy' } }), 'mature');
    const ends = { src: A[4], dst: B[4] };
    const requests = [request({ mode: 'tunnel', reqid: 1, ...ends })];
    a.spd.add(policy('out', src, dst, { ...ports, requests }));
    a.output(datagram(family));
    return a;
  }

  test('going out', () => {
    const [together, alone] = [sender(), sender()];
    for (const at of octets) {
      for (const bit of [1, 0x40]) {
        const packets = three(datagram(family), at, bit);
        const sent = together.output(...packets);
        expect([at, sent]).toEqual([at, packets.flatMap((packet) => alone.output(packet))]);
        expect(seen(together)).toEqual(seen(alone));
      }
    }
    expect(together.host.stats.outClear).toBeGreaterThan(10);
  });

  const layers: LayerGiven[] = [
    { tunnel: family },
    {},
    ...(family === 4 ? [{ tunnel: 4, encapsulation: NATT } as const] : []),
  ];

  test.each(layers)('coming in: %j', (layer) => {
    const pairs = [new Pair([layer], { family }), new Pair([layer], { family })] as const;
    const [together, alone] = pairs.map(({ b }) => b) as [Rig, Rig];
    const isIpv4 = family === 4;
    const front = (isIpv4 ? 20 : 40) + (layer.encapsulation ? 8 : 0) + 16;
    for (let at = 0; at < front; at++) {
      for (const isMended of isIpv4 ? [false, true] : [false]) {
        const wire = pairs[0].a.output(...new Array<Uint8Array>(3).fill(datagram(family)));
        // Far enough for a sequence number that is none of this batch.
        wire[1]![at]! ^= 0x40;
        if (isMended && (wire[1]![0]! & 15) >= 5) ipv4.updateChecksum(wire[1]!, 0);
        const delivered = together.input(...wire);
        expect([at, delivered]).toEqual([at, wire.flatMap((packet) => alone.input(packet))]);
        expect([at, seen(together)]).toEqual([at, seen(alone)]);
      }
    }
    expect(together.host.stats.inDelivered).toBeGreaterThan(2 * front);
    expect(Object.keys(together.drops()).length).toBeGreaterThan(3);
  });
});

/** A sealed packet with another trailer: octets of padding, and the protocol of what is in it. */
function withTrailer(from: Rig, packet: Uint8Array, padLen: number, next: number): Uint8Array {
  const esp = [...from.sad.all()][0]!.spec.esp!;
  const p = packet.slice();
  const espAt = ipv4.HEADER_LEN;
  expect(esp.open(p, espAt, p.length, -1)).toBe(true);
  const end = p.length - esp.icvLen;
  p[end - 2] = padLen;
  p[end - 1] = next;
  esp.seal(p, espAt, end, -1);
  return p;
}

describe.each([{ tunnel: 4 }, {}] as LayerGiven[])(
  'what only the opened packet shows: %j',
  (layer) => {
    test.each([
      ['more padding than there is room for', 255, undefined, 'esp-bad-padding'],
      ['more padding than there is text', 99, undefined, undefined],
      ['nothing but padding', 90, undefined, undefined],
      ['a dummy packet', 2, PROTO.NONE, 'esp-dummy'],
      ['another protocol', 2, PROTO.TCP, undefined],
      ['IPv6 in it, which it is not', 2, PROTO.IPV6, undefined],
    ] as const)('%s', (_, padLen, next, reason) => {
      const pairs = [new Pair([layer]), new Pair([layer])] as const;
      const [together, alone] = pairs.map(({ b }) => b) as [Rig, Rig];
      const own = layer.tunnel ? PROTO.IPIP : PROTO.UDP;
      for (const which of [0, 1, 2, 4]) {
        const wire = pairs[0].a.output(...new Array<Uint8Array>(5).fill(datagram(4)));
        wire[which] = withTrailer(pairs[0].a, wire[which]!, padLen, next ?? own);
        const delivered = together.input(...wire);
        expect(delivered).toEqual(wire.flatMap((packet) => alone.input(packet)));
        expect(seen(together)).toEqual(seen(alone));
      }
      if (reason !== undefined) expect(together.drops()).toEqual({ [`in ${reason}`]: 4 });
    });
  },
);

test('two families through one tunnel, and two tunnels, packets of one length', () => {
  const [together, alone] = [0, 1].map(() => {
    const both = new Pair([{ tunnel: 4 }], { family: 4, priority: 1 });
    const [out, back] = [...both.a.sad.all()];
    expect(back!.spec.spi).toBe(0x2001);
    const ends = { src: A[4], dst: B[4] };
    for (const rig of [both.a, both.b]) {
      rig.sad.add(sa({ spi: 0x1009, ...ends, mode: 'tunnel', reqid: 9 }), 'mature');
      const direction = rig === both.a ? 'out' : 'in';
      const same = [request({ mode: 'tunnel', reqid: out!.spec.reqid, ...ends })];
      const other = [request({ mode: 'tunnel', reqid: 9, ...ends })];
      rig.spd.add(policy(direction, '::/0', '::/0', { requests: same }));
      const selector = { protocol: PROTO.UDP, dport: 81, priority: 0 };
      rig.spd.add(policy(direction, '0.0.0.0/0', '0.0.0.0/0', { ...selector, requests: other }));
    }
    both.send(datagram(4));
    return both;
  }) as [Pair, Pair];
  const other = datagram(4);
  setU16(other, ipv4.HEADER_LEN + 2, 81);
  const six = datagram(6, 40);
  expect(six.length).toBe(other.length);
  expect(ipv6.payloadLen(six, 0)).toBe(48);
  const kinds = [datagram(4), six, other];
  for (const order of [
    [0, 0, 1, 1, 0, 2, 2, 0],
    [1, 0, 1, 2],
    [2, 1, 1, 0, 0, 2],
  ]) {
    const packets = order.map((kind) => kinds[kind]!);
    const wire = together.a.output(...packets);
    expect(wire).toEqual(packets.flatMap((packet) => alone.a.output(packet)));
    expect(wire.map((packet) => esp.spi(packet, ipv4.HEADER_LEN))).toEqual(
      order.map((kind) => (kind === 2 ? 0x1009 : 0x1001)),
    );
    const delivered = together.b.input(...wire);
    expect(delivered).toEqual(packets);
    expect(delivered).toEqual(wire.flatMap((packet) => alone.b.input(packet)));
    expect([seen(together.a), seen(together.b)]).toEqual([seen(alone.a), seen(alone.b)]);
  }
});
