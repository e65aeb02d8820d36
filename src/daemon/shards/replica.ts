import { LazyCrypto } from '../../crypto/lazy.ts';
import type { CryptoProvider } from '../../crypto/provider.ts';
import type { Host } from '../../engine/host.ts';
import { HeldKeys } from '../../sad/held-keys.ts';
import type { Sa } from '../../sad/sa.ts';
import type { Sad } from '../../sad/sad.ts';
import { Slab } from '../../sad/slab.ts';
import type { Policy } from '../../spd/policy.ts';
import type { Spd } from '../../spd/spd.ts';
import type { MainControl } from './control.ts';
import type { Exchange } from './exchange.ts';
import { Ledger } from './ledger.ts';
import type { HostRecord, PolicyRecord, SaRecord, ToShard } from './messages.ts';
import { foreignCrypto, ownCrypto, type SaCrypto, specFrom } from './records.ts';

export interface ReplicaOptions {
  readonly self: number;
  readonly sad: Sad;
  readonly spd: Spd;
  readonly crypto: CryptoProvider;
  readonly control: MainControl;
  /** Tells what has not been told; `read`: when it has read what has arrived from the kernel. */
  readonly report: (read: boolean) => void;
  readonly stop: () => void;
}

/** The databases of a shard that is not the main one: they change when that one says so. */
export class Replica {
  readonly ledger = new Ledger();
  readonly #options: ReplicaOptions;
  readonly #crypto: LazyCrypto;
  readonly #slab = new Slab();
  readonly #sas = new Map<number, Sa>();
  /** SAs of this shard whose first use the main shard waits for. */
  readonly #awaited = new Set<Sa>();
  /** SAs that have done something which nobody has been told of. */
  readonly #used = new Set<Sa>();
  #lastUsed: Sa | undefined;
  #host: { readonly host: Host; readonly exchange: Exchange } | undefined;

  constructor(options: ReplicaOptions) {
    this.#options = options;
    this.#crypto = LazyCrypto.around(options.crypto);
  }

  /** The engine over these databases. */
  join(host: Host, exchange: Exchange): void {
    this.#host = { host, exchange };
  }

  saOf(slot: number): Sa | undefined {
    return this.#sas.get(slot);
  }

  /** For `SadOptions.counted`. */
  counted(sa: Sa): void {
    if (sa === this.#lastUsed) return;
    this.#lastUsed = sa;
    this.#used.add(sa);
  }

  /** For `SadOptions.expired`: the main shard comes to the same conclusion. */
  expired(sa: Sa, limit: 'soft' | 'hard'): void {
    this.#publish(sa);
    if (limit === 'hard') this.#forget(sa);
    this.#options.control.send({ kind: 'look', slot: sa.slot });
  }

  /** Everybody sees what SAs have done in the last batch. */
  publish(): void {
    if (this.#used.size === 0) return;
    for (const sa of this.#used) {
      this.#publish(sa);
      if (this.#awaited.delete(sa)) this.#options.control.send({ kind: 'look', slot: sa.slot });
    }
    this.#used.clear();
    this.#lastUsed = undefined;
  }

  readonly apply = (message: ToShard): void => {
    switch (message.kind) {
      case 'ledger':
        return this.ledger.add(message.chunk);
      case 'gone':
        for (const slot of message.retired) this.#retire(slot);
        for (const slot of message.slots) this.#remove(slot);
        return;
      case 'sas':
        for (const record of message.sas) this.#put(record);
        return;
      case 'policies':
        for (const id of message.gone) this.#options.spd.remove(this.#options.spd.get(id)!);
        for (const record of message.put) this.#putPolicy(record);
        return;
      case 'all policies':
        return this.#putAllPolicies(message.put);
      case 'host':
        return this.#becomeHost(message.host);
      case 'report':
        return this.#options.report(message.read);
      case 'stop':
        return this.#options.stop();
    }
  };

  #put({ slot, state, peer, spec, born }: SaRecord): void {
    const { sad } = this.#options;
    let sa = this.#sas.get(slot);
    if (sa === undefined) {
      // One that has reached its limit here has gone before the main shard could know.
      if (spec === undefined || born === undefined) return;
      const { owner, shape, keys, replayTop } = born;
      const crypto = keys ? this.#own(spec, keys) : foreignCrypto(spec, shape);
      sa = sad.add(specFrom(spec, crypto), 'mature');
      sa.slot = slot;
      sa.owner = owner;
      this.#sas.set(slot, sa);
      if (owner === this.#options.self && replayTop > 0) sa.replay.startAt(replayTop);
    } else if (spec !== undefined) {
      const { keys, esp, ah } = sa.spec;
      sad.update(sa, specFrom(spec, { keys, esp, ah }));
    }
    sad.become(sa, state);
    sa.peer = peer;
    const isOwn = sa.owner === this.#options.self;
    if (isOwn && spec?.isTimed && sa.usage.firstUseMs < 0) this.#awaited.add(sa);
  }

  #own(
    spec: Parameters<typeof ownCrypto>[1],
    place: Parameters<MainControl['takeKeys']>[0],
  ): SaCrypto {
    const octets = this.#options.control.takeKeys(place);
    const { auth, encrypt } = spec;
    const keys = new HeldKeys({ auth, encrypt, ...octets }, this.#slab);
    octets.authKey.fill(0);
    octets.encryptKey.fill(0);
    return ownCrypto(this.#crypto, spec, keys);
  }

  #retire(slot: number): void {
    const sa = this.#sas.get(slot);
    if (sa === undefined || sa.isRetired) return;
    this.#options.sad.retire(sa);
    if (sa.state === 'dead') this.#forget(sa);
  }

  #remove(slot: number): void {
    const sa = this.#sas.get(slot);
    if (sa === undefined) return;
    this.#forget(sa);
    if (sa.state !== 'dead') this.#options.sad.remove(sa);
  }

  #forget(sa: Sa): void {
    this.#sas.delete(sa.slot);
    this.#awaited.delete(sa);
    this.#used.delete(sa);
    if (this.#lastUsed === sa) this.#lastUsed = undefined;
  }

  #publish(sa: Sa): void {
    if (sa.owner === this.#options.self) this.ledger.publish(sa);
  }

  #putPolicy({ id, spec }: PolicyRecord): void {
    const { spd } = this.#options;
    if (spd.get(id) === undefined) spd.add(spec, id);
    else spd.update(spec);
  }

  #putAllPolicies(records: readonly PolicyRecord[]): void {
    this.#options.spd.planReplaceAll(records)();
  }

  #becomeHost({ settings, mtu, paths, mainDelivers }: HostRecord): void {
    const { host, exchange } = this.#host!;
    Object.assign(host.settings, settings);
    host.mtu = mtu;
    host.paths = paths;
    exchange.mainDelivers = mainDelivers;
  }

  /** For each policy that packets have followed since the last call: when. */
  policiesUsed(): readonly Policy[] {
    return this.#host?.exchange.takePoliciesUsed() ?? [];
  }
}
