import { type Address, sameAddress } from '../base/address.ts';
import type { Lifetime } from '../sad/lifetime.ts';
import type { Encapsulation, SaIdentity, SaSpec } from '../sad/sa.ts';
import type { PolicySpec, Request } from '../spd/policy.ts';
import { equalConstantTime } from '../wire/bytes.ts';

/**
 * Whether two SAs or policies are the same, so that a new configuration leaves alone what it does
 * not change.
 */

/** Same algorithms and keys; in constant time for the contents. */
export function sameKeys({ keys: a }: SaSpec, { keys: b }: SaSpec): boolean {
  return (
    a.auth === b.auth &&
    a.encrypt === b.encrypt &&
    sameKey(a.authKey, b.authKey) &&
    sameKey(a.encryptKey, b.encryptKey)
  );
}

export function sameKey(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && equalConstantTime(a, 0, b, 0, a.length);
}

/** Everything that can be said of an SA except its identity, its keys and who made it. */
export function sameSettings(a: SaSpec, b: SaSpec): boolean {
  return (
    sameAddress(a.src, b.src) &&
    a.mode === b.mode &&
    a.reqid === b.reqid &&
    a.replayPackets === b.replayPackets &&
    a.esn === b.esn &&
    a.flags === b.flags &&
    a.padding === b.padding &&
    a.ahAlignLen === b.ahAlignLen &&
    a.tunnel.df === b.tunnel.df &&
    a.tunnel.ecn === b.tunnel.ecn &&
    sameLifetime(a.hard, b.hard) &&
    sameLifetime(a.soft, b.soft) &&
    sameEncapsulation(a.encapsulation, b.encapsulation) &&
    sameList(a.identities, b.identities, sameIdentity)
  );
}

/** Everything that can be said of a policy, except its id. */
export function samePolicy(a: PolicySpec, b: PolicySpec): boolean {
  return (
    a.type === b.type &&
    a.priority === b.priority &&
    a.origin === b.origin &&
    a.lifetimeSeconds === b.lifetimeSeconds &&
    a.idleSeconds === b.idleSeconds &&
    sameList(a.requests, b.requests, sameRequest)
  );
}

export function sameRequest(a: Request, b: Request): boolean {
  return (
    a.protocol === b.protocol &&
    a.mode === b.mode &&
    a.level === b.level &&
    a.reqid === b.reqid &&
    sameOptional(a.src, b.src) &&
    sameOptional(a.dst, b.dst) &&
    a.srcPort === b.srcPort &&
    a.dstPort === b.dstPort
  );
}

function sameLifetime(a: Lifetime, b: Lifetime): boolean {
  return (
    a.packets === b.packets &&
    a.bytes === b.bytes &&
    a.addSeconds === b.addSeconds &&
    a.useSeconds === b.useSeconds
  );
}

function sameEncapsulation(a: Encapsulation | undefined, b: Encapsulation | undefined): boolean {
  if (!a || !b) return a === b;
  return a.srcPort === b.srcPort && a.dstPort === b.dstPort && sameOptional(a.original, b.original);
}

function sameIdentity(a: SaIdentity, b: SaIdentity): boolean {
  return a.type === b.type && a.idType === b.idType && a.id === b.id && a.text === b.text;
}

function sameOptional(a: Address | undefined, b: Address | undefined): boolean {
  return a && b ? sameAddress(a, b) : a === b;
}

function sameList<T>(a: readonly T[], b: readonly T[], same: (a: T, b: T) => boolean): boolean {
  return a.length === b.length && a.every((one, i) => same(one, b[i]!));
}
