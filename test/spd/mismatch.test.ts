import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MismatchFinder } from '../../src/spd/mismatch.ts';
import { Spd } from '../../src/spd/spd.ts';
import { setU8, setU16 } from '../../src/wire/bytes.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { policy } from '../engine/rig.ts';
import { concat, counting, fragmentHeader, ipv4Packet, ipv6Packet, udp } from '../wire/octets.ts';

const clock = { monotonicMs: () => 0, wallMs: () => 0 };

/** Few values, so that most things meet. */
const small = fc.constantFrom(0, 1, 2, 127);
const protocol = fc.constantFrom(6, 17, 255);
const port = fc.constantFrom(-1, 0, 1, 2);

const given = fc.record({
  family: fc.constantFrom(4 as const, 6 as const),
  packet: fc.record({
    ...{ src: small, dst: small, protocol: fc.constantFrom(6, 17), sport: small, dport: small },
    shape: fc.constantFrom('whole', 'fragment', 'later', 'cut', 'hidden'),
  }),
  policies: fc.array(
    fc.record({
      ...{
        src: small,
        srcLen: fc.constantFrom(0, 8, 32),
        dst: small,
        dstLen: fc.constantFrom(0, 8, 32),
      },
      ...{ protocol, sport: port, dport: port, priority: fc.constantFrom(0, 1) },
    }),
    { maxLength: 8 },
  ),
});

type Given = typeof given extends fc.Arbitrary<infer T> ? T : never;

function packetOf({ family, packet }: Given): Uint8Array {
  const { src, dst, protocol: upper, sport, dport, shape } = packet;
  const data = udp(counting(16));
  setU16(data, 0, sport);
  setU16(data, 2, dport);
  if (shape === 'cut') return cut(family, upper, src, dst);
  const isFragment = shape !== 'whole';
  const offset = shape === 'later' ? 8 : 0;
  if (family === 4) {
    const flags = isFragment ? ipv4.FLAG_MF : 0;
    return between(ipv4Packet({ protocol: upper, flags, offset }, data), 4, src, dst);
  }
  if (!isFragment) return between(ipv6Packet(upper, data), 6, src, dst);
  // Options behind the fragment header: only the first fragment knows the upper protocol.
  const isHidden = shape === 'hidden';
  const rest = isHidden ? concat(Uint8Array.of(upper, 0, 1, 4, 0, 0, 0, 0), data) : data;
  const header = fragmentHeader(isHidden ? 60 : upper, offset, 1, 7);
  return between(ipv6Packet(44, header, rest), 6, src, dst);
}

function cut(family: 4 | 6, upper: number, src: number, dst: number): Uint8Array {
  const none = new Uint8Array(2);
  const p = family === 4 ? ipv4Packet({ protocol: upper }, none) : ipv6Packet(upper, none);
  return between(p, family, src, dst);
}

/** 1.0.0.2 > 2.0.0.2, or 1::2 > 2::2; 127.0.0.2 is of the loopback network. */
function between(p: Uint8Array, family: 4 | 6, src: number, dst: number): Uint8Array {
  const [srcAt, dstAt] = family === 4 ? [ipv4.SRC_AT, ipv4.DST_AT] : [ipv6.SRC_AT, ipv6.DST_AT];
  const len = dstAt - srcAt;
  p.fill(0, srcAt, dstAt + len);
  for (const [at, first] of [
    [srcAt, src],
    [dstAt, dst],
  ] as const) {
    setU8(p, family === 4 ? at : at + 1, first);
    setU8(p, at + len - 1, 2);
  }
  // ::2 and not ::1, but for one.
  if (family === 6 && src === 0) setU8(p, srcAt + 15, 1);
  if (family === 4) ipv4.updateChecksum(p, 0);
  return p;
}

function prefixText(family: 4 | 6, first: number, len: number): string {
  if (family === 4) return `${first}.0.0.2/${len}`;
  return `${first.toString(16)}::2/${len === 32 ? 128 : 2 * len}`;
}

test('the first policy that nothing is wrong with is the one that is found', () => {
  fc.assert(
    fc.property(given, (one) => {
      const { family, policies } = one;
      const spd = new Spd({ clock });
      for (const { src, srcLen, dst, dstLen, ...rest } of policies) {
        const ends = [prefixText(family, src, srcLen), prefixText(family, dst, dstLen)] as const;
        spd.update(policy('out', ...ends, rest));
      }
      const p = packetOf(one);
      const cursor = new Cursor();
      expect(decode(p, 0, p.length, cursor)).toBeUndefined();
      const found = spd.lookup('out', p, cursor);
      const finder = new MismatchFinder(p, cursor);
      const first = spd.list('out').find((each) => finder.of(each) === undefined);
      if (found === 'ports-unknown') expect(first).toBeDefined();
      else expect(first ?? 'none').toBe(found);
    }),
    { numRuns: 2000 },
  );
});
