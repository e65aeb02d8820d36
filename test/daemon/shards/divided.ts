import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { Bells } from '../../../src/daemon/shards/bell.ts';
import { MainControl, ShardControl } from '../../../src/daemon/shards/control.ts';
import { ringEnds, shardMemory } from '../../../src/daemon/shards/memory.ts';
import type { Port } from '../../../src/daemon/shards/messages.ts';
import { Shard } from '../../../src/daemon/shards/shard.ts';
import { Shards } from '../../../src/daemon/shards/shards.ts';
import type { Events } from '../../../src/engine/core.ts';
import { BATCH_MAX } from '../../../src/engine/flight.ts';
import { Host } from '../../../src/engine/host.ts';
import { defaultSettings, type Settings } from '../../../src/engine/settings.ts';
import type { Sa } from '../../../src/sad/sa.ts';
import { Sad } from '../../../src/sad/sad.ts';
import { memorySequences, type SequenceStore } from '../../../src/sad/sequence.ts';
import { Spd } from '../../../src/spd/spd.ts';
import {
  PACKET_LEN_SMALL,
  PacketArena,
  type PacketSink,
  packetFrom,
} from '../../../src/wire/packet.ts';
import { providerUnderTest } from '../../crypto/under-test.ts';
import { testEnv } from '../../engine/rig.ts';

export interface DividedOptions {
  readonly shards: number;
  readonly settings?: Partial<Settings>;
  readonly sequences?: SequenceStore;
  readonly isLocal?: (text: Uint8Array) => boolean;
  readonly ringLen?: number;
  readonly env?: ReturnType<typeof testEnv>;
  readonly events?: Events;
}

/** A host of several shards, all on this thread: each does something when it is its turn. */
export class Divided {
  readonly env: ReturnType<typeof testEnv>;
  readonly sad: Sad;
  readonly spd: Spd;
  readonly host: Host;
  readonly shards: Shards;
  readonly others: readonly Shard[];
  readonly sent: Uint8Array[] = [];
  readonly delivered: Uint8Array[] = [];
  readonly expired: [Sa, 'soft' | 'hard'][] = [];
  readonly moved: Sa[] = [];
  /** Memory that it shares with each other shard. */
  readonly controls: readonly SharedArrayBuffer[];
  readonly #ports: MessagePort[] = [];

  constructor(options: DividedOptions) {
    const { shards: count, ringLen = 1 << 18, isLocal = () => false } = options;
    this.env = options.env ?? testEnv();
    const { clock, random } = this.env;
    const memory = shardMemory(count, ringLen);
    this.controls = memory.controls;
    const bells = new Bells(memory.bells, () => {});
    const channels = memory.controls.map(() => new MessageChannel());
    for (const { port1, port2 } of channels) this.#ports.push(port1, port2);
    const sequences = options.sequences ?? memorySequences();
    this.sad = new Sad({
      ...{ clock, random, sequences },
      changed: (sa) => this.shards.saChanged(sa),
      expired: (sa, limit) => this.expired.push([sa, limit]),
    });
    const changed = (policy: Parameters<Shards['policyChanged']>[0]) =>
      this.shards.policyChanged(policy);
    this.spd = new Spd({ clock, added: changed, removed: changed });
    this.shards = new Shards({
      ...{ env: this.env, sad: this.sad, spd: this.spd, sequences, bells },
      keys: { natMapping: (sa) => this.moved.push(sa) },
      controls: memory.controls.map(
        (one, i) => new ShardControl(one, port(channels[i]!.port1), () => bells.ring(i + 1)),
      ),
      ...ringEnds(memory, 0),
      slots: slots(),
      isLocal: ({ bytes }) => isLocal(bytes),
      waiting: () => {
        for (const other of this.others) other.turn();
      },
    });
    const keep = (into: Uint8Array[]): PacketSink => {
      return (packets, n) => void into.push(...packets.slice(0, n).map((one) => one.copy()));
    };
    const links = { transmit: keep(this.sent), deliver: keep(this.delivered) };
    this.host = new Host({
      ...{ env: this.env, sad: this.sad, spd: this.spd, ...links },
      settings: { ...defaultSettings(), ...options.settings },
      ...(options.events ? { events: options.events } : {}),
      shard: this.shards.shard,
    });
    this.others = memory.controls.map((one, i) => {
      const self = i + 1;
      return new Shard({
        ...{ self, env: this.env, crypto: providerUnderTest(), bells, ...links },
        control: new MainControl(one, port(channels[i]!.port2), () => bells.ring(0)),
        ...ringEnds(memory, self),
        slots: slots(),
        refused: () => ({ wire: 0, local: 0 }),
        readArrived: () => {},
        stopped: () => {},
        waiting: () => this.shards.serve(),
      });
    });
  }

  /** To be called when the first entries are in the databases. */
  join(): this {
    this.shards.join(this.host);
    return this;
  }

  /** Packets of the local side that a shard reads, in one batch; what went to the wire. */
  output(shard: number, ...packets: Uint8Array[]): Uint8Array[] {
    this.sent.length = 0;
    this.delivered.length = 0;
    this.#engine(shard).output(packets.map(packetFrom), packets.length);
    this.settle();
    return [...this.sent];
  }

  /** Packets of the wire that a shard reads, in one batch; what was delivered. */
  input(shard: number, ...packets: Uint8Array[]): Uint8Array[] {
    this.sent.length = 0;
    this.delivered.length = 0;
    this.#engine(shard).input(packets.map(packetFrom), packets.length);
    this.settle();
    return [...this.delivered];
  }

  #engine(shard: number): Pick<Host, 'output' | 'input'> {
    return shard === 0 ? this.host : this.others[shard - 1]!;
  }

  /** Everybody has done everything. */
  settle(): void {
    for (let i = 0; i < 40; i++) {
      this.shards.endBatch();
      for (const other of this.others) other.turn();
    }
  }

  /** As a request does it: the others have done it when it returns. */
  apply(change: () => void): void {
    change();
    this.shards.sync();
    this.shards.settle();
  }

  drops(): Record<string, number> {
    const stats = this.shards.statsWith(this.host.stats);
    return Object.fromEntries(
      (['in', 'out'] as const).flatMap((side) =>
        stats.dropped(side).map(([reason, count]) => [`${side} ${reason}`, count]),
      ),
    );
  }

  close(): void {
    for (const one of this.#ports) one.close();
  }
}

export function port<In, Out>(of: MessagePort): Port<In, Out> {
  return {
    post: (message) => of.postMessage(message),
    take: () => receiveMessageOnPort(of)?.message as In | undefined,
  };
}

function slots() {
  const take = (count: number, room?: number) => {
    const arena = new PacketArena(count, room === undefined ? {} : { room });
    return Array.from({ length: count }, () => arena.take()!);
  };
  return { small: take(BATCH_MAX, PACKET_LEN_SMALL), large: take(2) };
}
