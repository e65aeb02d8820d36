import { parseAddress } from '../base/address.ts';
import { u32 } from '../wire/bytes.ts';
import { parseNumber } from './cursor.ts';

/** A GRE key (RFC 2890 §2.1): 32 bits, written as a number or as a dotted quad. */
export function parseIpv4Number(text: string): number | undefined {
  const number = parseNumber(text);
  if (number !== undefined) return number <= 0xffffffff ? number : undefined;
  const quad = parseAddress(text);
  return quad?.family === 4 ? u32(quad.bytes, 0) : undefined;
}
