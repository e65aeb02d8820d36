import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { maskPrefix, prefix, prefixHas } from '../../src/base/address.ts';
import type { Instruction } from '../../src/drivers/linux/bpf.ts';
import type { InDiversion, InDiversions } from '../../src/drivers/linux/diversion.ts';
import {
  compileFilter,
  INSTRUCTIONS_MAX,
  PAIRS_MAX,
  type SocketPort,
} from '../../src/drivers/linux/redirect-filter.ts';
import { fromHex } from '../../src/wire/bytes.ts';

/**
 * The dumbest BPF machine: what <linux/filter.h> says, for the instructions we use. Answers 0 when
 * a load fails.
 */
function run(program: readonly Instruction[], frame: Uint8Array, vlan = 0, family?: 4 | 6): number {
  let a = 0;
  let x = 0;
  const load = (at: number, len: number) => {
    let value = 0;
    for (let i = 0; i < len; i++) value = value * 256 + (frame[at + i] ?? Number.NaN);
    return value;
  };
  for (let pc = 0; ; pc++) {
    const { code, jt, jf, k } = program[pc]!;
    if (code === 0x06) return k;
    else if (code === 0x05) pc += k;
    else if (code === 0x15) pc += a === k ? jt : jf;
    else if (code === 0x25) pc += a > k ? jt : jf;
    else if (code === 0x35) pc += a >= k ? jt : jf;
    else if (code === 0x45) pc += (a & k) !== 0 ? jt : jf;
    else if (code === 0x54) a = (a & k) >>> 0;
    else if (code === 0xb1) x = (load(k, 1) & 15) * 4;
    else if (code === 0x48) a = load(x + k, 2);
    else if (code === 0x40) a = load(x + k, 4);
    else if (code === 0x50) a = load(x + k, 1);
    else if (code === 0x64) a <<= k;
    else if (code === 0x07) x = a;
    else if (code === 0x20 && k === 0xfffff030) a = vlan;
    else if (code === 0x28 && k === 0xfffff000 && family !== undefined)
      a = family === 4 ? 0x0800 : 0x86dd;
    else if (code === 0x28 && k === 0xfffff000) a = load(12, 2);
    else if (code === 0x20) a = load(k, 4);
    else if (code === 0x28) a = load(k, 2);
    else if (code === 0x30) a = load(k, 1);
    else throw new Error(`unknown instruction ${code}`);
    if (Number.isNaN(a) || Number.isNaN(x)) return 0;
  }
}

const ETHER = `${'02'.repeat(12)}`;
const PEER4 = 'c0000201';
const LOCAL4 = 'c6336407';

function v4(
  protocol: number,
  upper: string,
  more: { src?: string; frag?: string; options?: string } = {},
) {
  const options = more.options ?? '';
  const ihl = (5 + options.length / 8).toString(16);
  const p = protocol.toString(16).padStart(2, '0');
  const addresses = (more.src ?? PEER4) + LOCAL4;
  return fromHex(
    `${ETHER}0800` +
      `4${ihl}000040` +
      `0001${more.frag ?? '0000'}40${p}0000${addresses}${options}${upper}`.padStart(0),
  );
}

const PEER6 = `20010db8${'0'.repeat(23)}1`;
const LOCAL6 = `20010db8${'0'.repeat(23)}2`;

function v6(next: number, upper: string, src = PEER6) {
  const n = next.toString(16).padStart(2, '0');
  return fromHex(`${ETHER}86dd6000000000${'10'}${n}40${src}${LOCAL6}${upper}`);
}

const UDP_4500 = '119411940010000000000000';
const UDP_OTHER = '119411950010000000000000';
const options = { linkHeaderLen: 14, encapPort: 4500 };
const both: InDiversions & { readonly in: readonly InDiversion[] } = {
  in: [
    { source: prefix('203.0.113.0/25'), destination: prefix('0.0.0.0/0') },
    { source: prefix('192.0.2.1'), destination: prefix('198.51.100.0/28') },
    { source: prefix('2001:db9::/33'), destination: prefix('::/0') },
    { source: prefix('2001:db8::1'), destination: prefix('2001:db8::/127') },
    { source: prefix('2001:db8::1'), destination: prefix('2001:db8::2') },
  ],
  all: false,
};

