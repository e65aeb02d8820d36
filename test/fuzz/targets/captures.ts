import { KeyError } from '../../../src/base/error.ts';
import { readCapture } from '../../../src/wire/capture.ts';
import { LINKTYPE } from '../../../src/wire/linktype.ts';
import { pcapHeader, pcapRecord } from '../../../src/wire/pcap.ts';
import { pcapngHeader, pcapngRecord } from '../../../src/wire/pcapng.ts';
import { concat, counting, ipv4Packet, ipv6Packet, udp } from '../../wire/octets.ts';
import { must, type Target } from '../target.ts';

function run(input: Uint8Array): void {
  try {
    let count = 0;
    for (const packet of readCapture(input)) {
      must(packet.at <= packet.end && packet.end <= input.length, 'the packet is in the file');
      must(++count <= input.length, 'not more packets than octets');
    }
  } catch (error) {
    if (!(error instanceof KeyError)) throw error;
  }
}

function seeds(): Uint8Array[] {
  const packets = [ipv4Packet({ protocol: 17 }, udp(counting(5))), ipv6Packet(59)];
  const now = 1_700_000_000_123;
  return Object.values(LINKTYPE).flatMap((linktype) => [
    concat(
      pcapHeader(linktype),
      ...packets.map((packet) => pcapRecord(packet, 0, packet.length, now)),
    ),
    concat(
      pcapngHeader(linktype),
      ...packets.map((packet) => pcapngRecord(packet, 0, packet.length, now, 'a comment')),
    ),
  ]);
}

export const captures: Target = {
  name: 'captures',
  lenMax: 4000,
  words: [Uint8Array.of(6, 0, 0, 0), Uint8Array.of(1, 0, 0, 0), Uint8Array.of(3, 0, 0, 0)],
  seeds,
  create: () => run,
};
