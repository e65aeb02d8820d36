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
import { Transmitter } from './transmit.ts';

/** Hosts joined in memory, with programs that answer, nest a few levels deep. */
const NESTING_MAX = 16;

export interface HostOptions {
  readonly env: Env;
  readonly sad: Sad;
  readonly spd: Spd;
  readonly settings?: Settings;
  readonly events?: Events;
  /** What the wire carries in one packet, in octets. 1500. */
  readonly mtu?: number;
  /**
   * To the wire: protected packets, and what policy lets pass. Packets are borrowed until it
   * returns.
   */
  readonly transmit: PacketSink;
  /**
   * To the local side: opened packets, what policy lets in, and ICMP errors about what the local
   * side sent.
   */
  readonly deliver: PacketSink;
  /** Buffers for fragments, reassembled datagrams and errors. 128. */
  readonly buffers?: number;
}

/**
 * An IPsec host between a local side and a wire: RFC 4301's processing model without sockets,
 * timers or a clock of its own. `output` and `input` finish with a batch before they return, and
 * may be called from within the sinks; `poll` does what time demands.
 */
export class Host {
  readonly sad: Sad;
  readonly spd: Spd;
  readonly settings: Settings;
  readonly stats = new Stats();

  readonly #core: Core;
  /**
   * One for each level of nesting: a sink may hand the host packets while it is being handed some.
   */
  readonly #outputs: Output[] = [];
  readonly #inputs: Input[] = [];
  #outputDepth = 0;
  #inputDepth = 0;
  readonly #own: Transmitter;
  readonly #outgoing: Reassembly;
  readonly #incoming: Reassembly;
  #keepaliveDueMs = 0;

  constructor(options: HostOptions) {
    const { env, sad, spd, events = {}, mtu = 1500 } = options;
    this.sad = sad;
    this.spd = spd;
    this.settings = options.settings ?? defaultSettings();
    this.#core = {
      env,
      sad,
      spd,
      settings: this.settings,
      stats: this.stats,
      events,
      arena: new PacketArena(options.buffers ?? 128),
      ivs: new IvSource(env.random),
      cache: new SaCache(),
      muted: new Uint8Array(PACKET_LEN_MAX),
      nextId: randomId(env),
      mtu,
      transmit: options.transmit,
      deliver: options.deliver,
    };
    this.#own = new Transmitter(this.#core);
    this.#outgoing = this.#reassembly('out');
    this.#incoming = this.#reassembly('in');
  }

  /** Buffers that are free: all of them whenever no call is under way. */
  get buffersFree(): number {
    return this.#core.arena.available;
  }

  /** Fragments that wait to be put together. */
  get fragmentsWaiting(): number {
    return this.#outgoing.fragments + this.#incoming.fragments;
  }

  get mtu(): number {
    return this.#core.mtu;
  }

  set mtu(octets: number) {
    assert(octets >= 68, 'an MTU that IPv4 can live with (RFC 791 §3.2)');
    this.#core.mtu = octets;
  }

  /**
   * Packets that the local side sends: protected, sent in the clear, or dropped, as policy says.
   */
  output(packets: readonly Packet[], count: number): void {
    assert(this.#outputDepth < NESTING_MAX, 'sinks and output do not call each other for ever');
    const depth = this.#outputDepth++;
    this.#outputs[depth] ??= new Output(this.#core, this.#outgoing);
    try {
      this.#outputs[depth]!.run(packets, count);
    } finally {
      this.#outputDepth--;
    }
  }

  /**
   * Packets from the wire, whatever they are: opened as far as they are for us, checked, delivered
   * or dropped.
   */
  input(packets: readonly Packet[], count: number): void {
    assert(this.#inputDepth < NESTING_MAX, 'sinks and input do not call each other for ever');
    const depth = this.#inputDepth++;
    this.#inputs[depth] ??= new Input(this.#core, this.#incoming);
    try {
      this.#inputs[depth]!.run(packets, count);
    } finally {
      this.#inputDepth--;
    }
  }

  /**
   * Does what is due: lifetimes, policies, waiting fragments, keep-alives. Returns when to be
   * called again (monotonic ms).
   */
  poll(nowMs: number): number {
    let due = Math.min(this.sad.poll(nowMs), this.spd.poll(nowMs));
    due = Math.min(due, this.#outgoing.poll(nowMs), this.#incoming.poll(nowMs));
    if (nowMs >= this.#keepaliveDueMs) {
      this.#keepaliveDueMs = sendKeepalives(this.#core, nowMs, (packet) => this.#sendOwn(packet));
    }
    return Math.min(due, this.#keepaliveDueMs);
  }

  /** What the host itself has for the wire: no policy applies. */
  #sendOwn(packet: Packet): void {
    const bad = this.#own.add(packet, true);
    assert(bad === undefined, 'a keep-alive is smaller than any MTU');
    this.#own.flush();
  }

  #reassembly(side: 'in' | 'out'): Reassembly {
    return new Reassembly({
      take: () => this.#core.arena.take(),
      dropped: (reason, fragments) => {
        for (let i = 0; i < fragments; i++) this.stats.drop(side, reason);
      },
      joined: (fragments) => {
        this.stats.reassembled++;
        this.stats.fragmentsJoined += fragments;
      },
    });
  }
}

function randomId(env: Env): number {
  const octets = new Uint8Array(2);
  env.random.fill(octets);
  return u16(octets, 0);
}
