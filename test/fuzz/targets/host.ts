import type { AhTransform, EspTransform } from '../../../src/crypto/transform.ts';
import { setU16, u16 } from '../../../src/wire/bytes.ts';
import { type Packet, PacketArena } from '../../../src/wire/packet.ts';
import { policy, Rig, request, type SaOptions, sa } from '../../engine/rig.ts';
import {
  concat,
  counting,
  fragmentHeader,
  hex,
  ipv4Packet,
  ipv6Packet,
  udp,
} from '../../wire/octets.ts';
import { repair } from '../repair.ts';
import { must, type Target } from '../target.ts';

/**
 * A host with SAs of many kinds. An input is a list of steps: an octet of flags, two of length, and
 * a packet. Some SAs accept any ICV, so that changed packets get past cryptography to what is
 * behind it.
 */
const INPUT = 1;
const LATER = 2;
const AS_IS = 4;
/** In one batch with the step before. */
const TOGETHER = 8;

const A4 = '10.0.0.1';
const B4 = '10.0.0.2';
const A6 = '2001:db8::1';
const B6 = '2001:db8::2';
/** SPIs from here to OPEN_END take everything as authentic. */
const OPEN_SPI = 0x1000;
const OPEN_END = 0x1100;
const BUFFERS = 12;

const openEsp: EspTransform = {
  ivLen: 0,
  icvLen: 0,
  alignLen: 4,
  iv: 'none',
  authenticates: true,
  seal: () => {},
  open: () => true,
  wipe: () => {},
};

const openAh: AhTransform = {
  icvLen: 12,
  ivLen: 0,
  sign: () => {},
  verify: () => true,
  wipe: () => {},
};

function givenSas(): SaOptions[] {
  const encapsulation = { srcPort: 4500, dstPort: 4500 };
  const open = (spi: number, more: Partial<SaOptions>): SaOptions => ({
    spi: OPEN_SPI + spi,
    src: B4,
    dst: A4,
    ...(more.protocol === 'ah' ? {} : { esp: openEsp }),
    ...more,
  });
  const ah = { protocol: 'ah', auth: 'hmac-sha256', ah: openAh } as const;
  const six = { src: B6, dst: A6 };
  const ciphers = ['aes-gcm-16', 'aes-ccm-8', 'aes-ctr', 'aes-cbc', '3des-cbc', 'null'];
  return [
    open(1, { mode: 'any', replayPackets: 0 }),
    open(2, { mode: 'tunnel' }),
    open(3, { mode: 'transport', esn: true, replayPackets: 128 }),
    open(4, { mode: 'any', encapsulation }),
    open(5, { mode: 'any', hard: { packets: 9, bytes: 0, addSeconds: 0, useSeconds: 0 } }),
    open(6, { ...six, mode: 'any', replayPackets: 0 }),
    open(7, { ...six, mode: 'transport', encapsulation }),
    open(8, { ...six, mode: 'tunnel' }),
    open(9, { ...ah, mode: 'any', replayPackets: 0 }),
    open(10, { ...ah, ...six, mode: 'any', replayPackets: 0 }),
    open(11, { ...ah, mode: 'any', replayPackets: 64 }),
    ...ciphers.map((enc, i) => ({
      spi: 0x2000 + i,
      src: B4,
      dst: A4,
      enc,
      replayPackets: 0,
      ...(enc.includes('aes-g') || enc.includes('ccm') ? {} : { auth: 'hmac-sha1' }),
    })),
    { spi: 0x2100, src: B4, dst: A4, protocol: 'ah', auth: 'hmac-sha256', replayPackets: 0 },
    { spi: 0x2101, ...six, protocol: 'ah', auth: 'aes-gmac-128', replayPackets: 0 },
  ];
}

/** A host with all the SAs, in both directions. */
function rig(): Rig {
  const all = new Rig({ buffers: BUFFERS, mtu: 600, events: { acquire: () => 'asked' } });
  for (const given of givenSas()) {
    const back = { ...given, spi: given.spi + 0x10_000, src: given.dst, dst: given.src };
    all.sad.add(sa(given), 'mature');
    all.sad.add(sa(back), 'mature');
  }
  return all;
}

