import { KeyError } from '../base/error.ts';
import { setU16, setU32 } from './bytes.ts';
import { setH16, setH32, setH64 } from './pfkey-bytes.ts';
import type {
  Comb,
  Dialect,
  Endpoint,
  Extension,
  PolicyExtension,
  PolicyRequest,
  TestudoExtension,
} from './pfkey-message.ts';
import { SOCKADDR_LEN, type Sockaddr, writeSockaddr } from './pfkey-sockaddr.ts';
import { extensionRow, REQUEST_LEN, UNIT } from './pfkey-table.ts';

const DF = { default: 0, clear: 1, set: 2, copy: 3 } as const;
const ECN = { default: 0, forbidden: 1, allowed: 2 } as const;

/** The octets of one extension, padded to 8; the inverse of `decodeExtension`. */
export function encodeExtension(one: Extension, dialect: Dialect): Uint8Array {
  const number = extensionRow(one.type)[dialect];
  if (number === 0) {
    throw new KeyError('EINVAL', `extension ${one.type} has no number in the ${dialect} dialect`);
  }
  const p = body(one, dialect);
  if (p.length / UNIT > 0xffff) {
    throw new KeyError('E2BIG', `extension ${one.type} of ${p.length} octets is too long`);
  }
  setH16(p, 0, p.length / UNIT);
  setH16(p, 2, number);
  return p;
}

function body(one: Extension, dialect: Dialect): Uint8Array {
  switch (one.type) {
    case 'SA': {
      const p = zeros(16);
      setU32(p, 4, one.spi);
      p.set([one.replay, one.state, one.auth, one.encrypt], 8);
      setH32(p, 12, one.flags);
      return p;
    }
    case 'LIFETIME_CURRENT':
    case 'LIFETIME_HARD':
    case 'LIFETIME_SOFT': {
      const p = zeros(32);
      setH32(p, 4, one.allocations);
      setH64(p, 8, one.bytes);
      setH64(p, 16, one.addTime);
      setH64(p, 24, one.useTime);
      return p;
    }
    case 'ADDRESS_SRC':
    case 'ADDRESS_DST':
    case 'ADDRESS_PROXY':
      return addressBody(one, dialect);
    case 'X_NAT_T_OAI':
    case 'X_NAT_T_OAR':
    case 'X_NEW_ADDRESS_SRC':
    case 'X_NEW_ADDRESS_DST':
      return addressBody({ ...one, scopeId: 0 }, dialect);
    case 'KEY_AUTH':
    case 'KEY_ENCRYPT':
      return keyBody(one.type, one.bits, one.key);
    case 'IDENTITY_SRC':
    case 'IDENTITY_DST':
      return identityBody(one.type, one.idType, one.id, one.text);
    case 'PROPOSAL': {
      const p = zeros(8 + 72 * one.combs.length);
      p[4] = one.replay;
      for (const [i, comb] of one.combs.entries()) writeComb(p, 8 + 72 * i, comb);
      return p;
    }
    case 'SUPPORTED_AUTH':
    case 'SUPPORTED_ENCRYPT': {
      const p = zeros(8 + 8 * one.algorithms.length);
      for (const [i, algorithm] of one.algorithms.entries()) {
        const at = 8 + 8 * i;
        p.set([algorithm.id, algorithm.ivLen], at);
        setH16(p, at + 2, algorithm.minBits);
        setH16(p, at + 4, algorithm.maxBits);
      }
      return p;
    }
    case 'X_POLICY':
      return policyBody(one, dialect);
    default:
      return smallBody(one);
  }
}

function smallBody(one: Extension): Uint8Array {
  const p = zeros(one.type === 'X_SA2' || one.type === 'SPIRANGE' ? 16 : 8);
  switch (one.type) {
    case 'SPIRANGE':
      setH32(p, 4, one.min);
      setH32(p, 8, one.max);
      return p;
    case 'X_SA2':
      p[4] = one.mode;
      setH32(p, 8, one.sequence);
      setH32(p, 12, one.reqid);
      return p;
    case 'X_NAT_T_TYPE':
      p[4] = one.encapsulation;
      return p;
    case 'X_NAT_T_SPORT':
    case 'X_NAT_T_DPORT':
      setU16(p, 4, one.port);
      return p;
    case 'X_NAT_T_FRAG':
      setH16(p, 4, one.fragmentLen);
      return p;
    case 'X_SA_REPLAY':
      setH32(p, 4, one.packets);
      return p;
    case 'X_SEC_CTX': {
      const context = padded(8, one.context);
      context.set([one.algorithm, one.doi], 4);
      setH16(context, 6, one.context.length);
      return context;
    }
    case 'X_TESTUDO':
      return testudoBody(one);
    case 'SENSITIVITY':
    case 'X_KMPRIVATE':
    case 'X_TAG':
    case 'X_PACKET':
    case 'X_KMADDRESS':
    case 'X_FILTER':
      return padded(4, one.body);
    default:
      throw new Error(`assertion failed: extension ${one.type} has no encoder`);
  }
}

