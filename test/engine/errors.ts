import { setU16 } from '../../src/wire/bytes.ts';
import * as checksum from '../../src/wire/checksum.ts';
import { Cursor, decode } from '../../src/wire/cursor.ts';
import * as icmp from '../../src/wire/icmp.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { concat } from '../wire/octets.ts';

/** Who answers if nobody else is named: a router that no policy speaks of. */
const ROUTER = {
  4: [192, 0, 2, 77],
  6: [0x20, 1, 0xd, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77],
} as const;

export interface ErrorOptions {
  /** The last 32 bits of the ICMP header: an MTU. */
  readonly rest?: number;
  readonly src?: readonly number[];
  /** To somebody else than who sent the packet. */
  readonly dst?: readonly number[];
  /** How much of the packet is quoted. */
  readonly quotedLen?: number;
}

/** What a router answers to a packet, with right checksums. */
export function icmpError(
  about: Uint8Array,
  type: number,
  code: number,
  options: ErrorOptions = {},
): Uint8Array {
  const family = about[0]! >> 4 === 4 ? 4 : 6;
  const header = family === 4 ? ipv4 : ipv6;
  const addressLen = family === 4 ? 4 : 16;
  const { rest = 0, quotedLen = 548 } = options;
  const quoted = about.slice(0, quotedLen);
  const p = concat(new Uint8Array(header.HEADER_LEN + icmp.HEADER_LEN), quoted);
  if (family === 4) ipv4.write(p, 0, 0, p.length, 7, 0, 60, 1);
  else ipv6.write(p, 0, 0, 0, p.length - ipv6.HEADER_LEN, 58, 60);
  p.set(options.src ?? ROUTER[family], header.SRC_AT);
  p.set(
    options.dst ?? about.slice(header.SRC_AT, header.SRC_AT + addressLen),
    header.SRC_AT + addressLen,
  );
  icmp.write(p, header.HEADER_LEN, type, code, rest);
  if (family === 4) ipv4.updateChecksum(p, 0);
  const cursor = new Cursor();
  decode(p, 0, p.length, cursor);
  setU16(p, header.HEADER_LEN + icmp.CHECKSUM_AT, checksum.transportChecksum(p, cursor));
  return p;
}

export function tooBig(about: Uint8Array, mtu: number, options: ErrorOptions = {}): Uint8Array {
  const [type, code] = about[0]! >> 4 === 4 ? [3, 4] : [2, 0];
  return icmpError(about, type, code, { ...options, rest: mtu });
}
