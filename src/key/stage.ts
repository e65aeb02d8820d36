import { assert } from '../base/assert.ts';
import type { AhTransform, EspTransform } from '../crypto/transform.ts';
import type { Sa, SaSpec } from '../sad/sa.ts';
import { viewOf } from '../sad/sa-view.ts';
import { Sad } from '../sad/sad.ts';
import type { Policy } from '../spd/policy.ts';
import { MANUAL_ID_MAX, type Replacement, Spd } from '../spd/spd.ts';
import type { Message } from '../wire/pfkey-message.ts';
import { sameKeys, samePolicy, sameSettings } from './compare.ts';
import { KeyEngine } from './engine.ts';
import { changeEvent } from './events.ts';
import { changedParts } from './policy-reply.ts';
import { identityParts, publicParts } from './sa-reply.ts';

/**
 * A configuration file is read again: its messages are applied to a second engine, which knows what
 * programs have made and nothing of the old file. When all of them were accepted, `commit` puts the
 * result in place in one step, so that a mistake in the file changes nothing and no packet meets
 * half of it. What the new file says as the old one did stays the same object, with its replay
 * window and its counters.
 */
export interface Stage {
  readonly engine: KeyEngine;
  /** Throws KeyError and changes nothing when a program has taken an identity since. */
  commit(): StageResult;
  /** Forgets it all; keys are zeroed. */
  discard(): void;
}

export interface StageResult {
  readonly sas: StageCount;
  readonly policies: StageCount;
}

export interface StageCount {
  readonly added: number;
  readonly kept: number;
  readonly removed: number;
}

export function stage(live: KeyEngine): Stage {
  const { env, crypto, allowLegacy, settings, reqids } = live.context;
  const { clock, random } = env;
  const sequences = {
    lease: (): never => {
      throw new Error('assertion failed: nothing is sent from a stage');
    },
  };
  const sad = new Sad({ clock, random, sequences });
  const spd = new Spd({ clock });
  const engine = new KeyEngine({
    env,
    sad,
    spd,
    crypto,
    allowLegacy,
    settings: { ...settings },
    previous: live.context.spd,
    firstReqid: reqids.next,
  });
  const staged: Staged = {
    live,
    engine,
    sas: seedSas(live, sad),
    policies: seedPolicies(live, spd),
  };
  let isOpen = true;
  return {
    engine,
    commit: () => {
      assert(isOpen, 'a stage is committed once');
      const result = commit(staged);
      isOpen = false;
      return result;
    },
    discard: () => {
      isOpen = false;
      sad.flush();
    },
  };
}

interface Staged {
  readonly live: KeyEngine;
  readonly engine: KeyEngine;
  /** What programs had made when the stage was set, and what stands for it there. */
  readonly sas: ReadonlyMap<Sa, { readonly copy: Sa; readonly spec: SaSpec }>;
  readonly policies: ReadonlyMap<Policy, Policy>;
}

function seedSas(live: KeyEngine, sad: Sad): Staged['sas'] {
  const seeds = new Map<Sa, { copy: Sa; spec: SaSpec }>();
  for (const sa of live.context.sad.all()) {
    if (sa.spec.origin !== 'client' || sa.state === 'dead') continue;
    const spec = borrowed(sa.spec);
    seeds.set(sa, { spec, copy: sad.add(spec, sa.state === 'larval' ? 'larval' : 'mature') });
  }
  return seeds;
}

function seedPolicies(live: KeyEngine, spd: Spd): Staged['policies'] {
  const seeds = new Map<Policy, Policy>();
  for (const policy of allPolicies(live.context.spd)) {
    if (policy.origin === 'client') seeds.set(policy, spd.add(policy, policy.id));
  }
  return seeds;
}

function commit(staged: Staged): StageResult {
  const sas = planSas(staged);
  const policies = planPolicies(staged);
  // Both plans stand, so neither can fail any more.
  const { live, engine } = staged;
  const deletions = sas.gone.map((sa) =>
    changeEvent('DELETE', sa.spec.protocol, identityParts(viewOf(sa))),
  );
  const addedSas = sas.apply();
  for (const [sa, spec] of sas.updates) live.context.sad.update(sa, spec);
  for (const [i, sa] of addedSas.entries()) {
    const top = sas.replayTops[i];
    // The same keys with other settings: what was received under them must not be received again.
    if (top !== undefined) sa.replay.startAt(top);
  }
  const table = policies.apply();
  live.context.reqids.next = Math.max(live.context.reqids.next, engine.context.reqids.next);
  wipeUnused(engine, new Set(sas.specs));

  const now = new Set(table);
  const before = new Set(policies.before);
  const removed = policies.before.filter((policy) => !now.has(policy));
  const added = table.filter((policy) => !before.has(policy));
  for (const message of deletions) live.announceToAll(message);
  for (const sa of addedSas) {
    live.announceToAll(changeEvent('ADD', sa.spec.protocol, publicParts(viewOf(sa))));
  }
  for (const policy of removed) {
    const isReplaced = live.context.spd.get(policy.id) !== undefined;
    if (!isReplaced) live.announceToAll(policyChange('X_SPDDELETE', policy));
  }
  for (const policy of added) live.announceToAll(policyChange('X_SPDUPDATE', policy));
  return {
    sas: { added: addedSas.length, kept: sas.kept, removed: sas.gone.length },
    policies: {
      added: added.length,
      kept: table.length - added.length,
      removed: removed.length,
    },
  };
}

