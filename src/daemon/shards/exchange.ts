import { assert } from '../../base/assert.ts';
import type { Flight } from '../../engine/flight.ts';
import { BATCH_MAX } from '../../engine/flight.ts';
import type { Host } from '../../engine/host.ts';
import type { Shard, Way } from '../../engine/shard.ts';
import type { Sa } from '../../sad/sa.ts';
import type { Policy } from '../../spd/policy.ts';
import { copy } from '../../wire/bytes.ts';
import { PACKET_LEN_SMALL, type Packet } from '../../wire/packet.ts';
import type { RingReader, RingWriter } from './ring.ts';

/** What a record is about. */
const KIND = { output: 1, undecided: 2, input: 3 } as const;
const FLAG_DF = 1;
const FLAG_WHOLE = 2;
const FLAG_TUNNEL = 1;
const FLAG_FOREIGN = 2;

/**
 * A packet that goes from shard to shard:
 *
 *     word 0   length of the record
 *          1   kind (8), layers (8), flags (8), how often it was passed on (8)
 *          2   octets of the packet
 *          3   going out: what its path carries
 *          4   octets of its largest fragment, if it came in fragments
 *          5…  its layers: number of the SA, and two flags in the lowest bits
 *     then the packet
 */
const WORD = { kind: 1, len: 2, mtu: 3, fragmentMax: 4, layers: 5 } as const;

/**
 * A packet goes to the owner of each of its SAs and a few times to the main shard: one that goes on
 * and on has met shards that contradict each other.
 */
const PASSES_MAX = 24;

export interface ExchangeOptions {
  readonly self: number;
  /** To and from each shard; undefined at its own place. */
  readonly writers: readonly (RingWriter | undefined)[];
  readonly readers: readonly (RingReader | undefined)[];
  /** Where packets of other shards are put while they are worked on. */
  readonly slots: ExchangeSlots;
  /** The SA that all shards know by that number. */
  readonly saOf: (slot: number) => Sa | undefined;
  /** There is something to read for a shard that may be asleep. */
  readonly wake: (shard: number) => void;
  /** Called when it is known what has arrived, and before it is looked at. */
  readonly beforePackets?: () => void;
  readonly peerMoved?: (sa: Sa) => void;
  /**
   * Others are behind: no more is to be read from the kernel, which keeps it or drops it as it does
   * when one thread is behind.
   */
  readonly pause?: (isPaused: boolean) => void;
}

export interface ExchangeSlots {
  /** `BATCH_MAX` for packets of usual size, and some for those of any size. */
  readonly small: readonly Packet[];
  readonly large: readonly Packet[];
}

/**
 * Packets that this shard passes to others, and those that others pass to it, in their order.
 */
export class Exchange implements Shard {
  readonly self: number;
  mainDelivers = false;
  /** Policies that packets have followed here since somebody emptied it. */
  readonly policiesUsed = new Set<Policy>();
  /** Packets that were passed on, that were taken over, and for which there was no room. */
  passed = 0;
  taken = 0;
  refused = 0;

  readonly #options: ExchangeOptions;
  readonly #packets: Packet[] = [];
  /** Where the records of the batch begin. */
  readonly #ats: number[] = [];
  #reader: RingReader | undefined;
  #lastPolicy: Policy | undefined;
  #isPaused = false;

  constructor(options: ExchangeOptions) {
    this.#options = options;
    this.self = options.self;
    assert(options.slots.small.length >= BATCH_MAX, 'slots for a batch');
  }

  passOutput(flight: Flight, from: number): boolean {
    const to = flight.layers[from]!.sa.owner;
    const flags = (flight.df ? FLAG_DF : 0) | (from === 0 ? FLAG_WHOLE : 0);
    return this.#write(to, KIND.output, flags, flight, from, flight.mtu);
  }

  passInput(flight: Flight): boolean {
    return this.#write(flight.sa!.owner, KIND.input, 0, flight, 0, 0);
  }

  referOutput(flight: Flight): boolean {
    // Layers that were chosen for it are not put on here.
    return this.#write(0, KIND.undecided, 0, flight, flight.layerCount, 0);
  }

  referInput(flight: Flight): boolean {
    return this.#write(0, KIND.input, 0, flight, 0, 0);
  }