describe.each([
  ['pairs', both],
  ['everything', { in: [], all: true }],
] as const)('what is redirected: %s', (_name, diversion) => {
  const program = compileFilter(diversion, options)!;
  const verdict = (frame: Uint8Array) => (run(program, frame) === 0 ? 'pass' : 'redirect');

  test.each([
    ['IPv4 ESP', v4(50, '00000000'), 'pass'],
    ['IPv4 AH', v4(51, '00000000'), 'pass'],
    ['IPv4 fragment of ESP', v4(50, '00000000', { frag: '2000' }), 'pass'],
    ['IPv4 TCP', v4(6, '00000000'), 'redirect'],
    ['IPv4 ICMP', v4(1, '08000000'), 'redirect'],
    ['our UDP port', v4(17, UDP_4500), 'pass'],
    ['our UDP port behind options', v4(17, UDP_4500, { options: '01010100' }), 'pass'],
    ['our UDP port only where options are', v4(17, UDP_OTHER, { options: '00001194' }), 'redirect'],
    ['another UDP port', v4(17, UDP_OTHER), 'redirect'],
    ['first fragment of our UDP port', v4(17, UDP_4500, { frag: '2000' }), 'redirect'],
    ['later fragment that looks like our UDP port', v4(17, UDP_4500, { frag: '0001' }), 'redirect'],
    ['our UDP port with "do not fragment"', v4(17, UDP_4500, { frag: '4000' }), 'pass'],
    ['IPv6 ESP', v6(50, '00000000'), 'pass'],
    ['IPv6 AH', v6(51, '00000000'), 'pass'],
    ['IPv6 TCP', v6(6, '00000000'), 'redirect'],
    ['IPv6 UDP to our port', v6(17, UDP_4500), 'pass'],
    ['IPv6 UDP to another port', v6(17, UDP_OTHER), 'redirect'],
    ['echo request', v6(58, '80000000'), 'redirect'],
    ['echo reply', v6(58, '81000000'), 'redirect'],
    ['listener query', v6(58, '82000000'), 'pass'],
    ['listener done', v6(58, '84000000'), 'pass'],
    ['router solicitation', v6(58, '85000000'), 'pass'],
    ['neighbour solicitation', v6(58, '87000000'), 'pass'],
    ['redirect message', v6(58, '89000000'), 'pass'],
    ['behind neighbour discovery', v6(58, '8a000000'), 'redirect'],
    ['IPv6 fragment of ESP', v6(44, '3200000000000000'), 'pass'],
    ['IPv6 fragment of AH', v6(44, '3300000000000000'), 'pass'],
    ['IPv6 fragment of UDP', v6(44, `1100000100000000${UDP_4500}`), 'redirect'],
    ['IPv6 fragment behind options', v6(60, '2c00000000000000'), 'redirect'],
    ['IPv6 ESP behind options', v6(60, '3200000000000000'), 'redirect'],
    ['ARP', fromHex(`${ETHER}0806${'00'.repeat(46)}`), 'pass'],
  ])('%s', (_what, frame, expected) => {
    expect(verdict(frame)).toBe(expected);
  });

  test('a packet with a VLAN tag is for another device', () => {
    expect(run(program, v4(6, '00000000'), 1)).toBe(0);
  });
});

describe('which addresses are redirected', () => {
  const program = compileFilter(both, options)!;
  test.each([
    ['203.0.113.127, in the network', v4(6, '', { src: 'cb00717f' }), true],
    ['203.0.113.128, not in it', v4(6, '', { src: 'cb007180' }), false],
    ['another host', v4(6, '', { src: 'c0000202' }), false],
    ['2001:db9:7fff::', v6(6, '', '20010db97fff'.padEnd(32, '0')), true],
    ['2001:db9:8000::', v6(6, '', '20010db98000'.padEnd(32, '0')), false],
    ['2001:db8::3', v6(6, '', `20010db8${'0'.repeat(23)}3`), false],
  ])('%s', (_what, frame, redirected) => {
    expect(run(program, frame) !== 0).toBe(redirected);
  });
});

