import { KeyError } from '../base/error.ts';
import type { SaFilter } from '../sad/sa-snapshot.ts';
import { h16 } from '../wire/pfkey-bytes.ts';
import { extension, type Message } from '../wire/pfkey-message.ts';
import { AF_INET, AF_INET6 } from '../wire/pfkey-table.ts';

/** Behind the head of the extension: two addresses of 16 octets, a family, two prefix lengths. */
const DST_AT = 16;
const FAMILY_AT = 32;
const SRC_LEN_AT = 34;
const DST_LEN_AT = 35;
/** Bits of a field that holds an address of either family. */
const FIELD_BITS = 128;

/**
 * SADB_X_EXT_FILTER of Linux: DUMP lists only SAs of one address family (any for a number that is
 * neither's) whose source and destination begin with so many bits. Undefined without the extension.
 * Throws KeyError EINVAL for prefixes of more than 128 bits.
 *
 *     0      4             20            36       38      39
 *     | head | source, 16  | dest., 16   | family | bits  | bits |
 */
export function dumpFilterOf(message: Message): SaFilter | undefined {
  const body = extension(message, 'X_FILTER')?.body;
  if (body === undefined) return undefined;
  const [srcBits, dstBits] = [body[SRC_LEN_AT]!, body[DST_LEN_AT]!];
  if (srcBits > FIELD_BITS || dstBits > FIELD_BITS) {
    const asked = `${srcBits} and ${dstBits}`;
    throw new KeyError('EINVAL', `X_FILTER: prefixes of ${asked} bits, ${FIELD_BITS} is the most`);
  }
  const number = h16(body, FAMILY_AT);
  const family = number === AF_INET ? 4 : number === AF_INET6.linux ? 6 : undefined;
  const [src, dst] = [body.subarray(0, DST_AT), body.subarray(DST_AT, FAMILY_AT)];
  return (spec) =>
    (family === undefined || spec.src.family === family) &&
    begins(spec.src.bytes, src, srcBits) &&
    begins(spec.dst.bytes, dst, dstBits);
}

/** Of an IPv4 address, the rest of the field counts as zeros, as in Linux's xfrm_address_t. */
function begins(address: Uint8Array, wanted: Uint8Array, bits: number): boolean {
  for (let i = 0; 8 * i < bits; i++) {
    const left = bits - 8 * i;
    const mask = left >= 8 ? 0xff : (0xff00 >> left) & 0xff;
    if ((((address[i] ?? 0) ^ wanted[i]!) & mask) !== 0) return false;
  }
  return true;
}
