import { type Address, addressFrom } from '../base/address.ts';
import type { DropReason } from '../base/drop.ts';
import type { Random } from '../base/env.ts';
import type { EspTransform } from '../crypto/transform.ts';
import type { Sa, SaProtocol, SaSpec } from '../sad/sa.ts';
import type { Direction } from '../spd/policy.ts';
import type { Lookup } from '../spd/policy-index.ts';
import type { Cursor } from '../wire/cursor.ts';
import { PACKET_LEN_MAX, PacketArena, type PacketSink, packetFrom } from '../wire/packet.ts';
import type { Core, Events, PolicyTable, SaTable, SocketTable } from './core.ts';
import type { Flight } from './flight.ts';
import { Hold } from './hold.ts';
import { Input } from './input.ts';
import { IvSource } from './iv.ts';
import { Output, type OutputSource } from './output.ts';
import { Quote } from './quote.ts';
import { Reassembly } from './reassembly.ts';
import { SaCache } from './sa-cache.ts';
import type { SocketEntry } from './socket-policies.ts';
import { Stats } from './stats.ts';

export interface ShadowOptions {
  /** Whether a program negotiates SAs of a protocol, so that a packet without one waits. */
  readonly isNegotiated?: ((protocol: SaProtocol) => boolean) | undefined;
  /** Replay windows are taken as empty: for packets that were received before. */
  readonly freshWindows?: boolean | undefined;
  /** Another MTU than the host's. */
  readonly mtu?: number;
}

/** What one packet made the engine ask and do. */
export interface Traces {
  /** The last question about a policy: the packet as it was then. */
  asked:
    | {
        readonly octets: Uint8Array;
        readonly found: Lookup;
        /** Whose packet it is, and whose policy had a say. */
        readonly socket?: SocketEntry;
      }
    | undefined;
  /** The policy of the flow that an ICMP error quotes, where it was asked for. */
  quoted: Lookup | undefined;
  /** SAs that were looked for by what stands in the packet, and the answer. */
  readonly wanted: {
    readonly protocol: SaProtocol;
    readonly spi: number;
    readonly dst: Address;
    readonly sa: Sa | undefined;
  }[];
  /** How many layers were opened, and sealed. */
  opened: number;
  sealed: number;
  readonly sent: Uint8Array[];
  readonly delivered: Uint8Array[];
  readonly drops: DropReason[];
}

/**
 * A second engine beside the host's: the same code over the same databases, but what it uses up or
 * changes are copies, and what it sends goes nowhere. It opens with the real keys; what it seals is
 * left as it is, so that no nonce is spent.
 */
export class Shadow {
  readonly core: Core;
  readonly traces: Traces = noTraces();
  /** Told of an incoming packet when the policy has been asked about it. */
  checked: ((flight: Flight, verdict: DropReason | undefined) => void) | undefined;

  readonly #real: Core;
  readonly #options: ShadowOptions;
  readonly #copies = new Map<Sa, Sa>();
  readonly #originals = new Map<Sa, Sa>();
  readonly #output: Output;
  readonly #input: Input;
  readonly #outgoing: Reassembly;
  readonly #incoming: Reassembly;

  constructor(real: Core, options: ShadowOptions) {
    this.#real = real;
    this.#options = options;
    const { env, settings, nextId } = real;
    let arena: PacketArena | undefined;
    const keep = (into: Uint8Array[]): PacketSink => {
      return (packets, count) => into.push(...packets.slice(0, count).map((one) => one.copy()));
    };
    this.core = {
      env: { ...env, log: () => {} },
      sad: this.#saTable(),
      spd: this.#policyTable(),
      sockets: this.#socketTable(),
      settings,
      stats: new Stats(),
      events: this.#events(),
      // Few packets need one, and it is large.
      get arena() {
        arena ??= new PacketArena(real.arena.available);
        return arena;
      },
      hold: new Hold({ dropped: () => this.traces.drops.push('held-too-long') }),
      // Keys that come while it is explained are not part of the question.
      early: new Hold({ packetsMax: 0, dropped: () => this.traces.drops.push('sa-not-usable') }),
      ivs: new IvSource(env.random),
      cache: new SaCache(),
      paths: real.paths.copy(),
      quote: new Quote(),
      muted: new Uint8Array(PACKET_LEN_MAX),
      nextId,
      nowMs: 0,
      nowWallMs: 0,
      forwards: real.forwards,
      mtu: options.mtu ?? real.mtu,
      transmit: keep(this.traces.sent),
      deliver: keep(this.traces.delivered),
      deliverToSockets: undefined,
      shard: undefined,
      checked: (flight, verdict) => this.checked?.(flight, verdict),
      askedSocket: (socket, p, cursor, found) => {
        this.traces.asked = { octets: p.slice(cursor.at, cursor.end), found, socket };
      },
    };
    this.#outgoing = this.#reassembly();
    this.#incoming = this.#reassembly();
    this.#output = new Output(this.core, this.#outgoing);
    this.#input = new Input(this.core, this.#incoming);
  }

  /** Takes one packet through; `traces` are those of the last one. */
  run(side: 'in' | 'out', octets: Uint8Array, source: OutputSource = 'host'): void {
    clear(this.traces);
    const packet = packetFrom(octets);
    if (side === 'out') this.#output.run([packet], 1, source);
    else this.#input.run([packet], 1);
  }

  /** Packets that wait for an SA; fragments that wait for others. */
  get held(): number {
    return this.core.hold.size;
  }

