import { assert } from '../base/assert.ts';
import type { DropReason } from '../base/drop.ts';
import type { Env } from '../base/env.ts';
import type { Sa } from '../sad/sa.ts';
import type { Sad } from '../sad/sad.ts';
import type { Spd } from '../spd/spd.ts';
import { u16 } from '../wire/bytes.ts';
import {
  PACKET_LEN_MAX,
  type Packet,
  PacketArena,
  type PacketSink,
  packetFrom,
} from '../wire/packet.ts';
import { type Core, type Events, noteDrop, type SocketSink, type UdpEndpoint } from './core.ts';
import { Explainer, type ExplainOptions, sideOf } from './explain.ts';
import type { Explanation } from './explanation.ts';
import { Hold, type HoldOptions } from './hold.ts';
import { overhear } from './icmp-error.ts';
import { Input } from './input.ts';
import { IvSource } from './iv.ts';
import { follow, sendKeepalives } from './natt.ts';
import { Output, type OutputSource } from './output.ts';
import { type Path, PathMtus } from './pmtu.ts';
import { Quote } from './quote.ts';
import { Reassembly } from './reassembly.ts';
import { SaCache } from './sa-cache.ts';
import { defaultSettings, type Settings } from './settings.ts';
import type { Shard, Way } from './shard.ts';
import { type SocketEnds, SocketEntry, SocketPolicies } from './socket-policies.ts';
import { type Protection, protectionOf } from './socket-status.ts';
import { type Side, Stats } from './stats.ts';
import type { Tracer } from './tracer.ts';
import { Transmitter } from './transmit.ts';

/** Hosts joined in memory, with programs that answer, nest a few levels deep. */
const NESTING_MAX = 16;

/**
 * How long a packet waits for the keys of its SA: what passes between the two sides of a key
 * exchange installing them.
 */
