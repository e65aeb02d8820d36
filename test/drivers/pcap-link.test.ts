import { expect, test } from 'vitest';
import { memoryPair } from '../../src/drivers/memory.ts';
import { pcapLink } from '../../src/drivers/pcap-link.ts';
import { fromHex, toHex } from '../../src/wire/bytes.ts';
import { packetFrom } from '../../src/wire/packet.ts';
import { readPcap } from '../../src/wire/pcap.ts';

test('what goes through the link is in the file, in order, with the time', () => {
  const [a, b] = memoryPair();
  const file: number[] = [];
  let now = 1_700_000_000_000;
  const clock = { wallMs: () => now++, monotonicMs: () => 0 };
  const link = pcapLink(a, (octets) => file.push(...octets), clock);
  expect(file.length).toBe(24);
  const first = fromHex('450000150000400040fd3b5dc0000201c0000202aa');
  const second = fromHex('450000150000400040fd3b5dc0000202c0000201bb');
  link.receive(() => {});
  link.send([packetFrom(first), packetFrom(second)], 1);
  b.send([packetFrom(second)], 1);
  const packets = [...readPcap(Uint8Array.from(file))];
  expect(packets.map(({ bytes, at, end }) => toHex(bytes, at, end))).toEqual(
    [first, second].map((octets) => toHex(octets)),
  );
  expect(packets.map(({ wallMs }) => wallMs)).toEqual([1_700_000_000_000, 1_700_000_000_001]);
});