describe('what comes from hosts that no pair names', () => {
  const pairs = compileFilter(both, options)!;
  const other4 = { src: 'c0000202' };
  const other6 = `20010db8${'0'.repeat(23)}3`;
  const v6from = (next: number, upper: string) => v6(next, upper, other6);
  test.each([
    ['an echo request', v4(1, '08000000', other4), false],
    ['an echo reply', v4(1, '00000000', other4), false],
    ['a too-big', v4(1, '03040000', other4), true],
    ['a too-big behind options', v4(1, '03040000', { ...other4, options: '01010100' }), true],
    ['an echo behind options', v4(1, '08000000', { ...other4, options: '03040000' }), false],
    ['an expired TTL', v4(1, '0b000000', other4), true],
    ['the first fragment of one', v4(1, '03040000', { ...other4, frag: '2000' }), true],
    ['the first fragment of an echo', v4(1, '08000000', { ...other4, frag: '2000' }), false],
    ['a later fragment', v4(1, '03040000', { ...other4, frag: '2001' }), false],
    ['UDP', v4(17, '03040000', other4), false],
    ['an echo request of IPv6', v6from(58, '80000000'), false],
    ['a listener report', v6from(58, '8f000000'), false],
    ['a listener report behind options', v6from(0, '3a000502000001008f000000'), false],
    ['a too-big of IPv6', v6from(58, '02000000'), true],
    ['one behind options', v6from(0, '3a0001040000000002000000'), true],
    ['one behind long options', v6from(0, `3a01${'00'.repeat(14)}02000000`), true],
    ['one behind options for the destination', v6from(60, '3a0001040000000002000000'), true],
    ['one behind both', v6from(0, `3c00010400000000${'3a0001040000000002000000'}`), true],
    ['one behind a routing header', v6from(43, '3a0000000000000002000000'), true],
    ['the first fragment of one of IPv6', v6from(44, '3a0000010000000002000000'), true],
    ['the first fragment of an echo of IPv6', v6from(44, '3a0000010000000080000000'), false],
    ['a later fragment of IPv6', v6from(44, '3a0000080000000002000000'), false],
    ['a fragment of a fragment', v6from(44, '2c00000800000000'), true],
    [
      'a fragment of one behind options',
      v6from(0, `2c00010400000000${'3a00'.padEnd(24, '0')}`),
      true,
    ],
    ['a fragment of options', v6from(44, '3c00000100000000'), true],
    ['a fragment of UDP', v6from(44, '110000010000000002000000'), false],
    ['UDP behind options', v6from(0, `1100010400000000${UDP_OTHER}`), false],
    ['TCP', v6from(6, '02000000'), false],
  ])('%s', (_what, frame, redirected) => {
    expect(run(pairs, frame) !== 0).toBe(redirected);
    // Without a pair of its family nothing of it is protected.
    const family = frame[12] === 8 ? 4 : 6;
    const others = both.in.filter(({ source }) => source.address.family !== family);
    expect(run(compileFilter({ ...both, in: others }, options)!, frame)).toBe(0);
  });
});

test('every jump of a long program lands inside it, and families do not mix', () => {
  const pairs = Array.from({ length: 60 }, (_, i) => ({
    source: prefix(i % 2 === 0 ? `10.0.${i}.0/24` : `2001:db8:${i}::/48`),
    destination: prefix(i % 2 === 0 ? '198.51.100.7' : '2001:db8::2'),
  }));
  const program = compileFilter({ in: pairs, all: false }, options)!;
  for (const [at, { code, jt, jf }] of program.entries()) {
    if (code === 0x06) continue;
    expect(at + 1 + Math.max(jt, jf)).toBeLessThanOrEqual(program.length - 1);
    expect(Math.max(jt, jf)).toBeLessThan(256);
  }
  expect(run(program, v4(6, '', { src: '0a003a05' }))).not.toBe(0);
  expect(run(program, v4(6, '', { src: '0a003b05' }))).toBe(0);
  expect(run(program, v6(6, '', '20010db8003b'.padEnd(32, '0')))).toBe(0);
  expect(
    run(program, v6(6, '', `20010db8${(59).toString().padStart(4, '0')}`.padEnd(32, '0'))),
  ).not.toBe(0);
});

test('too many pairs for a program: everything is redirected rather than some of it forgotten', () => {
  // By their number, and by what they need: every pair of hosts is something else.
  for (const [count, destination] of [
    [PAIRS_MAX + 1, () => '198.51.100.7'],
    [300, (i: number) => `198.51.${i >> 8}.${i & 255}`],
  ] as const) {
    const pairs = Array.from({ length: count }, (_, i) => ({
      source: prefix(`10.${i >> 8}.${i & 255}.1`),
      destination: prefix(destination(i)),
    }));
    const program = compileFilter({ in: pairs, all: false }, options)!;
    expect(program.length).toBeLessThan(INSTRUCTIONS_MAX);
    expect(run(program, v4(6, ''))).not.toBe(0);
    expect(run(program, v4(50, ''))).toBe(0);
  }
});