const EARLY_MS = 2000;

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
  /** Sockets with policies of their own; none. */
  readonly sockets?: SocketPolicies;
  /**
   * To the local side: what is for sockets in that table, with which ones, and errors about what
   * they sent. Without it everything goes to `deliver`.
   */
  readonly deliverToSockets?: SocketSink;
  /** Buffers for fragments, reassembled datagrams and errors. 128. */
  readonly buffers?: number;
  /** Whether the local side forwards to other hosts, as a kernel behind a TUN device does. No. */
  readonly forwards?: boolean;
  /** How many packets may wait for SAs, and for how long. */
  readonly hold?: Omit<HoldOptions, 'dropped'>;
  /** Where it stands, if it is not the only engine of its host. */
  readonly shard?: Shard;
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
  readonly sockets: SocketPolicies;

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
  #heldAtGeneration = 0;

  constructor(options: HostOptions) {
    const { env, sad, spd, events = {}, mtu = 1500 } = options;
    this.sad = sad;
    this.spd = spd;
    this.settings = options.settings ?? defaultSettings();
    this.sockets = options.sockets ?? new SocketPolicies();
    this.#core = {
      env,
      sad,
      spd,
      sockets: this.sockets,
      settings: this.settings,
      stats: this.stats,
      events,
      arena: new PacketArena(options.buffers ?? 128),
      hold: new Hold({
        ...options.hold,
        dropped: (octets) => this.#giveUp('out', 'held-too-long', octets),
      }),
      early: new Hold({
        timeoutMs: EARLY_MS,
        dropped: (octets) => this.#giveUp('in', 'sa-not-usable', octets),
      }),
      ivs: new IvSource(env.random),
      cache: new SaCache(),
      paths: new PathMtus(),
      quote: new Quote(),
      muted: new Uint8Array(PACKET_LEN_MAX),
      nextId: randomId(env),
      nowMs: 0,
      nowWallMs: 0,
      forwards: options.forwards ?? false,
      mtu,
      transmit: options.transmit,
      deliver: options.deliver,
      deliverToSockets: options.deliverToSockets,
      shard: options.shard,
    };
    this.#own = new Transmitter(this.#core, 'wire');
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

  /** Is shown all packets, and all drops. */
  get tracer(): Tracer | undefined {
    return this.#core.tracer;
  }

  set tracer(tracer: Tracer | undefined) {
    this.#core.tracer = tracer;
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
    this.#outputFrom('host', packets, count);
  }

  /**
   * Packets that sockets of the table send, as their policies say. One whose socket is not there is
   * dropped: it must not leave in the clear because a table was late.
   */
  outputOfSockets(packets: readonly Packet[], count: number): void {
    this.#outputFrom('sockets', packets, count);
  }

  /** Packets that one socket sends. */
  outputOf(socket: SocketEntry, packets: readonly Packet[], count: number): void {
    this.#outputFrom(socket, packets, count);
  }

  /**
   * Whether what goes between these ends, or what a socket sends and gets, is protected, and how:
   * of sockets of the table the last packets say it, of others the policies.
   */
  protectionOf(of: SocketEnds | SocketEntry): Protection {
    const socket = of instanceof SocketEntry ? of : this.sockets.get(of);
    return protectionOf(this.#core, socket?.ends ?? (of as SocketEnds), socket);
  }

  #outputFrom(source: OutputSource, packets: readonly Packet[], count: number): void {
    assert(this.#outputDepth < NESTING_MAX, 'sinks and output do not call each other for ever');
    const depth = this.#outputDepth++;
    this.#core.tracer?.seen('out', packets, count);
    try {
      this.#outputAt(depth).run(packets, count, source);
    } finally {
      this.#outputDepth--;
    }
  }

  #outputAt(depth: number): Output {
    this.#outputs[depth] ??= new Output(this.#core, this.#outgoing);
    return this.#outputs[depth];
  }

  /**
   * Packets from the wire, whatever they are: opened as far as they are for us, checked, delivered
   * or dropped.
   */
  input(packets: readonly Packet[], count: number): void {
    assert(this.#inputDepth < NESTING_MAX, 'sinks and input do not call each other for ever');
    const depth = this.#inputDepth++;
    this.#core.tracer?.seen('in', packets, count);
    try {
      this.#inputAt(depth).run(packets, count);
    } finally {
      this.#inputDepth--;
    }
  }

  /**
   * Packets that another shard has decided about, one batch at most: the layers that `way` leaves
   * in their flights are put on. Where it leaves none, they are decided about anew.
   */
  resumeOutput(packets: readonly Packet[], count: number, way: Way): void {
    assert(this.#outputDepth < NESTING_MAX, 'shards do not call each other');
    const depth = this.#outputDepth++;
    try {
      this.#outputAt(depth).resume(packets, count, way);
    } finally {
      this.#outputDepth--;
    }
  }

  /**
   * Packets from the wire, one batch at most, that another shard has begun with: `way` leaves in
   * their flights the layers that are off. `isFinal`: it was the main shard, so that nobody knows
   * better.
   */
  resumeInput(packets: readonly Packet[], count: number, way: Way, isFinal: boolean): void {
    assert(this.#inputDepth < NESTING_MAX, 'shards do not call each other');
    const depth = this.#inputDepth++;
    try {
      this.#inputAt(depth).resume(packets, count, way, isFinal);
    } finally {
      this.#inputDepth--;
    }
  }

  /** Another shard has seen that the peer of an SA, behind a NAT, is at another place now. */
  natMoved(sa: Sa, to: UdpEndpoint): void {
    follow(this.#core, sa, to);
  }

  #inputAt(depth: number): Input {
    this.#inputs[depth] ??= new Input(this.#core, this.#incoming);
    return this.#inputs[depth];
  }

  /**
   * Copies of ICMP errors that the machine has from the wire as well: what they say about packets
   * that this host has protected is used, and nothing is delivered.
   */
  overhear(packets: readonly Packet[], count: number): void {
    for (let i = 0; i < count; i++) overhear(this.#core, packets[i]!);
  }

  /** The paths that are known to carry less than the wire. */
  get paths(): readonly Path[] {
    return this.#core.paths.list();
  }

  /**
   * What would become of packets if they came now, one after the other; `auto`: IPsec from the
   * wire, everything else from the local side. Nothing changes.
   */
  explain(
    side: Side | 'auto',
    packets: readonly Uint8Array[],
    options: ExplainOptions = {},
  ): Explanation[] {
    const explainer = new Explainer(this.#core, options);
    return packets.map((octets) => {
      return explainer.explain(side === 'auto' ? sideOf(this.#core, octets) : side, octets);
    });
  }

  /** Changes with `paths`. */
  get pathsGeneration(): number {
    return this.#core.paths.generation;
  }

  /** Another shard knows better. */
  set paths(paths: readonly Path[]) {
    this.#core.paths.become(paths);
  }

  /** Packets that wait for an SA. */
  get packetsHeld(): number {
    return this.#core.hold.size + this.#core.early.size;
  }

  /**
   * Sends and opens what waited, if SAs or policies have changed since; what still lacks an SA, or
   * its keys, waits again.
   * To be called when SAs were added, so that nothing waits for the next `poll`.
   */
  releaseHeld(): void {
    const { hold, early } = this.#core;
    const generation = this.sad.generation + this.spd.generation + this.sockets.generation;
    if (hold.size + early.size === 0 || this.#heldAtGeneration === generation) return;
    this.#heldAtGeneration = generation;
    // They were counted when they came.
    early.retryAll((octets) => {
      this.#retry('in', 'sa-not-usable', octets, (packet) => {
        this.stats.of(packet).inPackets--;
        this.input([packet], 1);
      });
    });
    hold.retryAll((octets, socket) => {
      this.#retry('out', 'held-too-long', octets, (packet) => {
        this.stats.of(packet).outPackets--;
        this.#outputFrom(socket ?? 'host', [packet], 1);
      });
    });
  }

  /**
   * Does what is due: lifetimes, policies, waiting fragments, keep-alives. Returns when to be
   * called again (monotonic ms).
   */
  poll(nowMs: number): number {
    let due = Math.min(this.sad.poll(nowMs), this.spd.poll(nowMs));
    due = Math.min(due, this.#outgoing.poll(nowMs), this.#incoming.poll(nowMs));
    const { hold, early, paths } = this.#core;
    due = Math.min(due, hold.poll(nowMs), early.poll(nowMs), paths.poll(nowMs));
    this.releaseHeld();
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

  #retry(side: Side, reason: DropReason, octets: Uint8Array, send: (packet: Packet) => void): void {
    const { arena } = this.#core;
    const packet = arena.take();
    if (packet === undefined) return this.#giveUp(side, reason, octets);
    packet.load(octets);
    send(packet);
    arena.give(packet);
  }

  #giveUp(side: Side, reason: DropReason, octets: Uint8Array): void {
    noteDrop(this.#core, side, reason, packetFrom(octets));
  }

  #reassembly(side: 'in' | 'out'): Reassembly {
    return new Reassembly({
      take: () => this.#core.arena.take(),
      dropped: (reason, fragments, family) => {
        for (let i = 0; i < fragments; i++) this.stats.drop(side, reason, family);
        this.#core.tracer?.dropped(side, reason, undefined);
      },
      joined: (fragments, family) => {
        this.stats.families[family].reassembled++;
        this.stats.families[family].fragmentsJoined += fragments;
      },
    });
  }
}

function randomId(env: Env): number {
  const octets = new Uint8Array(2);
  env.random.fill(octets);
  return u16(octets, 0);
}
