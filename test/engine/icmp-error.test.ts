import { describe, expect, test } from 'vitest';
import { setU16 } from '../../src/wire/bytes.ts';
import * as checksum from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { concat, counting, hex, ipv4Packet, udp } from '../wire/octets.ts';
import { icmpError, tooBig } from './errors.ts';
import { A, B, endsOf, Pair } from './pair.ts';
import { policy, Rig, request, sa } from './rig.ts';

const copying = { settings: { dfbit: 'copy' as const } };

/** A UDP packet of so many octets. */
function sized(len: number): Uint8Array {
  const p = ipv4Packet({ protocol: 17, flags: ipv4.FLAG_DF }, udp(counting(len - 28)));
  const cursor = new Cursor();
  decode(p, 0, p.length, cursor);
  checksum.updateTransportChecksum(p, cursor);
  return p;
}

describe('RFC 4301 §6.2', () => {
  // Networks behind A and B; errors come from routers that no policy names.
  const [left, right] = ['10.1.0.0/24', '10.2.0.0/24'];
  const router = [172, 16, 0, 1];

  function networks(): Pair {
    const pair = new Pair([{ tunnel: 4 }], copying);
    const [out] = pair.a.spd.list('out');
    const [back] = pair.b.spd.list('out');
    for (const host of [pair.a, pair.b]) host.spd.flush();
    pair.a.spd.add(policy('out', left, right, { requests: out!.requests }));
    pair.b.spd.add(policy('in', left, right, { requests: out!.requests }));
    pair.b.spd.add(policy('out', right, left, { requests: back!.requests }));
    pair.a.spd.add(policy('in', right, left, { requests: back!.requests }));
    return pair;
  }

  function between(src: number[], dst: number[]): Uint8Array {
    const p = sized(1000);
    p.set([...src, ...dst], ipv4.SRC_AT);
    ipv4.updateChecksum(p, 0);
    return p;
  }

  const THERE = between([10, 1, 0, 5], [10, 2, 0, 7]);
  const OTHER = between([10, 1, 0, 5], [10, 3, 0, 7]);

  test.each([
    ['too big', tooBig(THERE, 900, { src: router })],
    ['unreachable', icmpError(THERE, 3, 1, { src: router })],
    ['time exceeded', icmpError(THERE, 11, 0, { src: router })],
  ])('an error about a protected flow goes through its SA, and is handed on: %s', (_, error) => {
    const pair = networks();
    const [wire] = pair.b.output(error);
    expect(endsOf(wire!)).toBe(`${B[4]} > ${A[4]}`);
    expect(ipv4.protocol(wire!, 0)).toBe(50);
    expect(pair.a.input(wire!)).toEqual([error]);
    expect([pair.a.drops(), pair.b.drops()]).toEqual([{}, {}]);
  });

  test('without an SA it is dropped, and none is asked for', () => {
    const asked: number[] = [];
    const pair = networks();
    const b = new Rig({
      ...copying,
      events: {
        acquire: (one) => {
          asked.push(one.id);
          return 'asked';
        },
      },
    });
    for (const one of pair.b.spd.list('out')) b.spd.add(one);
    expect(b.output(icmpError(THERE, 3, 1, { src: router }))).toEqual([]);
    expect([b.drops(), asked, b.host.packetsHeld]).toEqual([{ 'out no-sa': 1 }, [], 0]);
  });

  test.each([
    ['none', 'none' as const, 1, {}],
    ['discard', 'discard' as const, 0, { 'out policy-discard': 1 }],
  ])('about a flow of type %s', (_, type, count, drops) => {
    const rig = new Rig();
    rig.spd.add(policy('out', right, left, { type }));
    expect(rig.output(icmpError(THERE, 3, 1, { src: router })).length).toBe(count);
    expect(rig.drops()).toEqual(drops);
  });

  test('a policy that names the error comes first', () => {
    const pair = networks();
    pair.b.spd.add(policy('out', '172.16.0.0/16', left, { type: 'none', protocol: 1 }));
    const error = icmpError(THERE, 3, 1, { src: router });
    expect(pair.b.output(error)).toEqual([error]);
  });

  /** As a peer would send it that checks nothing. */
  function throughTunnel(pair: Pair, inner: Uint8Array): Uint8Array[] {
    const [back] = pair.b.spd.list('out');
    pair.b.spd.flush();
    pair.b.spd.add(policy('out', '0.0.0.0/0', '0.0.0.0/0', { requests: back!.requests }));
    return pair.a.input(...pair.b.output(inner));
  }

  test.each([
    ['about a flow of others', icmpError(OTHER, 3, 1, { src: router })],
    ['to somebody else', icmpError(THERE, 3, 1, { src: router, dst: [10, 1, 0, 6] })],
    ['that quotes nothing', icmpError(THERE, 3, 1, { src: router, quotedLen: 0 })],
    ['that is no error', ipv4Packet({ protocol: 1 }, concat(hex('0800 f7ff 00000000')))],
  ])('what comes through a tunnel %s goes no further', (_, inner) => {
    const pair = networks();
    expect(throughTunnel(pair, inner)).toEqual([]);
    expect(pair.a.drops()).toEqual({ 'in policy-unprotected-selector': 1 });
  });

  test('nor does what comes through another tunnel than that of the flow', () => {
    const pair = networks();
    const other = { spi: 0x9001, src: B[4], dst: A[4], reqid: 9, mode: 'tunnel' } as const;
    for (const host of [pair.a, pair.b]) host.sad.add(sa(other), 'mature');
    pair.b.spd.flush();
    const requests = [request({ mode: 'tunnel', reqid: 9, src: B[4], dst: A[4] })];
    pair.b.spd.add(policy('out', '0.0.0.0/0', '0.0.0.0/0', { requests }));
    const error = icmpError(THERE, 3, 1, { src: router });
    expect(pair.a.input(...pair.b.output(error))).toEqual([]);
    expect(pair.a.drops()).toEqual({ 'in policy-unprotected-selector': 1 });
  });

  test('ports count, and a ping is answered by a reply', () => {
    const pair = networks();
    const [back] = pair.a.spd.list('in');
    pair.a.spd.flush();
    pair.a.spd.add(
      policy('in', right, left, {
        protocol: 17,
        sport: 2000,
        dport: 1000,
        requests: back!.requests,
      }),
    );
    pair.a.spd.add(policy('in', right, left, { protocol: 1, sport: 0, requests: back!.requests }));
    const echo = ipv4Packet({ protocol: 1 }, hex('0800 f7ff 00000000'));
    echo.set(THERE.subarray(12, 20), 12);
    const reply = echo.slice();
    reply[20] = 0;
    const otherPort = THERE.slice();
    setU16(otherPort, 22, 2001);
    const delivered = [THERE, otherPort, echo, reply].map(
      (about) => throughTunnel(pair, icmpError(about, 3, 1, { src: router })).length,
    );
    expect(delivered).toEqual([1, 0, 1, 1]);
  });
});

