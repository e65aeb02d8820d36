import { ADDRESS_BITS } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import { u16, u32 } from './bytes.ts';
import { h16, h32, h64 } from './pfkey-bytes.ts';
import type {
  Comb,
  Dialect,
  Extension,
  ExtensionType,
  PolicyRequest,
  SupportedAlgorithm,
} from './pfkey-message.ts';
import { readSockaddr, SOCKADDR_LEN, type Sockaddr } from './pfkey-sockaddr.ts';
import { REQUEST_LEN } from './pfkey-table.ts';

const COMB_LEN = 72;
const ALGORITHM_LEN = 8;

/**
 * The extension in `p`, whose length the caller has checked against the table. The offsets in each
 * branch are those of the struct in net/pfkeyv2.h. Throws KeyError EINVAL or EAFNOSUPPORT that
 * names extension and field.
 */
export function decodeExtension(type: ExtensionType, p: Uint8Array, dialect: Dialect): Extension {
  switch (type) {
    case 'SA':
      return {
        type,
        spi: u32(p, 4),
        replay: p[8]!,
        state: p[9]!,
        auth: p[10]!,
        encrypt: p[11]!,
        flags: h32(p, 12),
      };
    case 'LIFETIME_CURRENT':
    case 'LIFETIME_HARD':
    case 'LIFETIME_SOFT':
      return {
        type,
        allocations: h32(p, 4),
        bytes: h64(p, 8),
        addTime: h64(p, 16),
        useTime: h64(p, 24),
      };
    case 'ADDRESS_SRC':
    case 'ADDRESS_DST':
    case 'ADDRESS_PROXY':
      return { type, ...prefixBody(type, p, dialect) };
    case 'X_NAT_T_OAI':
    case 'X_NAT_T_OAR':
    case 'X_NEW_ADDRESS_SRC':
    case 'X_NEW_ADDRESS_DST': {
      const { scopeId: _, ...body } = prefixBody(type, p, dialect);
      return { type, ...body };
    }
    case 'KEY_AUTH':
    case 'KEY_ENCRYPT':
      return { type, ...keyBody(type, p) };
    case 'IDENTITY_SRC':
    case 'IDENTITY_DST':
      return { type, idType: h16(p, 4), id: h64(p, 8), text: paddedText(p, 16) };
    case 'PROPOSAL':
      return { type, replay: p[4]!, combs: entries(type, p, COMB_LEN).map((at) => comb(p, at)) };
    case 'SUPPORTED_AUTH':
    case 'SUPPORTED_ENCRYPT':
      return {
        type,
        algorithms: entries(type, p, ALGORITHM_LEN).map((at) => supported(p, at)),
      };
    case 'SPIRANGE':
      return { type, min: h32(p, 4), max: h32(p, 8) };
    case 'X_POLICY':
      return {
        type,
        policyType: h16(p, 4),
        direction: p[6]!,
        reserved: p[7]!,
        id: h32(p, 8),
        priority: h32(p, 12),
        requests: policyRequests(p, dialect),
      };
    default:
      return decodeSmall(type, p);
  }
}

/** Those of a few octets, apart because of the length of the one above only. */
function decodeSmall(type: Exclude<ExtensionType, 'SA' | 'X_POLICY'>, p: Uint8Array): Extension {
  switch (type) {
    case 'X_SA2':
      return { type, mode: p[4]!, sequence: h32(p, 8), reqid: h32(p, 12) };
    case 'X_NAT_T_TYPE':
      return { type, encapsulation: p[4]! };
    case 'X_NAT_T_SPORT':
    case 'X_NAT_T_DPORT':
      return { type, port: u16(p, 4) };
    case 'X_NAT_T_FRAG':
      return { type, fragmentLen: h16(p, 4) };
    case 'X_SA_REPLAY':
      return { type, packets: h32(p, 4) };
    case 'X_SEC_CTX': {
      const len = h16(p, 6);
      if (len > p.length - 8) {
        throw new KeyError('EINVAL', `X_SEC_CTX: a context of ${len} octets in ${p.length - 8}`);
      }
      return { type, algorithm: p[4]!, doi: p[5]!, context: p.slice(8, 8 + len) };
    }
    case 'X_TESTUDO':
      return testudo(p);
    case 'SENSITIVITY':
    case 'X_KMPRIVATE':
    case 'X_TAG':
    case 'X_PACKET':
    case 'X_KMADDRESS':
    case 'X_FILTER':
      return { type, body: p.slice(4) };
    default:
      throw new Error(`assertion failed: extension ${type} has no decoder`);
  }
}

function prefixBody(
  type: ExtensionType,
  p: Uint8Array,
  dialect: Dialect,
): Sockaddr & { proto: number; prefixLen: number } {
  const sockaddr = readSockaddr(p, 8, p.length, dialect, type);
  const prefixLen = p[5]!;
  const { family } = sockaddr.address;
  if (prefixLen > ADDRESS_BITS[family]) {
    throw new KeyError(
      'EINVAL',
      `${type}: prefix length ${prefixLen}, IPv${family} has ${ADDRESS_BITS[family]} bits`,
    );
  }
  return { proto: p[4]!, prefixLen, ...sockaddr };
}

