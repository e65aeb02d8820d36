import { ADDRESS_LEN } from '../base/address.ts';
import { equal } from '../wire/bytes.ts';
import type { Cursor } from '../wire/cursor.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';

/**
 * Whether two decoded packets have everything in common that policy goes by, and headers of one
 * length. Only for TCP and UDP: fragments, and what ICMP errors quote, are told apart by more.
 */
export function isSameFlow(packet: Packet, cursor: Cursor, other: Packet, before: Cursor): boolean {
  const { family, protocol } = cursor;
  return (
    (protocol === PROTO.TCP || protocol === PROTO.UDP) &&
    protocol === before.protocol &&
    cursor.sport === before.sport &&
    cursor.dport === before.dport &&
    family === before.family &&
    cursor.portsKnown &&
    before.portsKnown &&
    !cursor.isFragment &&
    !before.isFragment &&
    cursor.insertAt - cursor.at === before.insertAt - before.at &&
    // Both headers have the destination right behind the source.
    equal(packet.bytes, cursor.srcAt, other.bytes, before.srcAt, 2 * ADDRESS_LEN[family])
  );
}
