import { describe, expect, test } from 'vitest';
import { u8, viewOf } from '../../src/wire/bytes.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { counting, ipv4Packet, ipv6Packet, udp } from '../wire/octets.ts';
import { A, B, endsOf, Pair } from './pair.ts';
import { testEnv } from './rig.ts';

const FAMILIES = [
  [4, 4],
  [4, 6],
  [6, 4],
  [6, 6],
] as const;

/** A packet with a TOS octet or traffic class, hop limit 9, and perhaps DF. */
function inner(family: 4 | 6, tos = 0, flags = 0): Uint8Array {
  const p =
    family === 4
      ? ipv4Packet({ protocol: 17, flags }, udp(counting(20)))
      : ipv6Packet(17, udp(counting(20)));
  setTos(p, tos);
  if (family === 4) ipv4.setTtl(p, 0, 9);
  else ipv6.setHopLimit(p, 0, 9);
  if (family === 4) ipv4.updateChecksum(p, 0);
  return p;
}

function isIpv4(p: Uint8Array): boolean {
  return u8(p, 0) >> 4 === 4;
}

function tosOf(p: Uint8Array): number {
  return isIpv4(p) ? ipv4.tos(p, 0) : ipv6.trafficClass(p, 0);
}

function setTos(p: Uint8Array, tos: number): void {
  if (!isIpv4(p)) return ipv6.setTrafficClass(p, 0, tos);
  ipv4.setTos(p, 0, tos);
  ipv4.updateChecksum(p, 0);
}

describe.each(FAMILIES)('IPv%i in IPv%i', (family, outer) => {
  const tunnel = [{ tunnel: outer }];

  test('ends, hop limits, DSCP and a right checksum', () => {
    const pair = new Pair(tunnel, { family });
    const { wire, delivered } = pair.send(inner(family, 0xb8));
    const p = wire[0]!;
    expect(endsOf(p)).toBe(`${A[outer]} > ${B[outer]}`);
    expect(outer === 4 ? ipv4.ttl(p, 0) : ipv6.hopLimit(p, 0)).toBe(64);
    expect(tosOf(p)).toBe(0xb8);
    if (outer === 4)
      expect([ipv4.checksumOk(viewOf(p), 0), ipv4.id(p, 0) > 0]).toEqual([true, true]);
    // RFC 4301 §5.1.2.1: the inner TTL is decremented by whoever forwards, which is not us.
    expect(delivered).toEqual([inner(family, 0xb8)]);
  });

  // RFC 6040 §4.2, figure 4: the field that leaves the tunnel, by what arrives inside and outside.
  const MERGED: Record<number, readonly (number | 'drop')[]> = {
    // outer:    not-ECT ECT(1) ECT(0) CE
    0: [0, 0, 0, 'drop'],
    1: [1, 1, 1, 3],
    2: [2, 1, 2, 3],
    3: [3, 3, 3, 3],
  };
  for (const innerEcn of [0, 1, 2, 3]) {
    test.each([0, 1, 2, 3])(`ECN ${innerEcn} inside, %i outside`, (outerEcn) => {
      const pair = new Pair(tunnel, { family });
      const packet = inner(family, 0xb8 | innerEcn);
      const p = pair.a.output(packet)[0]!;
      // §4.1, normal mode: copied on the way in.
      expect(tosOf(p)).toBe(0xb8 | innerEcn);
      setTos(p, 0xb8 | outerEcn);
      const delivered = pair.b.input(p);
      const merged = MERGED[innerEcn]![outerEcn]!;
      if (merged === 'drop') {
        expect(pair.b.drops()).toEqual({ 'in ecn-invalid': 1 });
        return;
      }
      setTos(packet, 0xb8 | merged);
      expect(delivered).toEqual([packet]);
    });
  }

  test.each([
    [0, 0],
    [-1, 2],
  ] as const)('ecn %i: ECT(0) goes out as %i, and congestion outside is not seen', (ecn, out) => {
    const pair = new Pair(tunnel, { family });
    for (const { host } of [pair.a, pair.b]) {
      host.settings.inet.ecn = ecn;
      host.settings.inet6.ecn = ecn;
    }
    const p = pair.a.output(inner(family, 2))[0]!;
    expect(tosOf(p)).toBe(out);
    if (ecn === 0) return;
    setTos(p, 3);
    expect(pair.b.input(p).map(tosOf)).toEqual([2]);
  });

  test('what the SA says about ECN goes before the host', () => {
    const pair = new Pair([{ tunnel: outer, tunnelOptions: { ecn: false } }], { family });
    expect(tosOf(pair.a.output(inner(family, 2))[0]!)).toBe(0);
  });
});

describe('DF of an IPv4 tunnel header', () => {
  const DF = ipv4.FLAG_DF;
  test.each([
    ['clear', 0, false],
    ['clear', DF, false],
    ['set', 0, true],
    ['set', DF, true],
    ['copy', 0, false],
    ['copy', DF, true],
  ] as const)('%s: %i becomes %s', (dfbit, flags, expected) => {
    const byHost = new Pair([{ tunnel: 4 }], { settings: { dfbit } });
    expect(ipv4.dontFragment(byHost.a.output(inner(4, 0, flags))[0]!, 0)).toBe(expected);
    const other = dfbit === 'set' ? 'clear' : 'set';
    const bySa = new Pair([{ tunnel: 4, tunnelOptions: { df: dfbit } }], {
      settings: { dfbit: other },
    });
    expect(ipv4.dontFragment(bySa.a.output(inner(4, 0, flags))[0]!, 0)).toBe(expected);
  });

  test('copy counts IPv6 as DF, but not what is no longer than every link carries', () => {
    const pair = new Pair([{ tunnel: 4 }], { family: 6, settings: { dfbit: 'copy' } });
    const of = (len: number) => ipv6Packet(17, udp(counting(len - 48)));
    expect(ipv4.dontFragment(pair.a.output(of(1281))[0]!, 0)).toBe(true);
    expect(ipv4.dontFragment(pair.a.output(of(1280))[0]!, 0)).toBe(false);
  });

  test('transport mode leaves it alone', () => {
    const pair = new Pair([{}], { settings: { dfbit: 'set' } });
    expect(ipv4.dontFragment(pair.a.output(inner(4))[0]!, 0)).toBe(false);
    expect(ipv4.dontFragment(pair.a.output(inner(4, 0, DF))[0]!, 0)).toBe(true);
  });
});

test('identifications go from 65,535 to 1, never to 0', () => {
  const env = testEnv();
  const fill = env.random.fill;
  env.random.fill = (octets) => {
    if (octets.length === 2) octets.set([0xff, 0xfd]);
    else fill(octets);
  };
  const pair = new Pair([{ tunnel: 4, protocol: 'ah' }], { env });
  const { wire } = pair.send(...Array.from({ length: 4 }, () => inner(4)));
  expect(wire.map((p) => ipv4.id(p, 0))).toEqual([0xfffe, 0xffff, 1, 2]);
});
