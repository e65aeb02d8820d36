import type { Errno } from '../base/errno.ts';
import { KeyError } from '../base/error.ts';
import { decodeHeader } from '../wire/pfkey.ts';
import { h16 } from '../wire/pfkey-bytes.ts';
import { decodeExtension } from '../wire/pfkey-decode.ts';
import {
  type Dialect,
  type ExtensionType,
  extension,
  type Message,
} from '../wire/pfkey-message.ts';
import { extensionByNumber, HEADER_LEN, PF_KEY_V2, UNIT } from '../wire/pfkey-table.ts';

/** What is wrong with a request, as KAME's pfkeystat counts it. */
export type RequestFault =
  | 'invlen'
  | 'invver'
  | 'invmsgtype'
  | 'tooshort'
  | 'nomem'
  | 'dupext'
  | 'invexttype'
  | 'invsatype'
  | 'invaddr';

export type Target = 'one' | 'all' | 'registered';

/** struct pfkeystat of KAME: `out` is from programs, `in` is to them. */
export class KeyStats {
  outTotal = 0;
  outBytes = 0;
  /** By the number of the message type on the wire. */
  readonly outTypes = new Map<number, number>();
  readonly faults: Record<RequestFault, number> = {
    invlen: 0,
    invver: 0,
    invmsgtype: 0,
    tooshort: 0,
    nomem: 0,
    dupext: 0,
    invexttype: 0,
    invsatype: 0,
    invaddr: 0,
  };
  inTotal = 0;
  inBytes = 0;
  readonly inTypes = new Map<number, number>();
  /** Messages by whom they are for, however many sockets that is. */
  readonly targets: Record<Target, number> = { one: 0, all: 0, registered: 0 };
  /** Messages that a socket had no room for. */
  inNoMemory = 0;

  /** A request arrived. */
  received(octets: Uint8Array): void {
    this.outTotal++;
    this.outBytes += octets.length;
    add(this.outTypes, octets[1] ?? 0);
  }

  /** A message was given to a socket. */
  sent(octets: Uint8Array): void {
    this.inTotal++;
    this.inBytes += octets.length;
    add(this.inTypes, octets[1]!);
  }

  fault(of: RequestFault | undefined): void {
    if (of !== undefined) this.faults[of]++;
  }
}

/** Which of the faults it is that `decode` has refused a message for. */
export function faultOfOctets(p: Uint8Array, dialect: Dialect): RequestFault {
  if (p.length < HEADER_LEN) return 'tooshort';
  const { length, version, type, satype } = decodeHeader(p);
  if (length !== p.length) return 'invlen';
  if (version !== PF_KEY_V2) return 'invver';
  if (type === undefined) return 'invmsgtype';
  if (satype === undefined) return 'invsatype';
  const seen = new Set<number>();
  for (let at = HEADER_LEN; at < p.length; ) {
    const len = h16(p, at) * UNIT;
    const number = h16(p, at + 2);
    const row = extensionByNumber(number, dialect);
    if (!row) return 'invexttype';
    if (len < row.minLen || len > p.length - at) return 'invlen';
    if (seen.has(number)) return 'dupext';
    seen.add(number);
    const isBad = !canBeDecoded(row.type, p.subarray(at, at + len), dialect);
    if (isBad)
      return row.type.includes('ADDRESS') || row.type.includes('_OA') ? 'invaddr' : 'invlen';
    at += len;
  }
  return 'invlen';
}

function canBeDecoded(type: ExtensionType, p: Uint8Array, dialect: Dialect): boolean {
  try {
    decodeExtension(type, p, dialect);
    return true;
  } catch (error) {
    if (error instanceof KeyError) return false;
    throw error;
  }
}

/** Which fault it is, if any, that a message was refused for that could be decoded (key_parse). */
export function faultOfMessage(message: Message, errno: Errno): RequestFault | undefined {
  if (errno === 'ENOBUFS' || errno === 'ENOMEM') return 'nomem';
  const { type, satype } = message;
  const aboutOneSa = ['GETSPI', 'UPDATE', 'ADD', 'DELETE', 'GET', 'ACQUIRE', 'EXPIRE'].includes(
    type,
  );
  if (aboutOneSa && satype !== 'esp' && satype !== 'ah') return 'invsatype';
  if (type.startsWith('X_SPD') && satype !== 'unspec') return 'invsatype';
  if (errno === 'EOPNOTSUPP' && isNeverIpsec(satype)) return 'invsatype';
  const src = extension(message, 'ADDRESS_SRC');
  const dst = extension(message, 'ADDRESS_DST');
  if (!src || !dst) return undefined;
  const differ = src.address.family !== dst.address.family || src.proto !== dst.proto;
  return differ ? 'invaddr' : undefined;
}

function isNeverIpsec(satype: Message['satype']): boolean {
  return ['rsvp', 'ospfv2', 'ripv2', 'mip'].includes(satype);
}

function add(to: Map<number, number>, key: number): void {
  to.set(key, (to.get(key) ?? 0) + 1);
}