describe('in the clear, from whom no policy covers', () => {
  const requests = [request({})];

  test.each([
    ['a required', 'require' as const, 0],
    ['a used', 'use' as const, 1],
  ])('about a flow with %s protection', (_, level, count) => {
    const rig = new Rig();
    rig.spd.add(policy('in', '10.0.0.2/32', '10.0.0.1/32', { requests: [request({ level })] }));
    expect(rig.input(tooBig(sized(1400), 1000)).length).toBe(count);
    expect(rig.drops()).toEqual(count === 1 ? {} : { 'in icmp-flow-protected': 1 });
  });

  test('about other flows: as ever', () => {
    const rig = new Rig();
    rig.spd.add(policy('in', '10.0.0.3/32', '10.0.0.1/32', { requests }));
    rig.spd.add(policy('in', '10.0.0.2/32', '10.0.0.1/32', { type: 'none' }));
    const error = tooBig(sized(1400), 1000);
    expect(rig.input(error)).toEqual([error]);
  });

  test('a policy that names the error lets it in', () => {
    const rig = new Rig();
    rig.spd.add(policy('in', '10.0.0.2/32', '10.0.0.1/32', { requests }));
    rig.spd.add(policy('in', '192.0.2.0/24', '0.0.0.0/0', { type: 'none', protocol: 1 }));
    const error = tooBig(sized(1400), 1000);
    expect(rig.input(error)).toEqual([error]);
  });
});
