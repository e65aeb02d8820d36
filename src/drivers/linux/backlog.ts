import type { Packet, PacketSink } from '../../wire/packet.ts';
import type { BacklogCounts } from '../backlog-counts.ts';
import { BATCH_MAX } from '../held.ts';
import { Refusals } from '../refusals.ts';
import { F_DUPFD_CLOEXEC, failure, type Libc } from './libc.ts';
import { packetMemory } from './packet-memory.ts';
import { PacketRing } from './packet-ring.ts';
import { type EventWatch, NOTHING, type WatchedEvents, watch } from './poll.ts';
import { SO_SNDBUFFORCE, SOL_SOCKET, setOption } from './socket.ts';

/**
 * What may wait. The local side stops as soon as anything waits, so its part is what it has in
 * hand: a batch, with fragments and the segments of one large packet. The rest is for packets that
 * cannot be stopped: those of other threads, and what answers the wire.
 */
export const WAITING_PACKETS_MAX = 1024;
export const WAITING_OCTETS_MAX = 1 << 20;
/** Room in the kernel for all of that, and for what each packet costs it besides. */
const CLOSING_BUFFER_LEN = 8 << 20;
/**
 * For how long other wires count as in use after a packet. Meanwhile the local side is read, and
 * what finds no room to wait is dropped, as in a router.
 */
const OTHERS_MS = 10_000;
/** How many packets are looked at after a pause, for whether other wires are in use. */
const LOOKS_MAX = 4096;
/**
 * How often in a row a socket may say that it can be written to and then take nothing, until the
 * packet that it does not take is dropped: otherwise it would be asked for ever.
 */
const STALLS_MAX = 16;
const REFUSAL = 'EAGAIN';
const NO_FD = -1;
const WRITABLE: WatchedEvents = { readable: false, writable: true };

/** Something that need not be read while packets wait for the wire. */
export interface Pausable {
  pause(isPaused: boolean): void;
}

/** What is known of the devices that packets leave by: see `WireFinder`. */
export interface Wires {
  deviceOf(packet: Packet): number;
  forget(): void;
}

/**
 * Packets that the sockets to the network have no room for: a wire is slower than we are. Those
 * that leave by it wait in their order, whichever socket they go by, since what is overtaken may be
 * outside of the replay window when it arrives (RFC 4303 §3.4.3). Meanwhile the local side is not
 * read, so that its senders wait, or lose packets, in the kernel as they do before a network card;
 * unless it has packets for other wires too. These go beside, by sockets with room of their own.
 */
export class Backlog {
  /** Of packets that waited, or had no room for it. */
  readonly refusals = new Refusals();
  readonly #c: Libc;
  readonly #wires: Wires;
  readonly #ring: PacketRing;
  readonly #exits = new Map<number, Exit>();
  readonly #readers: Pausable[] = [];
  readonly #batch: Packet[] = [];
  readonly #others: Packet[] = [];
  /** Devices that packets in the ring leave by, or those that were the last in it. */
  readonly #slow = new Set<number>();
  #looks = 0;
  #send: PacketSink = () => {};
  #beside: PacketSink = () => {};
  #isWaiting = false;
  /** The socket that is waited for. */
  #fd = NO_FD;
  /** What is sent now is what waits; how much of that has to go on waiting. */
  #isDraining = false;
  #left = 0;
  /** How often in a row there was room, and nothing could be sent. */
  #stalls = 0;
  #othersMs = Number.NEGATIVE_INFINITY;
  #isPaused = false;
  #isClosed = false;
  #waited = 0;
  #pauses = 0;
  #full = 0;

  constructor(c: Libc, wires: Wires) {
    this.#c = c;
    this.#wires = wires;
    this.#ring = new PacketRing(packetMemory(c), WAITING_PACKETS_MAX, WAITING_OCTETS_MAX);
  }

