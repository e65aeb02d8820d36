import { type Address, prefixHas } from '../base/address.ts';
import type { Diversion, InDiversion, OutDiversion } from '../drivers/linux/diversion.ts';
import { describeSelector, namesLoopback } from '../spd/policy.ts';
import type { Spd } from '../spd/spd.ts';

/**
 * Which packets of the machine have to go through the engine, so that every policy is kept: the
 * destinations of `out` policies and the pairs of `in` policies. What a policy lets pass is not
 * diverted, unless it lies inside of something that is.
 */
export function diversionOf(spd: Spd, locals: readonly Address[], all: boolean): Diversion {
  const out = new Map<string, OutDiversion>();
  for (const policy of spd.list('out')) {
    if (policy.type === 'none' || namesLoopback(policy.selector)) continue;
    const { src, dst } = policy.selector;
    const source = src.length === 0 ? undefined : locals.find((one) => prefixHas(src, one));
    const key = `${dst.address.bytes.join()}/${dst.length}`;
    if (!out.has(key)) out.set(key, source ? { destination: dst, source } : { destination: dst });
  }
  const within = new Map<string, InDiversion>();
  for (const policy of spd.list('in')) {
    if (policy.type === 'none' || namesLoopback(policy.selector)) continue;
    const { src, dst } = policy.selector;
    const key = `${src.address.bytes.join()}/${src.length} ${dst.address.bytes.join()}/${dst.length}`;
    within.set(key, { source: src, destination: dst });
  }
  return { out: [...out.values()], in: [...within.values()], all };
}

/**
 * Policies that a host on a real network cannot keep: what a machine sends to itself never leaves
 * the kernel.
 */
export function unreachablePolicies(spd: Spd): string[] {
  return [...spd.list('out'), ...spd.list('in')]
    .filter((policy) => policy.type !== 'none' && namesLoopback(policy.selector))
    .map(
      ({ id, selector }) =>
        `policy ${id} (${describeSelector(selector)}) names the loopback network`,
    );
}

export function sameDiversion(a: Diversion, b: Diversion): boolean {
  return JSON.stringify(plain(a)) === JSON.stringify(plain(b));
}

/** Diverts what either does: for the time in which one replaces the other. */
export function unionOf(a: Diversion, b: Diversion): Diversion {
  return { out: [...a.out, ...b.out], in: [...a.in, ...b.in], all: a.all || b.all };
}

function plain(diversion: Diversion): unknown {
  const text = (value: unknown) =>
    JSON.stringify(value, (_, inner: unknown) =>
      inner instanceof Uint8Array ? inner.join() : inner,
    );
  return { ...diversion, out: diversion.out.map(text).sort(), in: diversion.in.map(text).sort() };
}
