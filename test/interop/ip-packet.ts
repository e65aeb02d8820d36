import type { Address } from '../../src/base/address.ts';
import * as checksum from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';

const HOP_LIMIT = 64;

/**
 * An IP packet around an upper header whose checksum field is filled in here. `id`: the
 * identification of an IPv4 header.
 */
export function ipPacket(
  from: Address,
  to: Address,
  protocol: number,
  upper: Uint8Array,
  id: number,
): Uint8Array {
  const isIpv4 = from.family === 4;
  const header = isIpv4 ? ipv4 : ipv6;
  const p = new Uint8Array(header.HEADER_LEN + upper.length);
  if (isIpv4) ipv4.write(p, 0, 0, p.length, id, 0, HOP_LIMIT, protocol);
  else ipv6.write(p, 0, 0, 0, upper.length, protocol, HOP_LIMIT);
  p.set(from.bytes, header.SRC_AT);
  p.set(to.bytes, header.DST_AT);
  p.set(upper, header.HEADER_LEN);
  if (isIpv4) ipv4.updateChecksum(p, 0);
  const cursor = new Cursor();
  const bad = decode(p, 0, p.length, cursor);
  if (bad !== undefined) throw new Error(`not a packet: ${bad}`);
  checksum.updateTransportChecksum(p, cursor);
  return p;
}
