import type { Address } from '../../base/address.ts';
import { assert } from '../../base/assert.ts';
import { authenticationById, encryptionById } from '../../crypto/algorithms.ts';
import type { LazyCrypto } from '../../crypto/lazy.ts';
import type { AhTransform, EspTransform } from '../../crypto/transform.ts';
import type { Lifetime } from '../../sad/lifetime.ts';
import { type SaKeys, type SaSpec, saSpec } from '../../sad/sa.ts';
import type { Policy, PolicySpec } from '../../spd/policy.ts';
import type { PlainSpec, PolicyRecord, Shape } from './messages.ts';

/** What SAs and policies look like on their way from the main shard to others. */

/**
 * Addresses are copied: their octets lie in memory with those of other SAs, keys too, and what is
 * sent between threads is sent with all the memory that it lies in.
 */
export function plainSpec(spec: SaSpec): PlainSpec {
  const { keys, esp: _, ah: __, src, dst, encapsulation, hard, soft, ...rest } = spec;
  const original = encapsulation?.original;
  return {
    ...rest,
    src: copyOf(src),
    dst: copyOf(dst),
    encapsulation:
      encapsulation && original ? { ...encapsulation, original: copyOf(original) } : encapsulation,
    identities: [],
    hard: timeless(hard),
    soft: timeless(soft),
    auth: keys.auth,
    encrypt: keys.encrypt,
    isTimed: hard.useSeconds + soft.useSeconds > 0,
  };
}

export function shapeOf({ esp, ah }: SaSpec): Shape {
  if (esp !== undefined) {
    const { ivLen, icvLen, alignLen, iv, authenticates } = esp;
    return { kind: 'esp', ivLen, icvLen, alignLen, iv, authenticates };
  }
  assert(ah !== undefined, 'an SA with keys has a transform');
  return { kind: 'ah', ivLen: ah.ivLen, icvLen: ah.icvLen };
}

export type SaCrypto = Pick<SaSpec, 'keys' | 'esp' | 'ah'>;

/** The spec at the other end, with what does its cryptography. */
export function specFrom({ auth: _, encrypt: __, isTimed: ___, ...rest }: PlainSpec, by: SaCrypto) {
  return saSpec({ ...rest, ...by });
}

/** Of the owner. `keys` stay with the transform. */
export function ownCrypto(crypto: LazyCrypto, { protocol }: PlainSpec, keys: SaKeys): SaCrypto {
  const spec = {
    cipher: encryptionById(keys.encrypt),
    cipherKey: keys.encryptKey,
    mac: authenticationById(keys.auth),
    macKey: keys.authKey,
    // The main shard has decided what may be used.
    allowLegacy: true,
  };
  return protocol === 'esp'
    ? { keys, esp: crypto.esp(spec, keys) }
    : { keys, ah: crypto.ah(spec, keys) };
}

/** Of all others: sizes, and nothing that could be used. */
export function foreignCrypto({ auth, encrypt }: PlainSpec, shape: Shape): SaCrypto {
  const none = new Uint8Array(0);
  const keys = { auth, encrypt, authKey: none, encryptKey: none };
  return shape.kind === 'esp' ? { keys, esp: foreignEsp(shape) } : { keys, ah: foreignAh(shape) };
}

const notOurs = (): never => {
  throw new Error('assertion failed: an SA is used by its owner');
};

function foreignEsp(shape: Shape & { kind: 'esp' }): EspTransform {
  return { ...shape, seal: notOurs, open: notOurs, wipe: () => {} };
}

function foreignAh(shape: Shape & { kind: 'ah' }): AhTransform {
  return { ...shape, sign: notOurs, verify: notOurs, wipe: () => {} };
}

/** Without time limits: the main shard ends it. */
export function policyRecord(policy: Policy): PolicyRecord {
  const { direction, selector, type, priority, origin } = policy;
  const { src, dst } = selector;
  const requests = policy.requests.map((request) => ({
    ...request,
    ...(request.src ? { src: copyOf(request.src) } : {}),
    ...(request.dst ? { dst: copyOf(request.dst) } : {}),
  }));
  const spec: PolicySpec = {
    direction,
    type,
    priority,
    origin,
    requests,
    selector: {
      ...selector,
      src: { ...src, address: copyOf(src.address) },
      dst: { ...dst, address: copyOf(dst.address) },
    },
    lifetimeSeconds: 0,
    idleSeconds: 0,
  };
  return { id: policy.id, spec };
}

export function copyOf({ family, bytes }: Address): Address {
  return { family, bytes: bytes.slice() };
}

function timeless({ packets, bytes }: Lifetime): Lifetime {
  return { packets, bytes, addSeconds: 0, useSeconds: 0 };
}