test('many peers of one address are an instruction each', () => {
  const pairs = Array.from({ length: 900 }, (_, i) => ({
    source: prefix(`10.${i >> 8}.${i & 255}.1`),
    destination: prefix('198.51.100.7'),
  }));
  const program = compileFilter({ in: pairs, all: false }, options)!;
  expect(program.length).toBeLessThan(INSTRUCTIONS_MAX);
  expect(Math.max(...program.flatMap(({ jt, jf }) => [jt, jf]))).toBeLessThan(256);
  for (const src of ['0a000001', '0a00ff01', '0a010001', '0a038301']) {
    expect([src, run(program, v4(6, '', { src }))]).not.toEqual([src, 0]);
  }
  for (const src of ['0a000002', '0a038401', PEER4]) {
    expect([src, run(program, v4(6, '', { src }))]).toEqual([src, 0]);
  }
});

test('pairs with anything in common are told apart as by a list', () => {
  const lengths = { 4: [0, 8, 16, 20, 32], 6: [0, 16, 32, 40, 64, 96, 127, 128] };
  const octet = fc.constantFrom(0, 1, 2, 255);
  const oneOf = (family: 4 | 6) =>
    fc
      .tuple(
        fc.array(octet, { minLength: family === 4 ? 4 : 16, maxLength: family === 4 ? 4 : 16 }),
        fc.constantFrom(...lengths[family]),
      )
      .map(([octets, len]) => maskPrefix({ family, bytes: Uint8Array.from(octets) }, len));
  const pairOf = fc
    .constantFrom(4 as const, 6 as const)
    .chain((family) => fc.record({ source: oneOf(family), destination: oneOf(family) }));
  fc.assert(
    fc.property(fc.array(pairOf, { minLength: 1, maxLength: 40 }), pairOf, (pairs, probe) => {
      const program = compileFilter({ in: pairs, all: false }, { linkHeaderLen: 0 })!;
      const { source, destination } = probe;
      const { family } = source.address;
      const frame = new Uint8Array(60);
      frame[0] = family === 4 ? 0x45 : 0x60;
      frame[family === 4 ? 9 : 6] = 6;
      frame.set(source.address.bytes, family === 4 ? 12 : 8);
      frame.set(destination.address.bytes, family === 4 ? 16 : 24);
      const isIn = pairs.some(
        (pair) =>
          prefixHas(pair.source, source.address) &&
          prefixHas(pair.destination, destination.address),
      );
      expect(run(program, frame, 0, family) !== 0).toBe(isIn);
    }),
  );
});

test('nothing to redirect needs no program; without a port no UDP is excepted', () => {
  expect(compileFilter({ in: [], all: false }, options)).toBeUndefined();
  const program = compileFilter({ in: [], all: true }, { linkHeaderLen: 14 })!;
  expect(run(program, v4(17, UDP_4500))).not.toBe(0);
  expect(run(program, v6(17, UDP_4500))).not.toBe(0);
  expect(run(program, v6(58, '88'))).toBe(0);
  expect(run(program, v6(44, '3300'))).toBe(0);
  expect(run(program, v6(44, '1100'))).not.toBe(0);
  expect(run(program, v6(58, '80'))).not.toBe(0);
  expect(run(program, v6(58, '8a'))).not.toBe(0);
});

/** A datagram to a port, whose length field says how much data there is. */
function datagram(port: number, data: string, dataLen = data.length / 2): string {
  const hex = (value: number) => value.toString(16).padStart(4, '0');
  return `0123${hex(port)}${hex(8 + dataLen)}0000${data}`;
}

