import { KeyError } from '../base/error.ts';
import { h16, h32, setH16, setH32 } from './pfkey-bytes.ts';
import { decodeExtension } from './pfkey-decode.ts';
import { encodeExtension } from './pfkey-encode.ts';
import type { Dialect, Extension, Message, MessageType, SaType } from './pfkey-message.ts';
import {
  extensionByNumber,
  HEADER_LEN,
  MESSAGE_TYPES,
  messageName,
  PF_KEY_V2,
  SA_TYPES,
  saTypeName,
  UNIT,
} from './pfkey-table.ts';

/**
 * The PF_KEY v2 codec: octets of one message to a `Message` and back (RFC 2367 §2.3).
 *
 *   0        1        2        3        4                 6                 8        12       16
 *   +--------+--------+--------+--------+-----------------+-----------------+--------+--------+
 *   |version |type    |errno   |satype  |length / 8       |reserved         |seq     |pid     |
 *   +--------+--------+--------+--------+-----------------+-----------------+--------+--------+
 *   then extensions, each: length / 8 (16 bits), type (16 bits), body
 */

/**
 * The header as it is, so that a message with a broken body or of an unknown kind can still be
 * answered.
 */
export interface Header {
  readonly version: number;
  /** The number on the wire, and its name where it has one. */
  readonly typeNumber: number;
  readonly type: MessageType | undefined;
  readonly errno: number;
  readonly satypeNumber: number;
  readonly satype: SaType | undefined;
  /** Octets of the whole message. */
  readonly length: number;
  readonly reserved: number;
  readonly seq: number;
  readonly pid: number;
}

/** A length that cannot be framed: 64 Ki units minus one is what the field can say. */
export const MESSAGE_LEN_MAX = 0xffff * UNIT;

/**
 * Octets of the message that starts at `at`, for framing a stream; undefined while fewer than 16
 * octets are there. Throws EINVAL when the length is shorter than a header: nothing after it can be
 * framed any more.
 */
export function messageLength(p: Uint8Array, at = 0): number | undefined {
  if (p.length - at < HEADER_LEN) return undefined;
  const length = h16(p, at + 4) * UNIT;
  if (length < HEADER_LEN) {
    throw new KeyError('EINVAL', `sadb_msg_len says ${length} octets, a header has ${HEADER_LEN}`);
  }
  return length;
}

/** Reads the header alone; throws EINVAL when there are fewer than 16 octets. */
export function decodeHeader(p: Uint8Array): Header {
  if (p.length < HEADER_LEN) {
    throw new KeyError('EINVAL', `a message of ${p.length} octets, a header has ${HEADER_LEN}`);
  }
  return {
    version: p[0]!,
    typeNumber: p[1]!,
    type: messageName(p[1]!),
    errno: p[2]!,
    satypeNumber: p[3]!,
    satype: saTypeName(p[3]!),
    length: h16(p, 4) * UNIT,
    reserved: h16(p, 6),
    seq: h32(p, 8),
    pid: h32(p, 12),
  };
}

/**
 * The reply to a request that failed: its header, with the error. Works for any 16 octets, also of
 * an unknown type. Deviation: KAME echoes the whole request; we never send keys back.
 */
export function errorReply(request: Uint8Array, errno: number): Uint8Array {
  const reply = new Uint8Array(HEADER_LEN);
  reply.set(request.subarray(0, HEADER_LEN));
  reply[0] = PF_KEY_V2;
  reply[2] = errno;
  setH16(reply, 4, HEADER_LEN / UNIT);
  return reply;
}

/**
 * One whole message. Throws KeyError: EINVAL for what does not fit the format (length, version,
 * type, SA type, unknown, duplicate or short extension, prefix length), EAFNOSUPPORT for other
 * address families; as KAME's key_output, key_parse, key_align and the address part of
 * key_validate_ext. All octets are copied.
 */
export function decode(p: Uint8Array, dialect: Dialect): Message {
  const header = decodeHeader(p);
  if (header.length !== p.length) {
    throw new KeyError(
      'EINVAL',
      `sadb_msg_len says ${header.length} octets, there are ${p.length}`,
    );
  }
  if (header.version !== PF_KEY_V2) {
    throw new KeyError('EINVAL', `sadb_msg_version is ${header.version}, only 2 is known`);
  }
  const { type, satype, errno, seq, pid, reserved } = header;
  if (type === undefined) {
    throw new KeyError('EINVAL', `sadb_msg_type ${header.typeNumber} is unknown`);
  }
  if (satype === undefined) {
    throw new KeyError('EINVAL', `sadb_msg_satype ${header.satypeNumber} is unknown`);
  }
  const base = { type, errno, satype, seq, pid, reserved };
  if (type === 'X_PROMISC' && p.length > HEADER_LEN) {
    return { ...base, extensions: [], wrapped: p.slice(HEADER_LEN) };
  }
  return { ...base, extensions: decodeExtensions(p, dialect) };
}

/**
 * The octets of one message. Throws EINVAL for an extension that the dialect has no number for and
 * for values that do not fit their field, E2BIG for a message longer than its length field can say.
 */
export function encode(message: Message, dialect: Dialect): Uint8Array {
  const parts = message.extensions.map((one) => encodeExtension(one, dialect));
  if (message.wrapped) parts.push(message.wrapped);
  const length = parts.reduce((sum, part) => sum + part.length, HEADER_LEN);
  if (length > MESSAGE_LEN_MAX) {
    throw new KeyError('E2BIG', `a message of ${length} octets, at most ${MESSAGE_LEN_MAX} fit`);
  }
  const p = new Uint8Array(length);
  p[0] = PF_KEY_V2;
  p[1] = MESSAGE_TYPES[message.type];
  p[2] = message.errno;
  p[3] = SA_TYPES[message.satype];
  setH16(p, 4, length / UNIT);
  setH16(p, 6, message.reserved);
  setH32(p, 8, message.seq);
  setH32(p, 12, message.pid);
  let at = HEADER_LEN;
  for (const part of parts) {
    p.set(part, at);
    at += part.length;
  }
  return p;
}

function decodeExtensions(p: Uint8Array, dialect: Dialect): Extension[] {
  const extensions: Extension[] = [];
  const seen = new Set<number>();
  for (let at = HEADER_LEN; at < p.length; ) {
    // The message and all extensions are multiples of 8 octets: the 4 of the head are there.
    const length = h16(p, at) * UNIT;
    const number = h16(p, at + 2);
    const row = extensionByNumber(number, dialect);
    if (!row) throw new KeyError('EINVAL', `extension ${number} is unknown here`);
    if (length < row.minLen || length > p.length - at) {
      const room = `at least ${row.minLen}, and the message has ${p.length - at} left`;
      throw new KeyError('EINVAL', `extension ${row.type} has ${length} octets; it needs ${room}`);
    }
    if (seen.has(number)) {
      throw new KeyError('EINVAL', `extension ${row.type} is in the message twice`);
    }
    seen.add(number);
    extensions.push(decodeExtension(row.type, p.subarray(at, at + length), dialect));
    at += length;
  }
  return extensions;
}