  get counts(): BacklogCounts {
    const waiting = this.#ring.count;
    return { waited: this.#waited, waiting, pauses: this.#pauses, full: this.#full };
  }

  /** A socket that packets go by. Throws an Error. Close this before the socket. */
  add(fd: number): void {
    // A descriptor of our own: libuv watches each only once, and that of UDP is being read.
    const copy = this.#c.fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) throw failure(this.#c, 'watch a socket for room');
    const watching = watch(this.#c, copy, () => this.#drain());
    watching.want(NOTHING);
    this.#exits.set(fd, { copy, watching });
  }

  /**
   * Sets the way of packets that have waited, the same as of those that have not, and the one
   * beside it, by sockets that are not added here.
   */
  sendBy(send: PacketSink, beside: PacketSink): void {
    this.#send = send;
    this.#beside = beside;
  }

  /** Adds someone who reads packets that go to the network. */
  pauses(reader: Pausable): void {
    this.#readers.push(reader);
    if (this.#isPaused) reader.pause(true);
  }

  /** Whether packets have to be kept, rather than sent. */
  get isWaiting(): boolean {
    return this.#isWaiting;
  }

  /** Whether packets are to be shown to `look` before they are sent. */
  get isLooking(): boolean {
    return this.#looks > 0;
  }

  /** What has come while the local side was paused, and goes by another wire, was held up. */
  look(packets: readonly Packet[], count: number): void {
    this.#looks -= count;
    for (let i = 0; i < count; i++) {
      if (this.#slow.has(this.#wires.deviceOf(packets[i]!))) continue;
      this.#othersMs = performance.now();
      this.#looks = 0;
      return;
    }
  }

  /**
   * Takes packets `from` to `end`, which are IP, and borrows them: copies wait behind others, or
   * they go beside. `fd`: the socket that has just refused the first of them, unless others wait
   * already. Whoever has it keep one has to do so with all that come behind it.
   */
  keep(fd: number, packets: readonly Packet[], from: number, end: number): void {
    if (this.#isClosed) {
      this.refusals.add('closed', end - from);
      return;
    }
    if (!this.#isWaiting) this.#waitFor(fd, packets[from]!);
    if (this.#isDraining) {
      this.#left += end - from;
      return;
    }
    const others = this.#others;
    let lost = 0;
    for (let i = from; i < end; i++) {
      const packet = packets[i]!;
      if (!this.#slow.has(this.#wires.deviceOf(packet))) others.push(packet);
      else if (this.#ring.push(packet)) this.#waited++;
      else lost++;
    }
    this.#full += lost;
    this.refusals.add(REFUSAL, lost);
    if (others.length > 0) this.#sendBeside();
    this.#follow();
  }

  /** The kernel is given everything that waits, and what it does not take is counted. */
  close(): void {
    if (this.#isClosed) return;
    for (const fd of this.#ring.count > 0 ? this.#exits.keys() : []) {
      setOption(this.#c, fd, SOL_SOCKET, SO_SNDBUFFORCE, CLOSING_BUFFER_LEN);
    }
    this.#drain();
    this.#isClosed = true;
    this.#isWaiting = false;
    this.refusals.add('closed', this.#ring.count);
    this.#ring.drop(this.#ring.count);
    this.#ring.release();
    for (const { copy, watching } of this.#exits.values()) {
      watching.close();
      this.#c.close(copy);
    }
    this.#exits.clear();
    this.#follow();
  }

  #waitFor(fd: number, packet: Packet): void {
    this.#isWaiting = true;
    if (this.#ring.count === 0) this.#slow.clear();
    this.#slow.add(this.#wires.deviceOf(packet));
    if (fd === this.#fd) return;
    this.#exits.get(this.#fd)?.watching.want(NOTHING);
    this.#exits.get(fd)?.watching.want(WRITABLE);
    this.#fd = fd;
  }

  #sendBeside(): void {
    this.#othersMs = performance.now();
    this.#beside(this.#others, this.#others.length);
    this.#others.length = 0;
  }

  /** The local side is paused while packets wait, and all that it sends has to. */
  #follow(): void {
    const isPaused = this.#ring.count > 0 && performance.now() - this.#othersMs > OTHERS_MS;
    if (isPaused === this.#isPaused) return;
    this.#isPaused = isPaused;
    if (isPaused) this.#pauses++;
    for (const reader of this.#readers) reader.pause(isPaused);
  }

  /** Sends what waits, as far as the sockets take it. */
  #drain(): void {
    const ring = this.#ring;
    if (this.#isClosed) return;
    this.#wires.forget();
    this.#isWaiting = false;
    this.#isDraining = true;
    let sent = 0;
    while (ring.count > 0 && !this.#isWaiting) {
      const count = this.#peek();
      this.#left = 0;
      this.#send(this.#batch, count);
      // What a socket has no room for is the rest of the batch.
      sent += count - this.#left;
      ring.drop(count - this.#left);
    }
    this.#isDraining = false;
    this.#stalls = sent > 0 ? 0 : this.#stalls + 1;
    if (this.#isWaiting && this.#stalls > STALLS_MAX) this.#giveUp();
    if (ring.count === 0) this.#stopWaiting();
  }

  /** The first packets that wait, all of one family: so they go by one socket at a time. */
  #peek(): number {
    const batch = this.#batch;
    const count = this.#ring.peek(batch, BATCH_MAX);
    const version = versionOf(batch[0]!);
    let alike = 1;
    while (alike < count && versionOf(batch[alike]!) === version) alike++;
    return alike;
  }

  #stopWaiting(): void {
    this.#isWaiting = false;
    this.#exits.get(this.#fd)?.watching.want(NOTHING);
    this.#fd = NO_FD;
    if (this.#isPaused) this.#looks = LOOKS_MAX;
    this.#follow();
  }

  #giveUp(): void {
    this.#stalls = 0;
    this.#ring.drop(1);
    this.refusals.add(REFUSAL);
  }
}

/** A socket, and our own descriptor of it that says when there is room. */
interface Exit {
  readonly copy: number;
  readonly watching: EventWatch;
}

function versionOf({ bytes, at }: Packet): number {
  return bytes[at]! >>> 4;
}