function policies(to: Rig): void {
  const esp = request({});
  const ah = request({ protocol: 'ah' });
  const tunnel4 = (from: string, dst: string) => request({ mode: 'tunnel', src: from, dst });
  const none = { type: 'none' as const };
  const discard = { type: 'discard' as const };
  to.spd.add(policy('out', A4, B4, { protocol: 17, dport: 53, requests: [esp, ah] }));
  to.spd.add(policy('out', A4, B4, { requests: [esp] }));
  to.spd.add(policy('in', B4, A4, { protocol: 17, sport: 53, requests: [esp, ah] }));
  to.spd.add(policy('in', B4, A4, { requests: [request({ level: 'use' })] }));
  to.spd.add(policy('out', A6, B6, { requests: [request({ level: 'use' }), ah] }));
  to.spd.add(policy('in', B6, A6, { protocol: 6, requests: [esp] }));
  to.spd.add(policy('in', B6, A6, { protocol: 17, ...discard }));
  to.spd.add(policy('in', '192.168.0.0/16', '0.0.0.0/0', { requests: [tunnel4(B4, A4)] }));
  to.spd.add(policy('out', '0.0.0.0/0', '192.168.0.0/16', { requests: [tunnel4(A4, B4), esp] }));
  to.spd.add(policy('in', '::/0', 'fd00::/8', { requests: [tunnel4(B4, A4)] }));
  to.spd.add(policy('out', 'fd00::/8', '::/0', { requests: [tunnel4(A4, B4)] }));
  to.spd.add(policy('in', '172.16.0.0/12', '0.0.0.0/0', none));
  to.spd.add(policy('out', A4, '172.16.0.0/12', discard));
  to.spd.add(policy('out', A4, '10.9.0.0/16', { requests: Array.from({ length: 9 }, () => esp) }));
  to.host.settings.inet6.defPolicy = 'discard';
}

/** An input of one or more steps. */
function steps(flags: number, ...packets: readonly Uint8Array[]): Uint8Array {
  return concat(
    ...packets.map((packet) => {
      const head = Uint8Array.of(flags, 0, 0);
      setU16(head, 1, packet.length);
      return concat(head, packet);
    }),
  );
}

/** Plain packets of both families, whole, with options and in fragments. */
function plain(): Uint8Array[] {
  const options = hex('94040000 0704040000000000');
  return [
    ipv4Packet({ protocol: 17 }, udp(counting(40))),
    ipv4Packet({ protocol: 17 }, concat(hex('1194 1194 0009 0000 ff'))),
    ipv4Packet({ protocol: 6, options }, counting(60)),
    ipv4Packet({ protocol: 1, flags: 0x4000 }, counting(1600)),
    ipv4Packet({ protocol: 4 }, ipv4Packet({ protocol: 17 }, udp(counting(9)))),
    ipv6Packet(17, udp(counting(30))),
    ipv6Packet(58, hex('8700 0000 00000000'), counting(16)),
    ipv6Packet(
      0,
      hex('3c00 050200000000'),
      hex('2b00 010400000000'),
      hex('0602 0001 00000000'),
      new Uint8Array(16),
      counting(20),
    ),
    ipv6Packet(44, fragmentHeader(60, 0, 0, 7), hex('1100 010400000000'), udp(counting(8))),
  ];
}

function fragments(): Uint8Array[] {
  const data = udp(counting(40));
  return [
    ipv4Packet({ protocol: 17, flags: 0x2000 }, data.slice(0, 24)),
    ipv4Packet({ protocol: 17, offset: 24 }, data.slice(24)),
    ipv6Packet(44, fragmentHeader(17, 0, 1, 7), data.slice(0, 24)),
    ipv6Packet(44, fragmentHeader(17, 24, 0, 7), data.slice(24)),
  ];
}

/** ESP without keys around `inner`, from B to A. */
function openEspPacket(spi: number, next: number, inner: Uint8Array): Uint8Array {
  const spiSeq = new Uint8Array(8);
  setU16(spiSeq, 2, OPEN_SPI + spi);
  spiSeq[7] = 1;
  const padLen = (4 - ((inner.length + 2) % 4)) % 4;
  const text = concat(inner, counting(padLen), Uint8Array.of(padLen, next));
  return concat(spiSeq, text);
}

function fromB(packet: Uint8Array): Uint8Array {
  const turned = packet.slice();
  const [at, len] = packet[0]! >> 4 === 4 ? [12, 4] : [8, 16];
  turned.set(packet.subarray(at + len, at + 2 * len), at);
  turned.set(packet.subarray(at, at + len), at + len);
  return turned;
}

function opened(): Uint8Array[] {
  const ah = concat(hex('11040000 00001009 00000001'), new Uint8Array(12), udp(counting(8)));
  const natEsp = concat(hex('1194 1194 0000 0000'), openEspPacket(4, 17, udp(counting(12))));
  return [
    ...plain().flatMap((packet) => {
      const next = packet[0]! >> 4 === 4 ? 4 : 41;
      return [1, 2, 4].map((spi) => ipv4Packet({ protocol: 50 }, openEspPacket(spi, next, packet)));
    }),
    ...fragments().map((packet) =>
      ipv4Packet({ protocol: 50 }, openEspPacket(2, packet[0]! >> 4 === 4 ? 4 : 41, packet)),
    ),
    ipv4Packet({ protocol: 50 }, openEspPacket(3, 6, counting(40))),
    ipv4Packet({ protocol: 50 }, openEspPacket(5, 59, counting(4))),
    ipv4Packet({ protocol: 17 }, natEsp),
    ipv4Packet({ protocol: 51 }, ah),
    ipv6Packet(51, concat(hex('11050000 0000100a 00000001'), new Uint8Array(16), udp(counting(8)))),
    ipv6Packet(50, openEspPacket(6, 17, udp(counting(8)))),
    ipv6Packet(50, openEspPacket(8, 41, ipv6Packet(6, counting(32)))),
  ].map(fromB);
}

