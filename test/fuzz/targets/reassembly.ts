import { Reassembly } from '../../../src/engine/reassembly.ts';
import { u16 } from '../../../src/wire/bytes.ts';
import { Cursor, decode } from '../../../src/wire/cursor.ts';
import * as ipv4 from '../../../src/wire/ipv4.ts';
import { PacketArena } from '../../../src/wire/packet.ts';
import { concat, counting, fragmentHeader, ipv4Packet, ipv6Packet } from '../../wire/octets.ts';
import { must, type Target } from '../target.ts';

const DATAGRAMS_MAX = 4;
const OCTETS_MAX = 8192;
const data = counting(66_000);

/**
 * Steps of 6 octets: family and flags, id, offset (2, of which the low bits choose the time),
 * length (2). The data are those of one datagram, so that what comes out can be foreseen unless a
 * step says to spoil them.
 */
function run(reassembly: Reassembly, arena: PacketArena, input: Uint8Array): void {
  const cursor = new Cursor();
  for (let at = 0; at + 6 <= input.length; at += 6) {
    const flags = input[at]!;
    const offset = (u16(input, at + 2) & 0x1fff) << 3;
    const len = u16(input, at + 4) & ((flags & 8) !== 0 ? 0xffff : 0x3ff);
    const piece = data.slice(offset, offset + Math.min(len, 65_400));
    if ((flags & 4) !== 0 && piece.length > 0) piece[0]! ^= 0xff;
    const more = (flags & 2) !== 0;
    const id = input[at + 1]! & 7;
    const p =
      (flags & 1) !== 0
        ? ipv6Packet(44, fragmentHeader(17, offset, more ? 1 : 0, id), piece)
        : ipv4Packet({ protocol: 17, id, flags: more ? ipv4.FLAG_MF : 0, offset }, piece);
    if (decode(p, 0, p.length, cursor) !== undefined || !cursor.isFragment) continue;
    const whole = reassembly.add(p, cursor, (flags & 0xf0) * 1000);
    must(reassembly.size <= DATAGRAMS_MAX, 'datagrams are bounded');
    must(reassembly.octets <= OCTETS_MAX, 'octets are bounded');
    if (whole === undefined) continue;
    must(decode(whole.bytes, whole.at, whole.end, cursor) === undefined, 'the whole can be read');
    must(!cursor.isFragment && cursor.end === whole.end, 'the whole is whole');
    arena.give(whole);
  }
  must(arena.available === 1, 'the buffer is back');
}

function step(flags: number, offset: number, len: number): Uint8Array {
  return Uint8Array.of(flags, 1, offset >> 11, offset >> 3, len >> 8, len);
}

export const reassembly: Target = {
  name: 'reassembly',
  lenMax: 240,
  seeds: () => [
    concat(step(2, 0, 16), step(2, 16, 16), step(0, 32, 5)),
    concat(step(3, 32, 16), step(3, 0, 32), step(1, 48, 5)),
    concat(step(3, 0, 16), step(3, 8, 16)),
    concat(step(0, 65_528, 7), step(2, 0, 16)),
  ],
  create: () => {
    const arena = new PacketArena(1);
    const made = new Reassembly({
      take: () => arena.take(),
      dropped: (_, fragments) => must(fragments > 0, 'only what there was is dropped'),
      datagramsMax: DATAGRAMS_MAX,
      octetsMax: OCTETS_MAX,
      fragmentsMax: 12,
    });
    return (input) => run(made, arena, input);
  },
};
