import { assert } from '../base/assert.ts';
import type { Env } from '../base/env.ts';
import type { Sad } from '../sad/sad.ts';
import type { Spd } from '../spd/spd.ts';
import { u16 } from '../wire/bytes.ts';
import { PACKET_LEN_MAX, type Packet, PacketArena, type PacketSink } from '../wire/packet.ts';
import type { Core, Events } from './core.ts';
import { Input } from './input.ts';
import { IvSource } from './iv.ts';
import { sendKeepalives } from './natt.ts';
import { Output } from './output.ts';
import { Reassembly } from './reassembly.ts';
import { SaCache } from './sa-cache.ts';
import { defaultSettings, type Settings } from './settings.ts';
import { Stats } from './stats.ts';

export interface HostOptions {
  readonly env: Env;
  readonly sad: Sad;
  readonly spd: Spd;
  readonly settings?: Settings;
  readonly events?: Events;
  /** What the wire carries in one packet, in octets. 1500. */
  readonly mtu?: number;
  /** To the wire: protected packets, and what policy lets pass. Packets are borrowed until it returns. */
  readonly transmit: PacketSink;
  /** To the local side: opened packets, what policy lets in, and ICMP errors about what the local side sent. */
  readonly deliver: PacketSink;
  /** Buffers for fragments, reassembled datagrams and errors. 128. */
  readonly buffers?: number;
}

/**
 * An IPsec host between a local side and a wire: RFC 4301's processing model without sockets, timers or a clock of its own.
 * `output` and `input` finish with a batch before they return; `poll` does what time demands.
 */
export class Host {
  readonly sad: Sad;
  readonly spd: Spd;
  readonly settings: Settings;
  readonly stats = new Stats();

  readonly #core: Core;
  readonly #output: Output;
  readonly #input: Input;
  readonly #reassemblies: readonly Reassembly[];
  #keepaliveDueMs = 0;

  constructor(options: HostOptions) {
    const { env, sad, spd, events = {}, mtu = 1500 } = options;
    this.sad = sad;
    this.spd = spd;
    this.settings = options.settings ?? defaultSettings();
    const arena = new PacketArena(options.buffers ?? 128);
    this.#core = {
      env,
      sad,
      spd,
      settings: this.settings,
      stats: this.stats,
      events,
      arena,
      ivs: new IvSource(env.random),
      cache: new SaCache(),
      muted: new Uint8Array(PACKET_LEN_MAX),
      nextId: randomId(env),
      mtu,
      transmit: options.transmit,
      deliver: options.deliver,
    };
    const outgoing = this.#reassembly('out', arena);
    const incoming = this.#reassembly('in', arena);
    this.#reassemblies = [outgoing, incoming];
    this.#output = new Output(this.#core, outgoing);
    this.#input = new Input(this.#core, incoming);
  }

  get mtu(): number {
    return this.#core.mtu;
  }

  set mtu(octets: number) {
    assert(octets >= 68, 'an MTU that IPv4 can live with (RFC 791 §3.2)');
    this.#core.mtu = octets;
  }

  /** Packets that the local side sends: protected, sent in the clear, or dropped, as policy says. */
  output(packets: readonly Packet[], count: number): void {
    this.#output.run(packets, count);
  }

  /** Packets from the wire, whatever they are: opened as far as they are for us, checked, delivered or dropped. */
  input(packets: readonly Packet[], count: number): void {
    this.#input.run(packets, count);
  }

  /** Does what is due: lifetimes, policies, waiting fragments, keep-alives. Returns when to be called again (monotonic ms). */
  poll(nowMs: number): number {
    let due = Math.min(this.sad.poll(nowMs), this.spd.poll(nowMs));
    for (const reassembly of this.#reassemblies) due = Math.min(due, reassembly.poll(nowMs));
    if (nowMs >= this.#keepaliveDueMs) {
      this.#keepaliveDueMs = sendKeepalives(this.#core, nowMs, (packet) =>
        this.#output.sendOwn(packet),
      );
    }
    return Math.min(due, this.#keepaliveDueMs);
  }

  #reassembly(side: 'in' | 'out', arena: PacketArena): Reassembly {
    return new Reassembly({
      take: () => arena.take(),
      dropped: (reason, fragments) => {
        for (let i = 0; i < Math.max(1, fragments); i++) this.stats.drop(side, reason);
      },
    });
  }
}

function randomId(env: Env): number {
  const octets = new Uint8Array(2);
  env.random.fill(octets);
  return u16(octets, 0);
}
