import { assert } from '../base/assert.ts';
import type { DropReason } from '../base/drop.ts';
import type { Sa } from '../sad/sa.ts';
import { u8 } from '../wire/bytes.ts';
import { decode } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import * as ah from './ah.ts';
import { type Core, nextId, noteDrop, noteUsed, tick } from './core.ts';
import { CryptoRound } from './crypto-round.ts';
import { announceMissing, decideAs, decideOutput, innerMtu, mustBeCut, takeWay } from './decide.ts';
import * as esp from './esp.ts';
import { BATCH_MAX, Flight } from './flight.ts';
import { fragment, fragmentId } from './fragment.ts';
import { openGap } from './header.ts';
import { mayReport, tooBig, writeError } from './icmp.ts';
import { LookAhead } from './look-ahead.ts';
import type { Reassembly } from './reassembly.ts';
import { fitsBehind, mayLead, stampRow } from './row.ts';
import { countFollowers, isPlain } from './same-flow.ts';
import { isWorker, type Shard, type Way } from './shard.ts';
import type { SocketEntry } from './socket-policies.ts';
import { Transmitter } from './transmit.ts';
import { encapsulate, innerProtocol, outerDf } from './tunnel.ts';

/**
 * Every link carries this much, so a too-big error that says less helps nobody (RFC 791 §3.2, RFC
 * 8200 §5).
 */
const MTU_MIN = { 4: 68, 6: ipv6.MTU_MIN } as const;

/**
 * Who sends packets: the host, whose policies they go by; sockets of the table, which are looked
 * up; or one socket.
 */
export type OutputSource = 'host' | 'sockets' | SocketEntry;

/**
 * From the local side to the wire, a batch at a time:
 *
 *     decide      which policy, which SAs, what size; drops and errors are answered here
 *     seal        one round per layer, from the inside out: prepare all, seal all, complete all
 *     transmit    in fragments where needed
 */
export class Output {
  readonly #core: Core;
  readonly #reassembly: Reassembly;
  readonly #transmitter: Transmitter;
  readonly #flights = Array.from({ length: BATCH_MAX }, () => new Flight());
  /** Of a batch, those that are sealed: each with the packets of its row. */
  readonly #heads: Flight[] = [];
  /** Those of a datagram that is cut again. */
  readonly #pieces: Flight[] = [];
  readonly #crypto = new CryptoRound();
  readonly #ahead = new LookAhead();
  #source: OutputSource = 'host';
  /** The batch that is under way, which rows point into. */
  #packets: readonly Packet[] = [];

  constructor(core: Core, reassembly: Reassembly) {
    this.#core = core;
    this.#reassembly = reassembly;
    this.#transmitter = new Transmitter(core, 'wire');
  }

  run(packets: readonly Packet[], count: number, source: OutputSource = 'host'): void {
    this.#source = source;
    for (let from = 0; from < count; from += BATCH_MAX) {
      this.#batch(packets, from, Math.min(count, from + BATCH_MAX));
    }
  }

  /** Packets that another shard has decided about, `BATCH_MAX` at most. */
  resume(packets: readonly Packet[], count: number, way: Way): void {
    assert(count <= BATCH_MAX, 'one batch');
    this.#source = 'host';
    tick(this.#core);
    const flights = this.#flights;
    let layers = 0;
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      flight.begin(packets[i]!, false);
      const found = way(i, flight);
      if (found === 'anew') flight.begin(packets[i]!, false);
      const bad = found === 'gone' ? 'no-sa' : read(flights, i, i + 1);
      if (bad !== undefined) this.#drop(flight, bad);
      else if (found === 'anew') this.#decide(flight, undefined);
      if (flight.active && flight.layerCount > layers) layers = flight.layerCount;
    }
    this.#finish(flights, count, layers);
  }

