import type { DropReason } from '../../src/base/drop.ts';
import type { EspTransform } from '../../src/crypto/transform.ts';
import { setU16, setU32 } from '../../src/wire/bytes.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import {
  concat,
  counting,
  fragmentHeader,
  hex,
  ipv4Packet,
  ipv6Packet,
  udp,
} from '../wire/octets.ts';
import { icmpError, tooBig } from './errors.ts';
import { casesOfOtherShard } from './other-shard.ts';
import { type LayerGiven, Pair, type PairOptions } from './pair.ts';
import { policy, Rig, type RigOptions, request, sa } from './rig.ts';

/** For every reason, how packets come to be dropped for it: for the tests that go through them. */

/**
 * How one packet comes to be dropped. `at` drops it; whatever went before is not part of the case.
 */
export interface Case {
  readonly side: 'in' | 'out';
  readonly rig: Rig;
  readonly packets: readonly Uint8Array[];
  /** How many are counted; 1. */
  readonly count?: number;
  /** The SA is used before it turns out that the packet is bad: it was authentic. */
  readonly uses?: boolean;
  readonly ofSockets?: boolean;
  readonly after?: () => void;
}

const MF = ipv4.FLAG_MF;
export const DATA = udp(counting(40));
export const FOUR = ipv4Packet({ protocol: 17 }, DATA);
const SIX = ipv6Packet(17, DATA);
/** A fragment that is the whole datagram. */
const ATOMIC = ipv6Packet(44, fragmentHeader(17, 0, 0, 1), DATA);
const ALL = '0.0.0.0/0';

export function changed(p: Uint8Array, at: number, value: number): Uint8Array {
  const copy = p.slice();
  copy[at] = value;
  return copy;
}

function unreadable(side: 'in' | 'out', packet: Uint8Array): () => Case {
  return () => ({ side, rig: new Rig(), packets: [packet] });
}

function unreadableBoth(packet: Uint8Array): (() => Case)[] {
  return [unreadable('in', packet), unreadable('out', packet)];
}

/** B is handed what A sent, spoilt. */
function spoilt(layer: LayerGiven, spoil: (wire: Uint8Array) => Uint8Array): () => Case {
  return () => {
    const pair = new Pair([layer]);
    const wire = pair.a.output(FOUR)[0]!;
    return { side: 'in', rig: pair.b, packets: [lengthened(spoil(wire))] };
  };
}

/** With its length and checksum as they are now. */
function lengthened(p: Uint8Array): Uint8Array {
  ipv4.setTotalLen(p, 0, p.length);
  ipv4.updateChecksum(p, 0);
  return p;
}

/** Takes whatever has its SPI as authentic, so that what is inside can be bad. */
const trusting: EspTransform = {
  ivLen: 0,
  icvLen: 0,
  alignLen: 4,
  iv: 'none',
  authenticates: true,
  seal: () => {},
  open: () => true,
  wipe: () => {},
};

function forged(next: number, payload: Uint8Array, padLen = 2 + (-payload.length & 3)): Uint8Array {
  const head = new Uint8Array(8);
  setU32(head, 0, 0x1001);
  setU32(head, 4, 1);
  const padding = counting(padLen > 60 ? 2 + (-payload.length & 3) : padLen);
  return ipv4Packet({ protocol: 50 }, concat(head, payload, padding, Uint8Array.of(padLen, next)));
}

function authentic(packet: Uint8Array, mode: 'any' | 'tunnel' | 'transport' = 'any'): Case {
  const rig = new Rig();
  rig.sad.add(sa({ spi: 0x1001, src: '10.0.0.1', dst: '10.0.0.2', mode, esp: trusting }), 'mature');
  return { side: 'in', rig, packets: [packet], uses: true };
}

function inUdp(payload: Uint8Array, dport = 4500): Uint8Array {
  const datagram = udp(payload);
  setU16(datagram, 2, dport);
  return datagram;
}

function piece(offset: number, len: number, flags: number, id = 9): Uint8Array {
  return ipv4Packet({ protocol: 17, id, flags, offset }, counting(len));
}

