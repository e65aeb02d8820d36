import { KeyError } from '../base/error.ts';
import type { Request } from '../spd/policy.ts';
import { requestOf } from '../spd/request.ts';
import { formatPolicy, parsePolicy, policyFromBytes } from '../spd/set-policy.ts';
import { encodeExtension } from '../wire/pfkey-encode.ts';
import type { Dialect, PolicyExtension } from '../wire/pfkey-message.ts';
import { DIRECTION, extensionRow, LEVEL, POLICY_TYPE } from '../wire/pfkey-table.ts';
import type { SocketDirection, SocketRule } from './socket-rule.ts';

/** The bytes of socket options IP_IPSEC_POLICY and IPV6_IPSEC_POLICY: one `sadb_x_policy`. */

/** As ipsec-tools, which KAME's own test sets nine with; the engine applies at most eight. */
const REQUESTS_MAX = 16;
/** Of Linux and FreeBSD: one page. */
const OPTION_LEN_MAX = 4096;
/** What every reader needs: `sadb_x_policy` without requests. */
const HEAD_LEN = extensionRow('X_POLICY').minLen;

export interface OptionContext {
  /** Of the bytes: whose numbers and sizes they have. */
  readonly dialect: Dialect;
  /** A reqid that nobody uses, for a "unique" request without one; `own`: those of this policy. */
  readonly reqid: (own: readonly { readonly reqid: number }[]) => number;
}

export interface SocketOption {
  readonly direction: SocketDirection;
  readonly rule: SocketRule;
}

/**
 * What setsockopt asks for: bytes as ipsec_set_policy(3) makes them, or its text. Throws KeyError:
 * EINVAL for lengths, directions, types, modes and levels that are none, EPROTONOSUPPORT for
 * protocols but ESP and AH. Whether the socket may have it is said by `SocketPolicies`.
 */
export function readSocketOption(given: Uint8Array | string, context: OptionContext): SocketOption {
  const extension = typeof given === 'string' ? parsePolicy(given) : decode(given, context.dialect);
  const direction = directionOf(extension);
  const { policyType } = extension;
  if (policyType === POLICY_TYPE.bypass || policyType === POLICY_TYPE.entrust) {
    if (extension.requests.length > 0) {
      throw new KeyError('EINVAL', 'bypass and entrust have no requests');
    }
    const type = policyType === POLICY_TYPE.bypass ? 'bypass' : 'entrust';
    return { direction, rule: { type, requests: [], option: extension } };
  }
  if (policyType !== POLICY_TYPE.ipsec) {
    const allowed = 'a socket has bypass (4), entrust (3) or ipsec (2)';
    throw new KeyError('EINVAL', `policy type ${policyType}: ${allowed}`);
  }
  return { direction, rule: ipsecRule(extension, context) };
}

/** What getsockopt answers. EINVAL for a reqid that the BSD dialect has no room for. */
export function writeSocketOption(rule: SocketRule, dialect: Dialect): Uint8Array {
  return encodeExtension(rule.option, dialect);
}

/** The rule in the wording of ipsec_dump_policy(3). */
export function socketOptionText(rule: SocketRule): string {
  return formatPolicy(rule.option, { ports: false });
}

/** Which of the two policies getsockopt is asked for: by the direction in the caller's buffer. */
export function askedDirection(buffer: Uint8Array): SocketDirection {
  if (buffer.length < HEAD_LEN) {
    throw new KeyError('EINVAL', `${buffer.length} octets, a sadb_x_policy has ${HEAD_LEN}`);
  }
  return directionOf({ direction: buffer[6]! });
}

function ipsecRule(extension: PolicyExtension, { reqid }: OptionContext): SocketRule {
  const { requests } = extension;
  if (requests.length === 0) {
    throw new KeyError('EINVAL', 'a policy of type ipsec needs at least one request');
  }
  if (requests.length > REQUESTS_MAX) {
    throw new KeyError('ELOOP', `${requests.length} requests, at most ${REQUESTS_MAX} nest`);
  }
  const own: Request[] = requests.map(requestOf);
  for (const [i, request] of own.entries()) {
    if (request.level !== 'unique' || request.reqid !== 0) continue;
    own[i] = { ...request, reqid: reqid(own) };
  }
  const answered = requests.map((request, i) =>
    request.level === LEVEL.unique ? { ...request, reqid: own[i]!.reqid } : request,
  );
  return { type: 'ipsec', requests: own, option: { ...extension, requests: answered } };
}

function decode(p: Uint8Array, dialect: Dialect): PolicyExtension {
  if (p.length > OPTION_LEN_MAX) {
    throw new KeyError('EINVAL', `${p.length} octets, at most ${OPTION_LEN_MAX} are read`);
  }
  try {
    return policyFromBytes(p, dialect);
  } catch (error) {
    // The tunnel ends of a socket option have no errno of their own (t_ipsec_policy of NetBSD).
    if (error instanceof KeyError) throw new KeyError('EINVAL', error.message);
    throw error;
  }
}

function directionOf({ direction }: Pick<PolicyExtension, 'direction'>): SocketDirection {
  if (direction === DIRECTION.in) return 'in';
  if (direction === DIRECTION.out) return 'out';
  throw new KeyError('EINVAL', `direction ${direction}; 1 in and 2 out are known to sockets`);
}
