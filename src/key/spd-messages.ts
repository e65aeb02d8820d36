import { KeyError } from '../base/error.ts';
import { describeSelector, type Policy } from '../spd/policy.ts';
import { MANUAL_ID_MAX } from '../spd/spd.ts';
import { extension, type Message } from '../wire/pfkey-message.ts';
import type { Answer, Dump, Handler, KeyContext } from './context.ts';
import { required } from './fields.ts';
import { changedParts, wholePolicyParts } from './policy-reply.ts';
import { directionOf, policySpecOf, selectorOf } from './policy-request.ts';

/** The messages about policies: KAME's extension of PF_KEY. */

/** SPDADD and SPDSETIDX. */
export const spdAdd: Handler = (context, message, session) =>
  changed(context.spd.add(policySpecOf(context, message, session), manualId(message)));

/**
 * Makes the policy if it is not there, as OpenIKED expects; otherwise it keeps its id and place.
 */
export const spdUpdate: Handler = (context, message, session) => {
  const spec = policySpecOf(context, message, session);
  const existing = context.spd.find(spec.direction, spec.selector);
  return changed(existing ? context.spd.update(spec) : context.spd.add(spec, manualId(message)));
};

/** By direction and selector. */
export const spdDelete: Handler = (context, message) => {
  const policy = bySelector(context, message);
  context.spd.remove(policy);
  return changed(policy);
};

/** By id. */
export const spdDelete2: Handler = (context, message) => {
  const policy = byId(context, message);
  context.spd.remove(policy);
  return changed(policy);
};

/** By id, as OpenIKED asks; or, without one, by direction and selector. */
export const spdGet: Handler = (context, message) => {
  const { id } = required(message, 'X_POLICY');
  const bySelectorOnly = id === 0 && extension(message, 'ADDRESS_SRC') !== undefined;
  const policy = bySelectorOnly ? bySelector(context, message) : byId(context, message);
  return { kind: 'reply', to: 'one', extensions: wholePolicyParts(policy) };
};

/** As FLUSH: a file flushes what it made itself. */
export const spdFlush: Handler = ({ spd }, _message, session) => {
  if (session.client.origin === 'client') spd.flush();
  else for (const policy of all(spd)) if (policy.origin === 'file') spd.remove(policy);
  return { kind: 'reply', to: 'all', extensions: [] };
};

/** Each policy as it was when the dump was asked for, with the time of its last use. */
export const spdDump: Handler = ({ spd }) => {
  if (spd.size === 0) throw new KeyError('ENOENT', 'there are no policies');
  const policies = spd.snapshot();
  const entries: Dump = {
    length: policies.length,
    next: () => {
      const { value } = policies.next();
      if (!value) return { done: true, value: undefined };
      // setkey prints the reserved field as the count of references: the table's own.
      const entry = { satype: 'unspec', reserved: 1, extensions: wholePolicyParts(value) } as const;
      return { done: false, value: entry };
    },
    return: () => void policies.return(),
  };
  return { kind: 'dump', entries };
};

function changed(policy: Policy): Answer {
  return { kind: 'reply', to: 'all', extensions: changedParts(policy) };
}

function all(spd: KeyContext['spd']): Policy[] {
  return [...spd.list('in'), ...spd.list('out'), ...spd.list('fwd')];
}

function manualId(message: Message): number {
  const { id } = required(message, 'X_POLICY');
  return id <= MANUAL_ID_MAX ? id : 0;
}

function byId({ spd }: KeyContext, message: Message): Policy {
  const { id } = required(message, 'X_POLICY');
  if (id === 0) throw new KeyError('EINVAL', 'X_POLICY: an id is needed, or a selector');
  const policy = spd.get(id);
  if (policy) return policy;
  throw new KeyError('ENOENT', `there is no policy with the id ${id}`);
}

function bySelector({ spd }: KeyContext, message: Message): Policy {
  const direction = directionOf(required(message, 'X_POLICY'));
  const selector = selectorOf(message);
  const policy = spd.find(direction, selector);
  if (policy) return policy;
  throw new KeyError('ENOENT', `there is no ${direction} policy for ${describeSelector(selector)}`);
}
