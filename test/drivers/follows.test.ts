import { describe, expect, test } from 'vitest';
import { followsBefore } from '../../src/drivers/follows.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import { packetFrom } from '../../src/wire/packet.ts';
import { PROTO } from '../../src/wire/protocol.ts';
import { concat, counting, ipv4Packet, ipv6Packet } from '../wire/octets.ts';

function upper(protocol: number): Uint8Array {
  const octets = concat(Uint8Array.of(1, 2, 3, 4, 0, 60), counting(54));
  return protocol === PROTO.TCP ? octets.fill(0x50, 12, 13) : octets;
}

function follows(packet: Uint8Array, before: Uint8Array): boolean {
  return followsBefore(packetFrom(packet), packetFrom(before));
}

/** The octets in which neighbours may differ, but not those behind `headersLen`. */
function free(packet: Uint8Array, headersLen: number): number[] {
  return Array.from({ length: headersLen }, (_, i) => i).filter((i) => {
    const other = packet.slice();
    other[i]! ^= 0x10;
    return follows(other, packet);
  });
}

const IDENTIFICATION_AND_CHECKSUM = [4, 5, 10, 11];

describe.each([
  ['TCP', PROTO.TCP, 4],
  ['UDP', PROTO.UDP, 6],
  ['ESP', PROTO.ESP, 4],
] as const)('packets of one %s flow follow one another', (_, protocol, upperLen) => {
  test('over IPv4, if nothing differs but identification and checksum', () => {
    const packet = ipv4Packet({ protocol }, upper(protocol));
    expect(free(packet, 20 + upperLen)).toEqual(IDENTIFICATION_AND_CHECKSUM);
    const longer = ipv4Packet({ protocol }, concat(upper(protocol), counting(1)));
    expect(follows(longer, packet) || follows(packet, longer)).toBe(false);
    expect(follows(packet.slice(0, -1), packet.slice(0, -1))).toBe(false);
  });

  test('over IPv6, if nothing differs', () => {
    const packet = ipv6Packet(protocol, upper(protocol));
    expect(follows(packet, packet)).toBe(true);
    expect(free(packet, 40 + upperLen)).toEqual([]);
    expect(follows(packet.slice(0, -1), packet.slice(0, -1))).toBe(false);
  });

  test('unless they are fragments, have options or extensions', () => {
    const fragment = ipv4Packet({ protocol, flags: ipv4.FLAG_MF }, upper(protocol));
    expect(follows(fragment, fragment)).toBe(false);
    const last = ipv4Packet({ protocol }, upper(protocol));
    ipv4.setFragment(last, 0, 0, 80);
    expect(follows(last, last)).toBe(false);
    const withOptions = ipv4Packet({ protocol }, upper(protocol));
    withOptions[0] = 0x46;
    expect(follows(withOptions, withOptions)).toBe(false);
    const extended = ipv6Packet(PROTO.DSTOPTS, concat(Uint8Array.of(protocol, 0), counting(60)));
    expect(follows(extended, extended)).toBe(false);
  });
});

test('other protocols, and what is too short, go by themselves', () => {
  const ping = ipv4Packet({ protocol: PROTO.ICMP }, counting(40));
  expect(follows(ping, ping)).toBe(false);
  for (const len of [0, 1, 20, 25]) {
    const packet = ipv4Packet({ protocol: PROTO.UDP }, counting(40)).slice(0, len);
    expect(follows(packet, packet)).toBe(false);
  }
  const six = ipv6Packet(PROTO.UDP, counting(5));
  expect(follows(six, six)).toBe(false);
});