/** Both sides put together: coming in everything, going out for a transport SA. */
function fragments(
  packets: readonly Uint8Array[],
  count: number,
  after?: (rig: Rig) => void,
  options: RigOptions = {},
) {
  return (['in', 'out'] as const).map((side) => (): Case => {
    const rig = side === 'in' ? new Rig(options) : new Pair([{}], options).a;
    return {
      side,
      rig,
      packets,
      count,
      ...(after === undefined ? {} : { after: () => after(rig) }),
    };
  });
}

function underPolicy(
  side: 'in' | 'out',
  packet: Uint8Array,
  ...rows: Parameters<typeof policy>[]
): () => Case {
  return () => {
    const rig = new Rig();
    for (const row of rows) rig.spd.add(policy(...row));
    return { side, rig, packets: [packet] };
  };
}

function defaultDiscard(side: 'in' | 'out', packet: Uint8Array): () => Case {
  return () => {
    const rig = new Rig();
    rig.host.settings.inet.defPolicy = 'discard';
    rig.host.settings.inet6.defPolicy = 'discard';
    return { side, rig, packets: [packet] };
  };
}

function sequences(start: number, limit: number): () => Case {
  const lease = () => ({ start, extend: () => limit, release: () => {} });
  return () => ({ side: 'out', rig: new Pair([{}], { sequences: { lease } }).a, packets: [FOUR] });
}

/** B does not have what A sends with. */
function changedAtB(layer: LayerGiven, change: (b: Rig) => void, uses = false): () => Case {
  return () => {
    const pair = new Pair([layer]);
    const wire = pair.a.output(FOUR);
    change(pair.b);
    return { side: 'in', rig: pair.b, packets: wire, uses };
  };
}

const esp: LayerGiven = { enc: 'null', auth: 'hmac-sha1' };
const ah: LayerGiven = { protocol: 'ah' };
const nat: LayerGiven = { encapsulation: { srcPort: 4500, dstPort: 4500 } };
const tooManyOptions = ipv6Packet(
  60,
  ...Array.from({ length: 17 }, () => hex('3c00 010400000000')),
);
const nineLayers = Array.from({ length: 9 }, (_, i) => request({ reqid: i + 1 }));

const LARGE = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_DF }, udp(counting(1400)));

function withoutDf(p: Uint8Array): Uint8Array {
  return lengthened(changed(p, 6, 0));
}

function withDf(p: Uint8Array): Uint8Array {
  return lengthened(changed(p, 6, 0x40));
}

/** A has sent one packet, and a router answers what was on the wire. */
function error(
  layer: LayerGiven,
  answer: (sent: Uint8Array) => Uint8Array,
  options: PairOptions = {},
): Case {
  const { a } = new Pair([layer], options);
  // The router is nobody that a policy speaks of.
  const [back] = a.spd.list('in');
  a.spd.remove(back!);
  const { protocol, sport, dport } = back!.selector;
  const { requests } = back!;
  a.spd.add(policy('in', '10.0.0.2/32', ALL, { protocol, sport, dport, requests }));
  return { side: 'in', rig: a, packets: [answer(a.output(LARGE)[0]!)] };
}

function replayed(layer: LayerGiven): () => Case {
  return () => {
    const pair = new Pair([layer]);
    const wire = pair.a.output(FOUR);
    pair.b.input(...wire);
    return { side: 'in', rig: pair.b, packets: wire };
  };
}