function keyBody(type: ExtensionType, p: Uint8Array): { bits: number; key: Uint8Array } {
  const bits = h16(p, 4);
  const len = Math.ceil(bits / 8);
  if (len > p.length - 8) {
    throw new KeyError('EINVAL', `${type}: ${bits} bits do not fit its ${p.length - 8} octets`);
  }
  return { bits, key: p.slice(8, 8 + len) };
}

/** One character per octet, so that every identity comes back as it was. */
function paddedText(p: Uint8Array, at: number): string {
  let end = p.length;
  while (end > at && p[end - 1] === 0) end--;
  return String.fromCharCode(...p.subarray(at, end));
}

/** Offsets of the fixed entries after an 8-octet head. */
function entries(type: ExtensionType, p: Uint8Array, size: number): number[] {
  const room = p.length - 8;
  if (room % size !== 0) {
    throw new KeyError('EINVAL', `${type}: ${room} octets are no multiple of its entries' ${size}`);
  }
  return Array.from({ length: room / size }, (_, i) => 8 + i * size);
}

function comb(p: Uint8Array, at: number): Comb {
  return {
    auth: p[at]!,
    encrypt: p[at + 1]!,
    flags: h16(p, at + 2),
    authBits: { min: h16(p, at + 4), max: h16(p, at + 6) },
    encryptBits: { min: h16(p, at + 8), max: h16(p, at + 10) },
    soft: {
      allocations: h32(p, at + 16),
      bytes: h64(p, at + 24),
      addTime: h64(p, at + 40),
      useTime: h64(p, at + 56),
    },
    hard: {
      allocations: h32(p, at + 20),
      bytes: h64(p, at + 32),
      addTime: h64(p, at + 48),
      useTime: h64(p, at + 64),
    },
  };
}

function supported(p: Uint8Array, at: number): SupportedAlgorithm {
  return { id: p[at]!, ivLen: p[at + 1]!, minBits: h16(p, at + 2), maxBits: h16(p, at + 4) };
}

/**
 * The sadb_x_ipsecrequests after sadb_x_policy; their lengths count octets, and the last may be
 * followed by padding.
 */
function policyRequests(p: Uint8Array, dialect: Dialect): PolicyRequest[] {
  const requests: PolicyRequest[] = [];
  const fixed = REQUEST_LEN[dialect];
  let at = 16;
  while (p.length - at >= fixed) {
    const len = h16(p, at);
    if (len < fixed || len > p.length - at) {
      const room = `${fixed} to ${p.length - at}`;
      throw new KeyError('EINVAL', `X_POLICY: a request of ${len} octets, ${room} are possible`);
    }
    requests.push(policyRequest(p.subarray(at, at + len), dialect));
    at += len;
  }
  // The whole extension is rounded up to 8, and requests are not.
  if (p.length - at >= 8) {
    throw new KeyError('EINVAL', `X_POLICY: ${p.length - at} octets are left after its requests`);
  }
  return requests;
}

function policyRequest(p: Uint8Array, dialect: Dialect): PolicyRequest {
  const fixed = REQUEST_LEN[dialect];
  const head = {
    proto: h16(p, 2),
    mode: p[4]!,
    level: p[5]!,
    reqid: dialect === 'linux' ? h32(p, 8) : h16(p, 6),
  };
  if (p.length === fixed) return head;
  const src = readSockaddr(p, fixed, p.length, dialect, 'X_POLICY: source of a request');
  const dstAt = fixed + SOCKADDR_LEN[src.address.family];
  const dst = readSockaddr(p, dstAt, p.length, dialect, 'X_POLICY: destination of a request');
  if (src.address.family !== dst.address.family) {
    throw new KeyError('EINVAL', 'X_POLICY: a request from one address family to the other');
  }
  return {
    ...head,
    src: { address: src.address, port: src.port },
    dst: { address: dst.address, port: dst.port },
  };
}

const DF = ['default', 'clear', 'set', 'copy'] as const;
const ECN = ['default', 'forbidden', 'allowed'] as const;

/**
 *   0        2        4              8           9         10    11    12          16
 *   |len 2   |type 64 |replay window |zero       |AH align |DF   |ECN  |zero       |
 */
function testudo(p: Uint8Array): Extension {
  const ahAlign = p[9];
  const df = DF[p[10]!];
  const ecn = ECN[p[11]!];
  if (ahAlign !== 0 && ahAlign !== 4 && ahAlign !== 8) {
    throw new KeyError('EINVAL', `X_TESTUDO: AH alignment ${ahAlign}, it is 0, 4 or 8`);
  }
  if (!df) throw new KeyError('EINVAL', `X_TESTUDO: DF choice ${p[10]}, 0 to 3 are known`);
  if (!ecn) throw new KeyError('EINVAL', `X_TESTUDO: ECN choice ${p[11]}, 0 to 2 are known`);
  return { type: 'X_TESTUDO', replayPackets: h32(p, 4), ahAlign, df, ecn };
}