  noteUsed(policy: Policy): void {
    if (policy === this.#lastPolicy) return;
    this.#lastPolicy = policy;
    this.policiesUsed.add(policy);
  }

  /** Those that were used since the last call. */
  takePoliciesUsed(): Policy[] {
    const used = [...this.policiesUsed];
    this.policiesUsed.clear();
    this.#lastPolicy = undefined;
    return used;
  }

  peerMoved(sa: Sa): void {
    this.#options.peerMoved?.(sa);
  }

  /** At the end of a batch: others see what was passed to them. */
  flush(): void {
    const { writers, wake } = this.#options;
    for (let to = 0; to < writers.length; to++) {
      const writer = writers[to];
      if (writer === undefined || !writer.isPending) continue;
      writer.publish();
      wake(to);
      if (!this.#isPaused && writer.isCongested) this.#pause(true);
    }
  }

  /**
   * Works on what has arrived by now; whether there was anything. What comes meanwhile waits for
   * the next call, so that it ends.
   */
  drain(host: Host): boolean {
    const { readers, beforePackets } = this.#options;
    let hasSome = false;
    for (const reader of readers) if (reader?.look()) hasSome = true;
    // Whatever its sender knew of SAs when it passed a packet on, this shard has been told by now.
    beforePackets?.();
    if (hasSome) this.#drainAll(host);
    if (this.#isPaused && !this.#isCongested) this.#pause(false);
    return hasSome;
  }

  /** The same, while `beforePackets` does what it does. */
  drainNow(host: Host): void {
    for (const reader of this.#options.readers) reader?.look();
    this.#drainAll(host);
  }

  #drainAll(host: Host): void {
    const { readers } = this.#options;
    for (let from = 0; from < readers.length; from++) {
      const reader = readers[from];
      if (reader !== undefined) this.#drainFrom(host, reader, from);
    }
  }

  #write(
    to: number,
    kind: number,
    flags: number,
    flight: Flight,
    from: number,
    mtu: number,
  ): boolean {
    const writer = this.#options.writers[to];
    const { packet, layerCount } = flight;
    if (writer === undefined || packet.passes >= PASSES_MAX) return this.#refuse();
    const count = layerCount - from;
    const at = writer.reserve(4 * (WORD.layers + count) + packet.len);
    if (at < 0) {
      // Somebody has to begin to read.
      this.flush();
      return this.#refuse();
    }
    const { words } = writer;
    const w = at >>> 2;
    words[w + WORD.kind] = kind | (count << 8) | (flags << 16) | ((packet.passes + 1) << 24);
    words[w + WORD.len] = packet.len;
    words[w + WORD.mtu] = mtu;
    words[w + WORD.fragmentMax] = packet.fragmentMax;
    for (let i = 0; i < count; i++) {
      const { sa, tunnel, foreign } = flight.layers[from + i]!;
      const marks = (tunnel ? FLAG_TUNNEL : 0) | (foreign ? FLAG_FOREIGN : 0);
      words[w + WORD.layers + i] = 4 * sa.slot + marks;
    }
    const dataAt = at + 4 * (WORD.layers + count);
    copy(packet.bytes, packet.at, writer.bytes, dataAt, packet.len);
    this.passed++;
    return true;
  }

  get #isCongested(): boolean {
    return this.#options.writers.some((writer) => writer?.isCongested);
  }

  #pause(isPaused: boolean): void {
    this.#isPaused = isPaused;
    this.#options.pause?.(isPaused);
  }

  #refuse(): false {
    this.refused++;
    return false;
  }

  /** Records of one kind that follow each other are a batch, as far as there are slots. */
  #drainFrom(host: Host, reader: RingReader, from: number): void {
    const { small, large } = this.#options.slots;
    this.#reader = reader;
    let kind = 0;
    let [smallUsed, largeUsed] = [0, 0];
    for (let at = reader.next(); at >= 0; at = reader.next()) {
      const w = at >>> 2;
      const is = reader.words[w + WORD.kind]! & 0xff;
      const isSmall = reader.words[w + WORD.len]! <= PACKET_LEN_SMALL;
      const isFull = isSmall ? smallUsed === BATCH_MAX : largeUsed === large.length;
      if (is !== kind || isFull || this.#packets.length === BATCH_MAX) {
        this.#run(host, kind, from);
        reader.releaseOthers();
        [smallUsed, largeUsed] = [0, 0];
        kind = is;
      }
      this.#take(isSmall ? small[smallUsed++]! : large[largeUsed++]!, at);
    }
    this.#run(host, kind, from);
    reader.release();
    this.#reader = undefined;
    if (reader.takeAwaited()) this.#options.wake(from);
  }

  #take(packet: Packet, at: number): void {
    const { words, bytes } = this.#reader!;
    const w = at >>> 2;
    const head = words[w + WORD.kind]!;
    const len = words[w + WORD.len]!;
    packet.reset();
    copy(bytes, at + 4 * (WORD.layers + ((head >>> 8) & 0xff)), packet.bytes, packet.at, len);
    packet.end = packet.at + len;
    packet.fragmentMax = words[w + WORD.fragmentMax]!;
    packet.passes = head >>> 24;
    this.#packets.push(packet);
    this.#ats.push(at);
    this.taken++;
  }

  #run(host: Host, kind: number, from: number): void {
    const packets = this.#packets;
    const count = packets.length;
    if (count === 0) return;
    if (kind === KIND.output) host.resumeOutput(packets, count, this.#wayOut);
    else if (kind === KIND.undecided) host.output(packets, count);
    else host.resumeInput(packets, count, this.#wayIn, from === 0);
    packets.length = 0;
    this.#ats.length = 0;
  }

  readonly #wayOut: Way = (i, flight) => {
    const { words } = this.#reader!;
    const w = this.#ats[i]! >>> 2;
    const flags = (words[w + WORD.kind]! >>> 16) & 0xff;
    if (!this.#readLayers(w, flight)) return (flags & FLAG_WHOLE) !== 0 ? 'anew' : 'gone';
    flight.mtu = words[w + WORD.mtu]!;
    flight.mtuLayers = flight.layerCount;
    flight.df = (flags & FLAG_DF) !== 0;
    return 'known';
  };

  readonly #wayIn: Way = (i, flight) => {
    return this.#readLayers(this.#ats[i]! >>> 2, flight) ? 'known' : 'gone';
  };

  /** False when one of the SAs is not there any more. */
  #readLayers(w: number, flight: Flight): boolean {
    const { words } = this.#reader!;
    const count = (words[w + WORD.kind]! >>> 8) & 0xff;
    for (let i = 0; i < count; i++) {
      const word = words[w + WORD.layers + i]!;
      const sa = this.#options.saOf(word >>> 2);
      if (sa === undefined || !sa.isUsable) return false;
      flight.push(sa, (word & FLAG_TUNNEL) !== 0, (word & FLAG_FOREIGN) !== 0);
    }
    return true;
  }
}