function addressBody(
  one: Sockaddr & { readonly proto: number; readonly prefixLen: number },
  dialect: Dialect,
): Uint8Array {
  const p = zeros(8 + SOCKADDR_LEN[one.address.family]);
  p.set([one.proto, one.prefixLen], 4);
  writeSockaddr(p, 8, one, dialect);
  return p;
}

function keyBody(type: string, bits: number, key: Uint8Array): Uint8Array {
  if (key.length !== Math.ceil(bits / 8) || bits > 0xffff) {
    throw new KeyError('EINVAL', `${type}: ${bits} bits, but ${key.length} octets of key`);
  }
  const p = padded(8, key);
  setH16(p, 4, bits);
  return p;
}

function identityBody(type: string, idType: number, id: number, text: string): Uint8Array {
  // A zero octet always ends the string (RFC 2367 §2.3.5); an empty one has none, as KAME sends it.
  const octets = new Uint8Array(text.length === 0 ? 0 : text.length + 1);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 255) throw new KeyError('EINVAL', `${type}: "${text}" has more than octets in it`);
    octets[i] = code;
  }
  const p = padded(16, octets);
  setH16(p, 4, idType);
  setH64(p, 8, id);
  return p;
}

function writeComb(p: Uint8Array, at: number, comb: Comb): void {
  p.set([comb.auth, comb.encrypt], at);
  setH16(p, at + 2, comb.flags);
  setH16(p, at + 4, comb.authBits.min);
  setH16(p, at + 6, comb.authBits.max);
  setH16(p, at + 8, comb.encryptBits.min);
  setH16(p, at + 10, comb.encryptBits.max);
  for (const [i, lifetime] of [comb.soft, comb.hard].entries()) {
    setH32(p, at + 16 + 4 * i, lifetime.allocations);
    setH64(p, at + 24 + 8 * i, lifetime.bytes);
    setH64(p, at + 40 + 8 * i, lifetime.addTime);
    setH64(p, at + 56 + 8 * i, lifetime.useTime);
  }
}

function policyBody(one: PolicyExtension, dialect: Dialect): Uint8Array {
  const requests = one.requests.map((request) => requestBody(request, dialect));
  const p = zeros(requests.reduce((sum, request) => sum + request.length, 16));
  setH16(p, 4, one.policyType);
  p.set([one.direction, one.reserved], 6);
  setH32(p, 8, one.id);
  setH32(p, 12, one.priority);
  let at = 16;
  for (const request of requests) {
    p.set(request, at);
    at += request.length;
  }
  return p;
}

/** Unlike extensions, requests count octets and are not padded. */
function requestBody(request: PolicyRequest, dialect: Dialect): Uint8Array {
  const fixed = REQUEST_LEN[dialect];
  const ends: readonly (Endpoint | undefined)[] = [request.src, request.dst];
  if ((request.src === undefined) !== (request.dst === undefined)) {
    throw new KeyError('EINVAL', 'X_POLICY: a request with one endpoint only');
  }
  if (request.src && request.src.address.family !== request.dst?.address.family) {
    throw new KeyError('EINVAL', 'X_POLICY: a request from one address family to the other');
  }
  const len = request.src ? fixed + 2 * SOCKADDR_LEN[request.src.address.family] : fixed;
  const p = new Uint8Array(len);
  setH16(p, 0, len);
  setH16(p, 2, request.proto);
  p.set([request.mode, request.level], 4);
  if (dialect === 'linux') setH32(p, 8, request.reqid);
  else writeReqid16(p, request.reqid);
  let at = fixed;
  for (const end of ends) if (end) at += writeSockaddr(p, at, { ...end, scopeId: 0 }, dialect);
  return p;
}

/** A reqid cut to 16 bits would name the SAs of another policy. */
function writeReqid16(p: Uint8Array, reqid: number): void {
  if (reqid > 0xffff) {
    throw new KeyError('EINVAL', `X_POLICY: reqid ${reqid} does not fit 16 bits (bsd dialect)`);
  }
  setH16(p, 6, reqid);
}

function testudoBody(one: TestudoExtension): Uint8Array {
  const p = zeros(16);
  setH32(p, 4, one.replayPackets);
  p.set([one.ahAlign, DF[one.df], ECN[one.ecn]], 9);
  return p;
}

/** Room for an extension of `len` octets, rounded up to the unit of lengths. */
function zeros(len: number): Uint8Array {
  return new Uint8Array(Math.ceil(len / UNIT) * UNIT);
}

function padded(headLen: number, octets: Uint8Array): Uint8Array {
  const p = zeros(headLen + octets.length);
  p.set(octets, headLen);
  return p;
}
