import { type Address, addressFrom } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import { setU16, u16 } from './bytes.ts';
import { h16, h32, setH16, setH32 } from './pfkey-bytes.ts';
import type { Dialect } from './pfkey-message.ts';
import { AF_INET, AF_INET6 } from './pfkey-table.ts';

/**
 *   0       2        4              8                                    24
 *   +-------+--------+--------------+
 *   |family | port   | address      | 8 zeros                               sockaddr_in,  16 octets
 *   +-------+--------+--------------+----------------------------+--------+
 *   |family | port   | flow info    | address                    | scope  | sockaddr_in6, 28 octets
 *   +-------+--------+--------------+----------------------------+--------+
 *
 * Linux has a family of 16 bits in host order; BSD one octet of length, then one of family.
 */
export const SOCKADDR_LEN = { 4: 16, 6: 28 } as const;

export interface Sockaddr {
  readonly address: Address;
  readonly port: number;
  /** Interface of a link-local IPv6 address; 0 otherwise. */
  readonly scopeId: number;
}

/**
 * Reads the sockaddr at `at`, which must end by `end`. `what` names it in errors: EINVAL,
 * EAFNOSUPPORT.
 */
export function readSockaddr(
  p: Uint8Array,
  at: number,
  end: number,
  dialect: Dialect,
  what: string,
): Sockaddr {
  if (end - at < 2) throw new KeyError('EINVAL', `${what} has no room for a sockaddr`);
  const family = sockaddrFamily(p, at, dialect, what);
  const len = SOCKADDR_LEN[family];
  if (end - at < len) {
    throw new KeyError('EINVAL', `${what} has ${end - at} octets for a sockaddr of ${len}`);
  }
  if (dialect === 'bsd' && p[at] !== len) {
    throw new KeyError('EINVAL', `${what}: sa_len is ${p[at]}, IPv${family} wants ${len}`);
  }
  const port = u16(p, at + 2);
  if (family === 4) return { address: addressFrom(4, p, at + 4), port, scopeId: 0 };
  return { address: addressFrom(6, p, at + 8), port, scopeId: h32(p, at + 24) };
}

/** Writes a sockaddr into zeroed octets and returns its length. */
export function writeSockaddr(p: Uint8Array, at: number, of: Sockaddr, dialect: Dialect): number {
  const { address } = of;
  const len = SOCKADDR_LEN[address.family];
  const family = address.family === 4 ? AF_INET : AF_INET6[dialect];
  if (dialect === 'bsd') {
    p[at] = len;
    p[at + 1] = family;
  } else {
    setH16(p, at, family);
  }
  setU16(p, at + 2, of.port);
  p.set(address.bytes, address.family === 4 ? at + 4 : at + 8);
  if (address.family === 6) setH32(p, at + 24, of.scopeId);
  return len;
}

function sockaddrFamily(p: Uint8Array, at: number, dialect: Dialect, what: string): 4 | 6 {
  const family = dialect === 'bsd' ? p[at + 1]! : h16(p, at);
  if (family === AF_INET) return 4;
  if (family === AF_INET6[dialect]) return 6;
  throw new KeyError('EAFNOSUPPORT', `${what} is of address family ${family}, not IPv4 or IPv6`);
}