/** More layers than may be opened, and what more than one packet in a batch can do to an SA. */
function batches(): Uint8Array[] {
  let nested = udp(counting(8));
  for (let i = 0; i < 9; i++) nested = openEspPacket(1, i === 0 ? 17 : 50, nested);
  const limited = fromB(ipv4Packet({ protocol: 50 }, openEspPacket(5, 17, udp(counting(8)))));
  const once = fromB(ipv4Packet({ protocol: 50 }, openEspPacket(3, 17, udp(counting(8)))));
  const ah = concat(hex('11040000 0000100b 00000001'), new Uint8Array(12), udp(counting(8)));
  const ahOnce = fromB(ipv4Packet({ protocol: 51 }, ah));
  const dns = udp(counting(8));
  setU16(dns, 0, 53);
  return [
    steps(INPUT, fromB(ipv4Packet({ protocol: 50 }, nested))),
    steps(INPUT | TOGETHER, ...Array.from({ length: 12 }, () => limited)),
    steps(INPUT | TOGETHER, once, once, limited),
    steps(INPUT | TOGETHER, ahOnce, ahOnce),
    steps(INPUT, fromB(ipv4Packet({ protocol: 50 }, openEspPacket(1, 17, dns)))),
    steps(TOGETHER, ...plain(), ...fragments()),
  ];
}

/** What the peer really sends with each SA. */
function sealed(): Uint8Array[] {
  return givenSas().flatMap((given) => {
    const one = { protocol: given.protocol ?? 'esp', mode: 'transport' } as const;
    const only = new Rig({ buffers: BUFFERS });
    only.sad.add(sa(given), 'mature');
    for (const all of ['0.0.0.0/0', '::/0']) {
      only.spd.add(policy('out', all, all, { requests: [request(one)] }));
    }
    return only.output(...plain().map(fromB)).slice(0, 3);
  });
}

function run(all: Rig, pool: readonly Packet[], input: Uint8Array): void {
  let waiting = 0;
  let side = 0;
  const flush = () => {
    if (side === INPUT) all.host.input(pool, waiting);
    else all.host.output(pool, waiting);
    waiting = 0;
  };
  for (let at = 0; at + 3 <= input.length; ) {
    const flags = input[at]!;
    const packet = input.slice(at + 3, at + 3 + u16(input, at + 1));
    at += 3 + packet.length;
    if ((flags & AS_IS) === 0) {
      repair(packet, 0, packet.length, (spi) => spi >= OPEN_SPI && spi < OPEN_END);
    }
    const isNext = (flags & TOGETHER) !== 0 && (flags & INPUT) === side;
    if (!isNext || waiting === pool.length) flush();
    if ((flags & LATER) !== 0) {
      all.env.advance(31_000);
      all.host.poll(all.env.clock.monotonicMs());
    }
    side = flags & INPUT;
    pool[waiting++]!.load(packet);
  }
  flush();
  all.sent.length = 0;
  all.delivered.length = 0;
  check(all);
}

/** Every packet is accounted for, and every buffer is back. */
function check({ host }: Rig): void {
  const { stats } = host;
  must(host.buffersFree === BUFFERS, `${host.buffersFree} of ${BUFFERS} buffers are free`);
  const dropped = (['in', 'out'] as const)
    .flatMap((side) => stats.dropped(side))
    .reduce((sum, [, count]) => sum + count, 0);
  const came = stats.inPackets + stats.outPackets;
  const went = stats.inDelivered + stats.outProtected + stats.outClear + dropped;
  const joined = stats.fragmentsJoined - stats.reassembled + host.fragmentsWaiting;
  must(came === went + joined, `${came} packets came, ${went} went and ${joined} were joined`);
}

export const host: Target = {
  name: 'host',
  lenMax: 6000,
  words: [hex('00001001'), hex('00001002'), hex('00001009'), hex('0000100a'), hex('11942000')],
  seeds: () => [
    ...[...opened(), ...sealed(), ...plain().map(fromB)].map((packet) => steps(INPUT, packet)),
    ...plain().map((packet) => steps(0, packet)),
    ...batches(),
    steps(0, ...fragments()),
    steps(INPUT, ...fragments().map(fromB)),
  ],
  create: () => {
    const all = rig();
    policies(all);
    const arena = new PacketArena(16);
    const pool = Array.from({ length: 16 }, () => arena.take()!);
    return (input) => run(all, pool, input);
  },
};