describe.each([
  ['one port', [4500]],
  ['many ports', [4500, 4501, 10_000, 4502]],
  ['many ports, ours the last', [4502, 4501, 4500]],
])('the port of a program: %s', (_name, sharedPorts) => {
  const esp = datagram(4500, '00001001000000010000');
  const ike = datagram(4500, '000000001122334455667788');
  const keepalive = datagram(4500, 'ff');
  const nobody: InDiversions = { in: [], all: false };
  const cases: [string, Uint8Array, boolean][] = [
    ['ESP', v4(17, esp), true],
    ['ESP behind options', v4(17, esp, { options: '01010100' }), true],
    ['ESP in IPv6', v6(17, esp), true],
    ['IKE', v4(17, ike), false],
    ['IKE behind options', v4(17, ike, { options: '01010100' }), false],
    ['IKE in IPv6', v6(17, ike), false],
    ['a keep-alive', v4(17, keepalive), false],
    ['a keep-alive in IPv6', v6(17, keepalive), false],
    ['a fragment of UDP', v4(17, esp, { frag: '2000' }), true],
    ['a later fragment of UDP', v4(17, ike, { frag: '0001' }), true],
    ['a fragment of UDP in IPv6', v6(44, `1100000100000000${esp}`), true],
    ['a fragment of TCP in IPv6', v6(44, `0600000100000000${esp}`), false],
    ['another port', v4(17, datagram(4499, '00001001000000010000')), false],
    ['another port in IPv6', v6(17, datagram(4503, '00001001000000010000')), false],
    ['TCP', v4(6, esp), false],
  ];
  test.each(cases)('%s', (_what, frame, redirected) => {
    for (const encapPort of [undefined, 4600]) {
      const own = { linkHeaderLen: 14, encapPort, sharedPorts };
      expect(run(compileFilter(nobody, own)!, frame) !== 0).toBe(redirected);
      // What is not ESP is judged as if it were any other packet.
      expect(run(compileFilter({ ...nobody, all: true }, own)!, frame)).not.toBe(0);
      expect(run(compileFilter(both, own)!, frame)).not.toBe(0);
    }
  });
});

describe('ports of sockets that take clear packets', () => {
  const udp: SocketPort = { protocol: 17, port: 4501 };
  const tcp: SocketPort = { protocol: 6, port: 80 };
  const nobody: InDiversions = { in: [], all: false };
  const data = '00000000'.repeat(4);
  const cases: [string, Uint8Array, boolean][] = [
    ['UDP', v4(17, datagram(4501, data)), true],
    ['UDP behind options', v4(17, datagram(4501, data), { options: '01010100' }), true],
    ['UDP in IPv6', v6(17, datagram(4501, data)), true],
    ['TCP', v4(6, datagram(80, data)), true],
    ['TCP in IPv6', v6(6, datagram(80, data)), true],
    ['the other protocol', v4(6, datagram(4501, data)), false],
    ['the other protocol in IPv6', v6(17, datagram(80, data)), false],
    ['another port', v4(17, datagram(4502, data)), false],
    ['another port in IPv6', v6(6, datagram(81, data)), false],
    ['a fragment of UDP', v4(17, datagram(1, data), { frag: '2000' }), true],
    ['a later fragment of UDP in IPv6', v6(44, `1100000900000000${data}`), true],
    ['a later fragment of TCP', v4(6, datagram(80, data), { frag: '0001' }), false],
    ['a fragment of TCP in IPv6', v6(44, `0600000100000000${datagram(80, data)}`), false],
    ['ESP', v4(50, datagram(80, data)), false],
    ['neighbour discovery', v6(58, '87'), false],
  ];

  test.each(cases)('%s', (_what, frame, redirected) => {
    for (const more of [{}, { encapPort: 4600 }, { sharedPorts: [4500] }]) {
      const own = { linkHeaderLen: 14, socketPorts: [udp, tcp], ...more };
      expect(run(compileFilter(nobody, own)!, frame) !== 0).toBe(redirected);
      // Not too little of what is diverted anyway.
      const usual = compileFilter(both, { linkHeaderLen: 14, ...more })!;
      if (run(usual, frame) !== 0) expect(run(compileFilter(both, own)!, frame)).not.toBe(0);
    }
  });

  test('one protocol alone, and hundreds of ports', () => {
    const frame = v4(17, datagram(4501, data));
    const filter = (socketPorts: readonly SocketPort[]) =>
      compileFilter(nobody, { linkHeaderLen: 14, socketPorts });
    expect(run(filter([udp])!, frame)).not.toBe(0);
    expect(run(filter([tcp])!, frame)).toBe(0);
    expect(filter([])).toBeUndefined();
    const many = Array.from({ length: 200 }, (_, i) => ({ ...udp, port: i + 1 }));
    expect(run(filter([...many, udp, tcp])!, frame)).not.toBe(0);
    expect(run(filter([...many, tcp])!, frame)).toBe(0);
    // Too many to look at each: then all.
    const all = Array.from({ length: 2000 }, (_, i) => ({ ...udp, port: i + 10_000 }));
    expect(run(filter(all)!, frame)).not.toBe(0);
  });
});
