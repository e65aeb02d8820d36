import { fromHex, u8, viewOf } from '../../../src/wire/bytes.ts';
import * as checksum from '../../../src/wire/checksum.ts';
import { Cursor, decode } from '../../../src/wire/cursor.ts';
import { dissect, hexDump } from '../../../src/wire/dissect.ts';
import * as ipv4 from '../../../src/wire/ipv4.ts';
import { CAPTURED, linuxFrames, scapyPackets } from '../../wire/octets.ts';
import { repair } from '../repair.ts';
import { must, type Target } from '../target.ts';

const cursor = new Cursor();

/** The first octet says whether lengths are made right first; the rest is an IP packet. */
function run(input: Uint8Array): void {
  const p = input.slice(1);
  if ((input[0] ?? 0) < 128) repair(p, 0, p.length, () => false);
  must(dissect(p).length > 0, 'dissect says something');
  hexDump(p);
  if (decode(p, 0, p.length, cursor) !== undefined) return;
  const { at, end, upperAt, insertAt, protocolAt, insertProtocolAt } = cursor;
  must(end <= p.length && at === 0, 'the packet is within the octets');
  must(upperAt <= end && insertAt <= upperAt && insertAt > 0, 'headers are within the packet');
  must(protocolAt < upperAt && insertProtocolAt < insertAt, 'protocols are within the headers');
  must(u8(p, protocolAt) === cursor.protocol, 'the protocol is where it is said to be');
  must(cursor.fragmentOffset === 0 || !cursor.portsKnown, 'later fragments have no ports');
  if (cursor.family === 4) ipv4.checksumOk(viewOf(p), at);
  checksum.updateTransportChecksum(p, cursor);
  must(checksum.transportChecksumOk(p, cursor), 'a checksum that was made is right');
}

export const wire: Target = {
  name: 'wire',
  lenMax: 3000,
  words: [0, 43, 44, 50, 51, 58, 60].map((protocol) => Uint8Array.of(protocol, 0)),
  seeds: () =>
    [
      ...Object.values(CAPTURED),
      ...linuxFrames().map(({ frame }) => fromHex(frame).slice(14)),
      ...scapyPackets(),
    ].map((packet) => Uint8Array.of(0, ...packet)),
  create: () => run,
};