export const CASES: Record<DropReason, readonly (() => Case)[]> = {
  'truncated-header': [
    ...unreadableBoth(FOUR.slice(0, 19)),
    ...unreadableBoth(SIX.slice(0, 39)),
    ...unreadableBoth(new Uint8Array(0)),
  ],
  'bad-version': unreadableBoth(changed(FOUR, 0, 0x55)),
  'bad-header-length': unreadableBoth(changed(FOUR, 0, 0x44)),
  'bad-total-length': [
    ...unreadableBoth(changed(FOUR, 3, 255)),
    ...unreadableBoth(changed(SIX, 5, 255)),
  ],
  'bad-header-checksum': [unreadable('in', changed(FOUR, 8, 7))],
  'bad-option': unreadableBoth(ipv4Packet({ protocol: 17, options: hex('07010000') }, DATA)),
  'too-many-headers': unreadableBoth(tooManyOptions),
  jumbogram: unreadableBoth(changed(ipv6Packet(0, hex('1100 c20400010000')), 5, 0)),
  'bad-udp-length': [
    unreadable('in', ipv4Packet({ protocol: 17 }, changed(inUdp(counting(9)), 5, 7))),
  ],
  'bad-udp-checksum': [
    () => {
      const pair = new Pair([nat], { family: 6 });
      const wire = pair.a.output(SIX)[0]!;
      return { side: 'in', rig: pair.b, packets: [changed(wire, 46, wire[46]! ^ 1)] };
    },
    unreadable('in', ipv6Packet(17, inUdp(counting(40)))),
  ],
  'fragment-overlap': fragments([piece(0, 16, MF), piece(8, 16, MF)], 2),
  'fragment-bad-length': fragments([piece(0, 17, MF)], 1),
  'fragment-duplicate': fragments([piece(0, 16, MF), piece(0, 16, MF)], 1),
  'fragment-timeout': fragments([piece(0, 16, MF), piece(16, 16, MF)], 2, (rig) => {
    rig.env.advance(30_000);
    rig.host.poll(rig.env.clock.monotonicMs());
  }),
  'fragment-queue-full': fragments(
    Array.from({ length: 65 }, (_, id) => piece(0, 16, MF, id + 1)),
    1,
  ),
  'esp-truncated': [
    unreadable('in', ipv4Packet({ protocol: 50 }, counting(7))),
    spoilt(esp, (wire) => wire.slice(0, 20 + 8 + 12 + 1)),
  ],
  'esp-bad-alignment': [spoilt(esp, (wire) => wire.slice(0, -2))],
  'esp-bad-padding': [() => authentic(forged(17, DATA, 200))],
  'esp-bad-icv': [
    spoilt(esp, (wire) => changed(wire, 40, wire[40]! ^ 1)),
    spoilt({}, (wire) => changed(wire, wire.length - 1, wire.at(-1)! ^ 1)),
    changedAtB(esp, (b) => {
      const one =
        b.sad.get('esp', 0x1001, sa({ spi: 300, src: '::', dst: '::' }).dst) ??
        [...b.sad.all()][0]!;
      const { protocol, spi, reqid } = one.spec;
      b.sad.remove(one);
      b.sad.add(
        sa({
          protocol,
          spi,
          reqid,
          src: '10.0.0.1',
          dst: '10.0.0.2',
          enc: 'null',
          auth: 'hmac-sha1',
          authKey: counting(20),
        }),
        'mature',
      );
    }),
  ],
  'esp-replay': [replayed(esp)],
  'esp-dummy': [() => authentic(forged(59, counting(6)))],
  'ah-truncated': [
    unreadable('in', ipv4Packet({ protocol: 51 }, counting(11))),
    spoilt(ah, (wire) => wire.slice(0, 40)),
  ],
  'ah-bad-length': [
    spoilt(ah, (wire) => changed(wire, 21, 3)),
    spoilt(ah, (wire) => changed(wire, 21, 0)),
  ],
  'ah-bad-icv': [spoilt(ah, (wire) => changed(wire, 60, wire[60]! ^ 1))],
  'ah-replay': [replayed(ah)],
  'no-sa-for-spi': [
    spoilt(esp, (wire) => changed(wire, 22, 9)),
    spoilt(ah, (wire) => changed(wire, 26, 9)),
  ],
  'sa-not-usable': [
    () => {
      const rig = new Rig();
      rig.sad.add(sa({ spi: 0x1001, src: '10.0.0.1', dst: '10.0.0.2' }), 'larval');
      const after = () => {
        rig.env.advance(2000);
        rig.host.poll(rig.env.clock.monotonicMs());
      };
      return { side: 'in', rig, packets: [forged(17, DATA)], after };
    },
  ],
  'sa-wrong-encapsulation': [
    spoilt(nat, (wire) => {
      const bare = concat(wire.slice(0, 20), wire.slice(28));
      ipv4.setProtocol(bare, 0, 50);
      return bare;
    }),
    spoilt(esp, (wire) => {
      const wrapped = concat(wire.slice(0, 20), inUdp(wire.slice(20)));
      ipv4.setProtocol(wrapped, 0, 17);
      setU16(wrapped, 26, 0);
      return wrapped;
    }),
  ],
  'wrong-mode': [() => authentic(forged(17, DATA), 'tunnel')],
  'too-many-layers': [
    () => {
      const rig = new Pair(Array.from({ length: 8 }, () => esp)).a;
      rig.spd.flush();
      rig.sad.add(sa({ spi: 0x1009, src: '10.0.0.1', dst: '10.0.0.2', reqid: 9 }), 'mature');
      rig.spd.add(policy('out', ALL, ALL, { requests: nineLayers }));
      return { side: 'out', rig, packets: [FOUR] };
    },
    () => {
      let packet = FOUR.slice(20);
      let next = 17;
      for (let i = 0; i < 9; i++) {
        packet = forged(next, packet).slice(20);
        next = 50;
      }
      const one = authentic(ipv4Packet({ protocol: 50 }, packet));
      for (const living of one.rig.sad.all()) one.rig.sad.remove(living);
      const given = {
        spi: 0x1001,
        src: '10.0.0.1',
        dst: '10.0.0.2',
        esp: trusting,
        replayPackets: 0,
      };
      one.rig.sad.add(sa(given), 'mature');
      return one;
    },
  ],
  'ipcomp-unsupported': [unreadable('in', ipv4Packet({ protocol: 108 }, counting(20)))],
  'ecn-invalid': [
    () => {
      const pair = new Pair([{ tunnel: 4 }]);
      const wire = pair.a.output(FOUR)[0]!;
      return { side: 'in', rig: pair.b, packets: [lengthened(changed(wire, 1, 3))], uses: true };
    },
  ],
  'natt-keepalive': [unreadable('in', ipv4Packet({ protocol: 17 }, inUdp(hex('ff'))))],
  'natt-not-esp': [
    unreadable('in', ipv4Packet({ protocol: 17 }, inUdp(hex('fe')))),
    unreadable('in', ipv4Packet({ protocol: 17 }, inUdp(hex('')))),
  ],
  'policy-discard': [
    underPolicy('in', FOUR, ['in', ALL, ALL, { type: 'discard' }]),
    underPolicy('out', FOUR, ['out', ALL, ALL, { type: 'discard' }]),
  ],
  'policy-default-discard': [
    defaultDiscard('in', FOUR),
    defaultDiscard('out', FOUR),
    defaultDiscard('in', SIX),
    defaultDiscard('out', SIX),
  ],
  'policy-clear': [
    underPolicy('in', ATOMIC, ['in', '::/0', '::/0', { requests: [request({})] }]),
    underPolicy('in', FOUR, ['in', ALL, ALL, { requests: [request({})] }]),
  ],
  'policy-mismatch': [
    changedAtB(
      esp,
      (b) => {
        b.spd.flush();
        b.spd.add(policy('in', ALL, ALL, { requests: [request({ protocol: 'ah' })] }));
      },
      true,
    ),
  ],
  'policy-unprotected-selector': [changedAtB({ tunnel: 4 }, (b) => void b.spd.flush(), true)],
  'policy-empty': [
    underPolicy('in', FOUR, ['in', ALL, ALL, {}]),
    underPolicy('out', FOUR, ['out', ALL, ALL, {}]),
  ],
  'icmp-path-mtu': [
    () => error({}, (sent) => tooBig(sent, 1000)),
    () => error({ tunnel: 6 }, (sent) => tooBig(sent, 1300)),
  ],
  'icmp-mtu-refused': [
    () => error({}, (sent) => tooBig(sent, sent.length)),
    () => error({}, (sent) => tooBig(withoutDf(sent), 1000)),
    // Routers may fragment what such an SA sends.
    () => error({ tunnel: 4, mode: 'tunnel' }, (sent) => tooBig(withDf(sent), 1000)),
  ],
  'icmp-too-many': [
    () => {
      const rig = new Rig();
      const errors = Array.from({ length: 65 }, (_, i) => {
        const spi = 0x1001 + i;
        rig.spd.flush();
        rig.spd.add(policy('out', ALL, ALL, { requests: [request({ reqid: i + 1 })] }));
        rig.sad.add(sa({ spi, src: '10.0.0.1', dst: `10.0.1.${i}`, reqid: i + 1 }), 'mature');
        const packet = LARGE.slice();
        packet.set([10, 0, 1, i], ipv4.DST_AT);
        return tooBig(rig.output(lengthened(packet))[0]!, 1000);
      });
      rig.input(...errors.slice(0, 64));
      rig.host.stats.families[4].drops.in['icmp-path-mtu'] = 0;
      return { side: 'in', rig, packets: errors.slice(64) };
    },
  ],
  'icmp-bad-checksum': [
    () => error({}, (sent) => changed(tooBig(sent, 1000), 27, 1)),
    () => error({ tunnel: 6 }, (sent) => changed(tooBig(sent, 1300), 47, 1)),
  ],
  'icmp-no-sa': [
    () => error({}, (sent) => tooBig(changed(sent, 22, 9), 1000)),
    // A sequence number that is yet to be sent.
    () => error({}, (sent) => tooBig(changed(sent, 27, 2), 1000)),
    () => error({ protocol: 'ah' }, (sent) => tooBig(changed(sent, 26, 9), 1000)),
    () => error({}, (sent) => icmpError(changed(sent, 22, 9), 3, 2)),
    () => {
      const one = error({}, (sent) => tooBig(sent, 1000));
      for (const living of one.rig.sad.all()) living.state = 'dead';
      return one;
    },
  ],
  'icmp-unauthenticated': [
    () => error({}, (sent) => icmpError(sent, 3, 2)),
    () => error({ protocol: 'ah' }, (sent) => icmpError(sent, 11, 0)),
    () => error({ tunnel: 6 }, (sent) => icmpError(sent, 1, 0)),
    () => error(nat, (sent) => icmpError(sent, 3, 3)),
  ],
  'icmp-flow-protected': [
    () => error({}, () => tooBig(LARGE, 1000)),
    () => error({}, () => icmpError(LARGE, 3, 3)),
    // A later fragment could be of the protected flow.
    () =>
      error({}, () => icmpError(piece(80, 16, 0), 11, 1), {
        ports: { protocol: 17, dport: 2000 },
      }),
  ],
  'held-too-long': [
    () => {
      const rig = new Rig({ events: { acquire: () => 'asked' } });
      rig.spd.add(policy('out', ALL, ALL, { requests: [request({})] }));
      const after = () => {
        rig.env.advance(30_000);
        rig.host.poll(rig.env.clock.monotonicMs());
      };
      return { side: 'out', rig, packets: [FOUR], after };
    },
  ],
  'socket-unknown': [
    () => ({ side: 'out', rig: new Rig(), packets: [FOUR], ofSockets: true }),
    () => {
      const rig = new Rig();
      const ends = { localPort: 1001, remotePort: 0 };
      rig.host.sockets.open({ family: 4, protocol: 17, ...ends }, { privileged: true });
      return { side: 'out', rig, packets: [FOUR], ofSockets: true };
    },
  ],
  'no-sa': [
    // A datagram that was put together gives its buffer back.
    underPolicy('out', ATOMIC, ['out', '::/0', '::/0', { requests: [request({})] }]),
    underPolicy('out', FOUR, ['out', ALL, ALL, { requests: [request({})] }]),
  ],
  'sequence-exhausted': [sequences(2 ** 32, 2 ** 33)],
  'sequence-store': [sequences(1, -1), sequences(5, 5)],
  'too-big': [
    () => ({
      side: 'out',
      rig: new Pair([{}], { mtu: 70, buffers: 0 }).a,
      packets: [ipv4Packet({ protocol: 17, flags: ipv4.FLAG_DF }, DATA)],
    }),
  ],
  'packet-too-long': [
    () => {
      const packets = [ipv4Packet({ protocol: 17 }, counting(65_490))];
      return { side: 'out', rig: new Pair([{}]).a, packets };
    },
  ],
  'shard-full': casesOfOtherShard(FOUR),
  'no-room': [
    () => ({
      side: 'out',
      rig: new Pair([{}], { mtu: 70, buffers: 1 }).a,
      packets: [FOUR],
      uses: true,
    }),
    () => ({
      side: 'in',
      rig: new Rig({ buffers: 0 }),
      packets: [ipv6Packet(44, fragmentHeader(17, 0, 0, 1), DATA)],
    }),
  ],
};