function policyChange(type: 'X_SPDDELETE' | 'X_SPDUPDATE', policy: Policy): Message {
  return changeEvent(type, 'unspec', changedParts(policy));
}

/** Zeroes the keys of everything in the stage that has not moved to the host. */
function wipeUnused(engine: KeyEngine, moved: ReadonlySet<SaSpec>): void {
  const { sad } = engine.context;
  for (const sa of [...sad.all()]) if (!moved.has(sa.spec)) sad.remove(sa);
}

interface SaPlan {
  readonly gone: readonly Sa[];
  readonly specs: readonly SaSpec[];
  readonly replayTops: readonly (number | undefined)[];
  readonly updates: readonly (readonly [Sa, SaSpec])[];
  readonly kept: number;
  apply(): Sa[];
}

function planSas({ live, engine, sas }: Staged): SaPlan {
  const { sad } = live.context;
  const gone = new Set<Sa>();
  const updates: [Sa, SaSpec][] = [];
  for (const [sa, { copy, spec }] of sas) {
    if (sa.state === 'dead') continue;
    if (copy.state === 'dead') gone.add(sa);
    // The file has given new limits or ports to an SA that a program made.
    else if (copy.spec !== spec) updates.push([sa, { ...sa.spec, ...settingsOf(copy.spec) }]);
  }
  for (const sa of sad.all()) if (sa.spec.origin === 'file') gone.add(sa);
  const fileSpecs = [...engine.context.sad.all()]
    .filter((sa) => sa.spec.origin === 'file' && sa.state !== 'larval')
    .map((sa) => sa.spec);
  const specs: SaSpec[] = [];
  const replayTops: (number | undefined)[] = [];
  let kept = 0;
  for (const spec of fileSpecs) {
    const old = sad.get(spec.protocol, spec.spi, spec.dst);
    const isSameKey = old !== undefined && old.state !== 'larval' && sameKeys(old.spec, spec);
    if (isSameKey && old.spec.origin === 'file' && sameSettings(old.spec, spec)) {
      gone.delete(old);
      kept++;
    } else {
      specs.push(spec);
      replayTops.push(isSameKey ? old.replay.top : undefined);
    }
  }
  const list = [...gone];
  return { gone: list, specs, replayTops, updates, kept, apply: sad.planReplace(list, specs) };
}

function settingsOf(spec: SaSpec): Partial<SaSpec> {
  const { hard, soft, encapsulation } = spec;
  return { hard, soft, ...(encapsulation ? { encapsulation } : {}) };
}

/** As at a start: the file's policies first, in its order, then those of programs in theirs. */
function planPolicies({ live, engine, policies }: Staged): {
  readonly before: readonly Policy[];
  apply(): Policy[];
} {
  const { spd } = live.context;
  const before = allPolicies(spd);
  const wanted: Replacement[] = [];
  for (const spec of allPolicies(engine.context.spd)) {
    if (spec.origin !== 'file') continue;
    const old = spd.find(spec.direction, spec.selector);
    // An id that the stage gave out by itself means nothing here.
    const id = old?.id ?? (spec.id <= MANUAL_ID_MAX ? spec.id : 0);
    wanted.push(old && samePolicy(old, spec) ? { spec, id, keep: old } : { spec, id });
  }
  const gone = new Set<Policy>();
  for (const [policy, copy] of policies) {
    if (engine.context.spd.get(copy.id) !== copy) gone.add(policy);
  }
  for (const policy of before) {
    if (policy.origin !== 'client' || gone.has(policy)) continue;
    wanted.push({ spec: policy, id: policy.id, keep: policy });
  }
  return { before, apply: spd.planReplaceAll(wanted) };
}

function allPolicies(spd: Spd): Policy[] {
  return [...spd.list('in'), ...spd.list('out'), ...spd.list('fwd')];
}

/** A copy whose end zeroes nothing of the original. */
function borrowed(spec: SaSpec): SaSpec {
  const { esp, ah, keys } = spec;
  return {
    ...spec,
    keys: { ...keys, authKey: keys.authKey.slice(), encryptKey: keys.encryptKey.slice() },
    ...(esp ? { esp: borrowedEsp(esp) } : {}),
    ...(ah ? { ah: borrowedAh(ah) } : {}),
  };
}

function borrowedEsp(esp: EspTransform): EspTransform {
  const { ivLen, icvLen, alignLen, iv, authenticates } = esp;
  return {
    ivLen,
    icvLen,
    alignLen,
    iv,
    authenticates,
    seal: (...packet) => esp.seal(...packet),
    open: (...packet) => esp.open(...packet),
    wipe: () => undefined,
  };
}

function borrowedAh(ah: AhTransform): AhTransform {
  const { ivLen, icvLen } = ah;
  return {
    ivLen,
    icvLen,
    sign: (...packet) => ah.sign(...packet),
    verify: (...packet) => ah.verify(...packet),
    wipe: () => undefined,
  };
}