  get fragments(): number {
    return this.#outgoing.fragments + this.#incoming.fragments;
  }

  /** The host's SA behind a copy. */
  original(copy: Sa): Sa {
    return this.#originals.get(copy) ?? copy;
  }

  #copyOf(sa: Sa): Sa;
  #copyOf(sa: Sa | undefined): Sa | undefined;
  #copyOf(sa: Sa | undefined): Sa | undefined {
    if (sa === undefined) return undefined;
    let copy = this.#copies.get(sa);
    if (copy === undefined) {
      copy = sa.copy(harmless(sa.spec, this.#real.env.random), this.#options.freshWindows === true);
      this.#copies.set(sa, copy);
      this.#originals.set(copy, sa);
    }
    return copy;
  }

  #saTable(): SaTable {
    const { sad } = this.#real;
    return {
      get generation() {
        return sad.generation;
      },
      all: () => sad.all(),
      encapsulated: () => [],
      inbound: (protocol, spi, p, dstAt, dstLen) => {
        const sa = sad.inbound(protocol, spi, p, dstAt, dstLen);
        const dst = addressFrom(dstLen === 4 ? 4 : 6, p, dstAt);
        this.traces.wanted.push({ protocol, spi, dst, sa });
        return this.#copyOf(sa);
      },
      outbound: (...asked) => this.#copyOf(sad.outbound(...asked)),
      between: (...asked) => sad.between(...asked).map((sa) => this.#copyOf(sa)),
      ofSpi: (...asked) => sad.ofSpi(...asked).map((sa) => this.#copyOf(sa)),
      isSpent: (sa) => sad.isSpent(sa),
      count: () => {
        this.traces.sealed++;
      },
      settle: () => {},
      account: () => {
        this.traces.opened++;
      },
    };
  }

  #policyTable(): PolicyTable {
    const { spd } = this.#real;
    return {
      cacheCounters: spd.cacheCounters,
      get generation() {
        return spd.generation;
      },
      lookupBatch: (...asked) => spd.lookupBatch(...asked),
      list: (direction) => spd.list(direction),
      count: (direction) => spd.count(direction),
      used: () => {},
      lookup: (direction, p, cursor) => {
        const found = lookUpUncounted(spd, direction, p, cursor);
        if (p === this.core.quote.bytes) this.traces.quoted = found;
        else this.traces.asked = { octets: p.slice(cursor.at, cursor.end), found };
        return found;
      },
    };
  }

  #socketTable(): SocketTable {
    const { sockets } = this.#real;
    return {
      get size() {
        return sockets.size;
      },
      find: (...asked) => sockets.find(...asked),
      sender: (...asked) => sockets.sender(...asked),
      raws: (...asked) => sockets.raws(...asked),
      concerns: (...asked) => sockets.concerns(...asked),
      noteUse: () => {},
      noteRefusal: () => {},
    };
  }

  #events(): Events {
    const { isNegotiated = () => false } = this.#options;
    return {
      acquire: (_policy, { protocol }) => (isNegotiated(protocol) ? 'waiting' : 'nobody'),
      dropped: (_side, reason) => this.traces.drops.push(reason),
    };
  }

  #reassembly(): Reassembly {
    return new Reassembly({
      take: () => this.core.arena.take(),
      dropped: (reason) => this.traces.drops.push(reason),
    });
  }
}

/** A look that the counters of the flow cache do not show. */
function lookUpUncounted(
  spd: PolicyTable,
  direction: Direction,
  p: Uint8Array,
  cursor: Cursor,
): Lookup {
  const counters = spd.cacheCounters[cursor.family];
  const { lookups, misses } = counters;
  const found = spd.lookup(direction, p, cursor);
  counters.lookups = lookups;
  counters.misses = misses;
  return found;
}

/** Transforms that open with the keys of the SA, and seal nothing: ICVs are random octets. */
function harmless(spec: SaSpec, random: Random): SaSpec {
  const fill = (p: Uint8Array, at: number, len: number) => random.fill(p.subarray(at, at + len));
  const { esp, ah } = spec;
  return {
    ...spec,
    ...(esp === undefined ? {} : { esp: unsealing(esp, fill) }),
    ...(ah === undefined
      ? {}
      : {
          ah: {
            icvLen: ah.icvLen,
            ivLen: ah.ivLen,
            sign: (_p, _at, _end, _high, icv, icvAt) => fill(icv, icvAt, ah.icvLen),
            verify: (...given) => ah.verify(...given),
            wipe: () => {},
          },
        }),
  };
}

function unsealing(
  esp: EspTransform,
  fill: (p: Uint8Array, at: number, len: number) => void,
): EspTransform {
  const { ivLen, icvLen, alignLen, iv, authenticates } = esp;
  return {
    ...{ ivLen, icvLen, alignLen, iv, authenticates },
    seal: (p, _at, end) => fill(p, end, icvLen),
    open: (...given) => esp.open(...given),
    wipe: () => {},
  };
}

function noTraces(): Traces {
  return {
    ...{ asked: undefined, quoted: undefined, wanted: [], opened: 0, sealed: 0 },
    ...{ sent: [], delivered: [], drops: [] },
  };
}

function clear(traces: Traces): void {
  traces.asked = undefined;
  traces.quoted = undefined;
  traces.opened = 0;
  traces.sealed = 0;
  for (const list of [traces.wanted, traces.sent, traces.delivered, traces.drops]) list.length = 0;
}