  #batch(packets: readonly Packet[], from: number, to: number): void {
    tick(this.#core);
    const flights = this.#flights;
    this.#packets = packets;
    const isForeseen = this.#source === 'host' && this.#ahead.isWorth(this.#core);
    if (isForeseen) {
      for (let i = from; i < to; i++) this.#begin(flights[i - from]!, packets, i);
      this.#ahead.run(this.#core, flights, to - from);
    }
    const heads = this.#heads;
    let count = 0;
    let taken = 0;
    let layers = 0;
    let before: Flight | undefined;
    let head: Flight | undefined;
    for (let i = from; i < to; i++) {
      const flight = flights[taken++]!;
      if (!isForeseen) this.#begin(flight, packets, i);
      if (flight.active) this.#decide(flight, before);
      before = flight;
      if (head !== undefined && this.#joins(flight, head)) {
        head.rowLen++;
      } else {
        head = flight;
        heads[count++] = flight;
        if (flight.active && flight.layerCount > layers) layers = flight.layerCount;
      }
      if (!isForeseen) i += this.#gather(flight, head, i + 1, to);
    }
    this.#finish(heads, count, layers);
    for (let i = 0; i < count; i++) if (heads[i]!.cut) this.#sendInPieces(heads[i]!);
  }

  /** What comes after the decision, which is the same for all that the flights hold. */
  #finish(flights: readonly Flight[], count: number, layers: number): void {
    const { stats, sockets, shard } = this.#core;
    for (let layer = 0; layer < layers; layer++) {
      if (shard !== undefined) this.#passOn(shard, flights, count, layer);
      this.#seal(flights, count, layer);
    }
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      if (!flight.active) continue;
      const counters = stats.of(flight.packet);
      const bad = this.#transmitter.add(flight.packet, flight.owned, flight.mtu);
      const { index, rowLen } = flight;
      if (rowLen > 1) this.#transmitter.addAll(this.#packets, index + 1, index + rowLen);
      if (bad !== undefined) this.#drop(flight, bad);
      else if (flight.layerCount > 0) counters.outProtected += flight.rowLen;
      else counters.outClear++;
      const { socket } = flight;
      if (socket && bad === undefined) {
        sockets.noteUse(socket, 'out', flight, this.#core.nowWallMs);
      }
    }
    this.#transmitter.flush();
    shard?.flush();
  }

  /** Whether a packet that was decided on is sealed in the row of the one before it. */
  #joins(flight: Flight, head: Flight): boolean {
    return fitsBehind(flight, head) && (head.rowLen > 1 || mayLead(this.#core, head));
  }

  /** How many packets behind one go as it does, in the row of `head`, without a decision. */
  #gather(flight: Flight, head: Flight, from: number, to: number): number {
    const { packet, cursor, active } = flight;
    if (from === to || !active) return 0;
    const count = countFollowers(this.#packets, from, to, packet, cursor, isPlain(cursor));
    if (count === 0 || (head.rowLen === 1 && !mayLead(this.#core, head))) return 0;
    this.#core.stats.families[cursor.family].outPackets += count;
    head.rowLen += count;
    return count;
  }

  #begin(flight: Flight, packets: readonly Packet[], i: number): void {
    const packet = packets[i]!;
    flight.begin(packet, false);
    flight.index = i;
    packet.follows = false;
    this.#core.stats.of(packet).outPackets++;
    const bad = decode(packet.bytes, packet.at, packet.end, flight.cursor);
    if (bad !== undefined) this.#drop(flight, bad);
    else packet.end = flight.cursor.end;
  }

  #decide(flight: Flight, before: Flight | undefined): void {
    const core = this.#core;
    if (before !== undefined && decideAs(flight, before)) return;
    if (this.#source !== 'host' && !this.#attribute(flight, this.#source)) return;
    let verdict = decideOutput(core, flight);
    if (verdict === 'reassemble' && !isWorker(core.shard)) {
      if (!this.#reassemble(flight)) return;
      verdict = decideOutput(core, flight);
      // Only a fragment within a fragment still is one.
      if (verdict === 'reassemble') return this.#drop(flight, 'bad-option');
    }
    const { shard } = core;
    if (isWorker(shard) && (verdict !== 'protect' || flight.lacks.length > 0)) {
      return this.#refer(shard, flight);
    }
    noteUsed(core, flight.policy);
    const isNegotiated = flight.lacks.length > 0 && announceMissing(core, flight);
    if (verdict === 'protect' && mustBeCut(core, flight)) {
      flight.cut = true;
      flight.active = false;
    }
    if (typeof verdict !== 'object') return;
    if (verdict.drop === 'no-sa' && isNegotiated) return this.#hold(flight);
    if (verdict.drop === 'too-big') this.#reportTooBig(flight);
    this.#drop(flight, verdict.drop);
  }

  /** As `mustBeCut` says: the pieces go the way that was found for the whole. */
  #sendInPieces(whole: Flight): void {
    const { arena, env } = this.#core;
    const { packet, cursor } = whole;
    const flights = this.#pieces;
    let count = 0;
    const id = fragmentId(env.random);
    const take = () => arena.take();
    const emit = (piece: Packet) => {
      flights[count] ??= new Flight();
      flights[count]!.begin(piece, true);
      count++;
    };
    const bad =
      fragment(packet, cursor, packet.fragmentMax, id, take, emit) ?? read(flights, 0, count);
    if (bad !== undefined) {
      for (let i = 0; i < count; i++) arena.give(flights[i]!.packet);
      return this.#drop(whole, bad);
    }
    arena.give(packet);
    for (let i = 0; i < count; i++) takeWay(flights[i]!, whole);
    this.#finish(flights, count, whole.layerCount);
  }

  /** The packets whose next SA another shard owns are that one's from here on. */
  #passOn(shard: Shard, flights: readonly Flight[], count: number, layer: number): void {
    const { sockets, nowWallMs } = this.#core;
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      if (!flight.active || layer >= flight.layerCount) continue;
      if (flight.layers[layer]!.sa.owner === shard.self) continue;
      if (!shard.passOutput(flight, layer)) {
        this.#drop(flight, 'shard-full');
        continue;
      }
      if (flight.socket) sockets.noteUse(flight.socket, 'out', flight, nowWallMs);
      this.#release(flight);
      flight.active = false;
    }
  }

  /** Only the main shard can deal with it. */
  #refer(shard: Shard, flight: Flight): void {
    if (!shard.referOutput(flight)) return this.#drop(flight, 'shard-full');
    flight.active = false;
    // It is counted where it is decided.
    this.#core.stats.of(flight.packet).outPackets--;
  }

  /** Whose packet it is; false if it goes no further, or not yet. */
  #attribute(flight: Flight, source: Exclude<OutputSource, 'host'>): boolean {
    const { sockets } = this.#core;
    if (source === 'sockets') {
      // Only the first fragment has the ports that its socket is known by.
      if (flight.cursor.isFragment && !this.#reassemble(flight)) return false;
      flight.socket = sockets.sender(flight.packet.bytes, flight.cursor);
    } else {
      flight.socket = source;
    }
    if (flight.socket === undefined) this.#drop(flight, 'socket-unknown');
    return flight.socket !== undefined;
  }

  /** The packet waits for the SA that is being negotiated, and comes back as a new one. */
  #hold(flight: Flight): void {
    const { hold, nowMs, stats } = this.#core;
    flight.active = false;
    hold.add(flight.packet, nowMs, flight.socket);
    stats.held++;
    this.#release(flight);
  }

  /**
   * Puts the fragment to the others; true when the datagram is whole, and now is the flight's
   * packet.
   */
  #reassemble(flight: Flight): boolean {
    const { packet, cursor, socket } = flight;
    const { nowMs } = this.#core;
    const whole = this.#reassembly.add(packet.bytes, cursor, nowMs, sourceKey(this.#source));
    flight.active = false;
    if (whole === undefined) return false;
    flight.begin(whole, true);
    flight.socket = socket;
    const bad = decode(whole.bytes, whole.at, whole.end, cursor);
    if (bad !== undefined) this.#drop(flight, bad);
    return flight.active;
  }

  #reportTooBig(flight: Flight): void {
    const core = this.#core;
    const { packet, cursor } = flight;
    if (!mayReport(packet, cursor)) return;
    const error = core.arena.take();
    if (error === undefined) return;
    const largest = innerMtu(flight, cursor.insertAt - cursor.at);
    const mtu = Math.max(largest, MTU_MIN[cursor.family]);
    writeError(error, packet, cursor, tooBig(cursor.family, mtu), nextId(core));
    core.stats.families[cursor.family].tooBigSent++;
    const takers = flight.socket?.alone;
    if (takers && core.deliverToSockets) core.deliverToSockets([error], 1, [takers]);
    else core.deliver([error], 1);
    core.arena.give(error);
  }

  /** One round: every packet that has this layer gets it. */
  #seal(flights: readonly Flight[], count: number, layer: number): void {
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      if (!flight.active || layer >= flight.layerCount) continue;
      const bad = this.#prepare(flight, layer);
      if (bad !== undefined) this.#drop(flight, bad);
    }
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      if (!flight.active || layer >= flight.layerCount) continue;
      const { sa } = flight.layers[layer]!;
      if (sa.spec.protocol === 'esp') {
        this.#crypto.seal(flight, sa, this.#packets);
      } else {
        const bad = ah.sign(this.#core, flight, sa);
        if (bad !== undefined) this.#drop(flight, bad);
      }
    }
    this.#crypto.run();
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      if (flight.active && layer < flight.layerCount) this.#complete(flight, layer);
    }
  }

  #prepare(flight: Flight, layer: number): DropReason | undefined {
    const { sad } = this.#core;
    const { packet, cursor, rowLen } = flight;
    const { sa, tunnel } = flight.layers[layer]!;
    // An earlier packet of this batch may have used the SA up.
    if (sad.isSpent(sa)) return 'no-sa';
    flight.seq = sa.takeSeq(rowLen);
    if (flight.seq < 0) return flight.seq === -1 ? 'sequence-exhausted' : 'sequence-store';
    flight.payloadLen = packet.end - (tunnel ? packet.at : cursor.insertAt);
    const next = this.#makeRoom(flight, sa, tunnel);
    if (sa.spec.protocol === 'esp') esp.prepare(this.#core, flight, sa, next);
    else ah.prepare(flight, sa, next);
    sad.count(sa, rowLen, rowLen * flight.payloadLen);
    if (rowLen > 1) stampRow(this.#core, flight, sa, this.#packets);
    return undefined;
  }

  /**
   * Headers in front, with a gap behind them for those of the layer. The protocol of what the layer
   * protects.
   */
  #makeRoom(flight: Flight, sa: Sa, tunnel: boolean): number {
    const core = this.#core;
    const { packet, cursor } = flight;
    const family = tunnel ? sa.spec.src.family : cursor.family;
    const gapLen = sa.spec.protocol === 'esp' ? esp.frontLen(sa) : ah.headerLen(sa, family);
    if (tunnel) {
      const next = innerProtocol(cursor.family);
      flight.df = outerDf(sa, core.settings, flight.df);
      encapsulate(packet, cursor, sa, gapLen, nextId(core), core.settings, flight.df);
      return next;
    }
    const next = u8(packet.bytes, cursor.insertProtocolAt);
    if (family === 4) this.#ownId(packet);
    openGap(packet, cursor, gapLen);
    return next;
  }

  /** The kernel replaces an identification of 0 when it sends, which would break AH. */
  #ownId(packet: Packet): void {
    if (ipv4.id(packet.bytes, packet.at) === 0)
      ipv4.setId(packet.bytes, packet.at, nextId(this.#core));
  }

  #complete(flight: Flight, layer: number): void {
    const { sad, stats, nowMs } = this.#core;
    const { sa } = flight.layers[layer]!;
    if (sa.spec.protocol === 'esp') {
      this.#crypto.settle(flight);
      assert(flight.jobOk, 'the cryptographic library seals what it is given');
      esp.complete(flight, sa);
      if (sa.spec.encapsulation !== undefined) sa.lastSentMs = nowMs;
    }
    const { rowLen, payloadLen } = flight;
    stats.families[flight.cursor.family].sealed.count(sa, rowLen, rowLen * payloadLen);
    sad.settle(sa);
  }

  #drop(flight: Flight, reason: DropReason): void {
    flight.active = false;
    noteDrop(this.#core, 'out', reason, flight.packet);
    for (let k = 1; k < flight.rowLen; k++) {
      noteDrop(this.#core, 'out', reason, this.#packets[flight.index + k]!);
    }
    this.#release(flight);
  }

  #release(flight: Flight): void {
    if (flight.owned) this.#core.arena.give(flight.packet);
    flight.owned = false;
  }
}

/** What is wrong with the first of these packets that cannot be read; undefined: nothing. */
function read(flights: readonly Flight[], from: number, to: number): DropReason | undefined {
  for (let i = from; i < to; i++) {
    const { packet, cursor } = flights[i]!;
    const bad = decode(packet.bytes, packet.at, packet.end, cursor);
    if (bad !== undefined) return bad;
  }
  return undefined;
}

/** Fragments of different senders are never put together. */
function sourceKey(source: OutputSource): string {
  if (source === 'host') return '';
  return source === 'sockets' ? ' sockets' : ` socket ${source.id}`;
}
