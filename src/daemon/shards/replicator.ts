import type { Address } from '../../base/address.ts';
import type { Sa } from '../../sad/sa.ts';
import type { Sad } from '../../sad/sad.ts';
import type { Policy } from '../../spd/policy.ts';
import type { Spd } from '../../spd/spd.ts';
import type { ShardControl } from './control.ts';
import { Ledger } from './ledger.ts';
import type { HostRecord, PolicyRecord, SaRecord, ToShard } from './messages.ts';
import { plainSpec, policyRecord, shapeOf } from './records.ts';
import { Slots } from './slots.ts';

/** SAs that are told of in one message, and octets that the keys of one may have. */
const RECORDS_MAX = 128;
const KEYS_LEN_MAX = 256;

export interface ReplicatorOptions {
  readonly sad: Sad;
  readonly spd: Spd;
  /** Of all shards but the main one, which has no place in it: shard `i + 1` is at `i`. */
  readonly controls: readonly ShardControl[];
  /** Waits until all shards have done what they were told. */
  readonly settle: () => void;
  readonly isLocal: (address: Address) => boolean;
  /** All but the databases. */
  readonly host: () => HostRecord;
}

/**
 * Keeps the databases of all shards equal to those of the main one, which alone change by
 * themselves. It is told of changes and remembers no more than which entries they were about;
 * `sync` tells the others how these are then.
 */
export class Replicator {
  readonly ledger = new Ledger();
  readonly slots: Slots;
  readonly #options: ReplicatorOptions;
  readonly #changedSas = new Set<Sa>();
  /** Ids in the order of their first change. */
  readonly #changedPolicies = new Set<number>();
  /** Those that the other shards have. */
  readonly #policiesThere = new Set<number>();
  /** The paths that the others know. */
  pathsTold = 0;
  #host = '';

  constructor(options: ReplicatorOptions) {
    this.#options = options;
    this.slots = new Slots(this.ledger, options.controls.length + 1, (chunk) =>
      this.#toAll({ kind: 'ledger', chunk }),
    );
  }

  get isDirty(): boolean {
    return this.#changedSas.size + this.#changedPolicies.size > 0;
  }

  /** For `SadOptions.changed`. */
  saChanged(sa: Sa): void {
    if (sa.slot >= 0 || sa.isUsable) this.#changedSas.add(sa);
  }

  /** For `SpdOptions.added` and `removed`. */
  policyChanged(policy: Policy): void {
    this.#changedPolicies.add(policy.id);
  }

  /** Tells the others what has changed; they have done it when `settle` returns. */
  sync(): void {
    this.#tellHost();
    if (!this.isDirty) return;
    this.#tellSas();
    this.#tellPolicies();
  }

  /**
   * Packets that come in are steered by their SPI, so that decides who owns an SA to receive with.
   * One to send with goes where its counterpart is: the kernel reads a flow's packets from the
   * queue that those of the other direction were written to.
   */
  #ownerOf(sa: Sa): number {
    // Nobody has been told of it, so that it was this shard's.
    if (sa.sentSeq > 0 || sa.usage.firstUseMs >= 0) return 0;
    const count = this.#options.controls.length + 1;
    const { spi, protocol, mode, src, dst, reqid } = sa.spec;
    if (this.#options.isLocal(dst) || reqid === 0) return spi % count;
    const asked = mode === 'any' ? 'transport' : mode;
    const counterpart = this.#options.sad.outbound(protocol, asked, dst, src, reqid);
    return counterpart === undefined || counterpart.slot < 0 ? spi % count : counterpart.owner;
  }

  #tellHost(): void {
    const host = this.#options.host();
    const text = JSON.stringify({ ...host, paths: host.pathsGeneration });
    this.pathsTold = host.pathsGeneration;
    if (text === this.#host) return;
    this.#host = text;
    this.#toAll({ kind: 'host', host });
  }

  #tellSas(): void {
    const changed = [...this.#changedSas];
    this.#changedSas.clear();
    const alive = changed.filter((sa) => sa.isUsable && !sa.isRetired);
    this.#assign(alive.filter((sa) => sa.slot < 0));
    const known = changed.filter((sa) => sa.slot >= 0);
    const gone = known.filter((sa) => sa.state === 'dead');
    const retired = known.filter((sa) => sa.isRetired && sa.state !== 'dead');
    if (gone.length + retired.length > 0) {
      this.#toAll({ kind: 'gone', slots: slotsOf(gone), retired: slotsOf(retired) });
      for (const sa of gone) this.slots.leave(sa);
      // Who owned an SA gives back its numbers before another one of the same keys asks for some.
      this.#options.settle();
      this.slots.reclaim();
    }
    for (let i = 0; i < alive.length; i += RECORDS_MAX)
      this.#tellAlive(alive.slice(i, i + RECORDS_MAX));
  }

  /** Those to receive with first: others go where these are. */
  #assign(sas: readonly Sa[]): void {
    const isLocal = (sa: Sa) => this.#options.isLocal(sa.spec.dst);
    for (const sa of sas) if (isLocal(sa)) this.slots.assign(sa, this.#ownerOf(sa));
    for (const sa of sas) if (sa.slot < 0) this.slots.assign(sa, this.#ownerOf(sa));
  }

  #tellAlive(sas: readonly Sa[]): void {
    for (const [i, control] of this.#options.controls.entries()) {
      if (!control.hasRoomForKeys(sas.length * KEYS_LEN_MAX)) this.#options.settle();
      const records = sas.map((sa) => this.#record(sa, i + 1, control));
      control.send({ kind: 'sas', sas: records });
    }
    for (const sa of sas) this.slots.told(sa);
  }

  #record(sa: Sa, shard: number, control: ShardControl): SaRecord {
    const { slot, owner, spec, peer, replayTop } = sa;
    const state = sa.state === 'dying' ? 'dying' : 'mature';
    const head = { slot, state, peer } as const;
    if (this.slots.toldSpec(sa) === spec) return head;
    const plain = plainSpec(spec);
    if (this.slots.isTold(sa)) return { ...head, spec: plain };
    const { authKey, encryptKey } = spec.keys;
    const keys = owner === shard ? control.putKeys(authKey, encryptKey) : undefined;
    return { ...head, spec: plain, born: { owner, keys, shape: shapeOf(spec), replayTop } };
  }

  /** One by one if their order follows from that of the messages, else all of them. */
  #tellPolicies(): void {
    const { spd } = this.#options;
    const ids = [...this.#changedPolicies];
    this.#changedPolicies.clear();
    if (ids.length === 0) return;
    const put: PolicyRecord[] = [];
    const gone: number[] = [];
    let replaced = 0;
    for (const id of ids) {
      const policy = spd.get(id);
      const isThere = this.#policiesThere.has(id);
      if (policy !== undefined) put.push(policyRecord(policy));
      else if (isThere) gone.push(id);
      if (policy !== undefined && isThere) replaced++;
      if (policy === undefined) this.#policiesThere.delete(id);
      else this.#policiesThere.add(id);
    }
    if (replaced === 0 || ids.length === 1) return this.#toAll({ kind: 'policies', gone, put });
    const all = (['in', 'out', 'fwd'] as const).flatMap((direction) => spd.list(direction));
    this.#toAll({ kind: 'all policies', put: all.map(policyRecord) });
  }

  #toAll(message: ToShard): void {
    for (const control of this.#options.controls) control.send(message);
  }
}

function slotsOf(sas: readonly Sa[]): number[] {
  return sas.map((sa) => sa.slot);
}
