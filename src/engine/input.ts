import { assert } from '../base/assert.ts';
import type { DropReason } from '../base/drop.ts';
import type { Sa } from '../sad/sa.ts';
import { decode } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as ah from './ah.ts';
import { completeRow, isAlike, leadOf, prepareRow, standAlone, standOpened } from './alike.ts';
import { checkedAs, checkInput } from './check.ts';
import { type Core, noteDrop, noteUsed, tick } from './core.ts';
import { CryptoRound } from './crypto-round.ts';
import * as esp from './esp.ts';
import { BATCH_MAX, Flight, usedSas } from './flight.ts';
import { judgeError } from './icmp-error.ts';
import { noteMapping } from './natt.ts';
import { nextLayer } from './next-layer.ts';
import { isIcmpError } from './quote.ts';
import type { Reassembly } from './reassembly.ts';
import { countFollowers, isBare } from './same-flow.ts';
import { isEncapsulationPort } from './settings.ts';
import { isWorker, type Way } from './shard.ts';
import { SocketDelivery } from './socket-delivery.ts';
import type { Takers } from './socket-policies.ts';
import { deliveredMtu, Transmitter } from './transmit.ts';
import { enterInner, isForeign, leaveTransport, leaveTunnel } from './unwrap.ts';

/**
 * How a packet of a batch goes: first of a row or by itself, with a flight of its own; as one that
 * follows the last such one, without a flight; alone after all, because it is different; or
 * opened, and like what its leader carried.
 */
const HEAD = 0;
const FOLLOWS = 1;
const ALONE = 2;
const ALIKE = 3;

/**
 * From the wire to the local side, a batch at a time:
 *
 *     read        headers; fragments are put together
 *     open        while it is IPsec to us, one round per layer: find the SA and check the window,
 *                 open all, then the window again and what was inside
 *     check       the policy against the SAs that were used
 *     deliver
 */
export class Input {
  readonly #core: Core;
  readonly #reassembly: Reassembly;
  readonly #flights = Array.from({ length: BATCH_MAX }, () => new Flight());
  readonly #crypto = new CryptoRound();
  readonly #transmitter: Transmitter;
  readonly #toSockets: SocketDelivery;
  /** The batch that is under way, and where in the list it begins. */
  #packets: readonly Packet[] = [];
  #base = 0;
  /** Of each packet: HEAD, FOLLOWS, ALONE or ALIKE; and of followers the sequence number. */
  readonly #kinds = new Uint8Array(BATCH_MAX);
  readonly #seqs = new Float64Array(BATCH_MAX);
  /** The batch is from the main shard: what it could not know, nobody does. */
  #isFinal = false;

  constructor(core: Core, reassembly: Reassembly) {
    this.#core = core;
    this.#reassembly = reassembly;
    this.#transmitter = new Transmitter(core, 'local');
    this.#toSockets = new SocketDelivery(core);
  }

  run(packets: readonly Packet[], count: number): void {
    for (let from = 0; from < count; from += BATCH_MAX) {
      this.#batch(packets, from, Math.min(count, from + BATCH_MAX));
    }
  }

  /** Packets that another shard has begun with, `BATCH_MAX` at most. */
  resume(packets: readonly Packet[], count: number, way: Way, isFinal: boolean): void {
    assert(count <= BATCH_MAX, 'one batch');
    this.#isFinal = isFinal;
    this.#packets = packets;
    this.#base = 0;
    this.#kinds.fill(HEAD, 0, count);
    tick(this.#core);
    for (let i = 0; i < count; i++) {
      const flight = this.#flights[i]!;
      flight.begin(packets[i]!, false);
      if (way(i, flight) === 'gone') this.#drop(flight, 'sa-not-usable');
      else this.#read(flight);
    }
    this.#finish(count);
    this.#isFinal = false;
  }

  #batch(packets: readonly Packet[], from: number, to: number): void {
    const flights = this.#flights;
    const count = to - from;
    this.#packets = packets;
    this.#base = from;
    tick(this.#core);
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      const packet = packets[from + i]!;
      this.#core.stats.of(packet).inPackets++;
      this.#kinds[i] = HEAD;
      this.#begin(flight, packet);
      // A last fragment has become a datagram, and its duplicate is a fragment of another one.
      if (flight.active && flight.packet === packet) i += this.#lead(flight, i, count);
    }
    this.#finish(count);
  }

  /** How many packets behind the `i`th may be opened as it is, if it is IPsec to us. */
  #lead(leader: Flight, i: number, count: number): number {
    const { packet, cursor } = leader;
    const { settings, stats } = this.#core;
    const { protocol, dport } = cursor;
    const isUdp = protocol === PROTO.UDP && isEncapsulationPort(settings, dport);
    if (i + 1 === count || (!isUdp && protocol !== PROTO.ESP)) return 0;
    const base = this.#base;
    const [from, to] = [base + i + 1, base + count];
    const found = countFollowers(this.#packets, from, to, packet, cursor, isBare(cursor));
    if (found === 0) return 0;
    stats.families[cursor.family].inPackets += found;
    leader.rowLen = 1 + found;
    leader.lead = 'nothing';
    for (let k = 1; k <= found; k++) this.#kinds[i + k] = FOLLOWS;
    return found;
  }

  /** What comes after the headers of the packets have been read. */
  #finish(count: number): void {
    const flights = this.#flights;
    while (this.#openRound(count)) {}
    let before: Flight | undefined;
    let leader: Flight | undefined;
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      const kind = this.#kinds[i]!;
      if (kind === HEAD) leader = flight;
      if (kind === ALIKE) {
        const to = this.#endOf(ALIKE, i, count);
        if (this.#deliverRow(leader!, before, i, to)) {
          i = to - 1;
          continue;
        }
        this.#kinds[i] = ALONE;
        standOpened(flight, this.#packets[this.#base + i]!, leader!);
        this.#read(flight);
      }
      if (!flight.active) continue;
      this.#judge(flight, before);
      before = flight;
    }
    this.#transmitter.flush();
    this.#toSockets.flush();
    this.#core.shard?.flush();
  }

  /** Up to where the packets from `i` on are of one kind. */
  #endOf(kind: number, i: number, count: number): number {
    const kinds = this.#kinds;
    let end = i + 1;
    while (end < count && kinds[end] === kind) end++;
    return end;
  }

  #begin(flight: Flight, packet: Packet): void {
    flight.begin(packet, false);
    packet.follows = false;
    this.#read(flight);
  }

  /**
   * Decodes the headers of what now is the packet, and waits for the rest of it if it is a
   * fragment.
   */
  #read(flight: Flight): void {
    const { packet, cursor } = flight;
    const bad = decode(packet.bytes, packet.at, packet.end, cursor);
    if (bad !== undefined) return this.#drop(flight, bad);
    packet.end = cursor.end;
    if (cursor.family === 4 && !ipv4.checksumOk(packet.view, packet.at)) {
      return this.#drop(flight, 'bad-header-checksum');
    }
    // Inside a tunnel a fragment may pass as it is, if the policy can be found without ports.
    if (!cursor.isFragment) return;
    const isIpsec = cursor.protocol === PROTO.ESP || cursor.protocol === PROTO.AH;
    if (flight.layerCount === 0 || isIpsec) this.#reassemble(flight);
  }

  /**
   * Puts the fragment to the others. Those that came through different SAs are never put together,
   * so the SAs of the last fragment are those of the whole datagram.
   */
  #reassemble(flight: Flight): void {
    if (this.#isWorker) return this.#refer(flight);
    const { packet, cursor } = flight;
    const { nowMs } = this.#core;
    const whole = this.#reassembly.add(packet.bytes, cursor, nowMs, usedSas(flight));
    this.#release(flight);
    if (whole === undefined) {
      flight.active = false;
      return;
    }
    flight.packet = whole;
    flight.owned = true;
    const bad = decode(whole.bytes, whole.at, whole.end, cursor);
    if (bad !== undefined) this.#drop(flight, bad);
  }

  /** One layer off every packet that has one for us; false when none had. */
  #openRound(count: number): boolean {
    const jobs = this.#prepareAll(count);
    if (jobs === 0) return false;
    this.#openAll(count);
    this.#crypto.run();
    let leader: Flight | undefined;
    for (let i = 0; i < count; i++) {
      const flight = this.#flights[i]!;
      const kind = this.#kinds[i]!;
      if (kind === FOLLOWS) {
        const to = this.#endOf(FOLLOWS, i, count);
        this.#completeRow(leader!, i, to);
        i = to - 1;
        continue;
      }
      if (kind === HEAD) leader = flight;
      if (kind === ALIKE || !flight.opening || !flight.active) continue;
      this.#complete(flight);
      if (kind === HEAD && flight.rowLen > 1) flight.lead = leadOf(this.#core, flight);
    }
    return true;
  }

  /** How many packets have a layer to open. */
  #prepareAll(count: number): number {
    const flights = this.#flights;
    const kinds = this.#kinds;
    let jobs = 0;
    let leader: Flight | undefined;
    let end = 0;
    for (let i = 0; i < count; i++) {
      const kind = kinds[i]!;
      if (kind === ALIKE) continue;
      const flight = flights[i]!;
      if (kind === HEAD) {
        leader = flight;
        end = i + flight.rowLen;
      } else if (kind === FOLLOWS) {
        const found = prepareRow(leader!, this.#packets, this.#base, i, end, this.#seqs);
        if (found > 0) {
          jobs += found;
          i += found - 1;
          continue;
        }
        kinds[i] = ALONE;
        this.#begin(flight, this.#packets[this.#base + i]!);
      }
      flight.opening = false;
      if (flight.active && !flight.finished && this.#prepareOne(flight)) jobs++;
    }
    return jobs;
  }

  /** Whether the packet has a layer to open; otherwise it is clear what becomes of it. */
  #prepareOne(flight: Flight): boolean {
    const step = nextLayer(this.#core, flight);
    if (step === 'open') {
      flight.opening = true;
    } else if (step === 'elsewhere') {
      // Another shard owns the SA that comes next.
      this.#leave(flight, this.#core.shard!.passInput(flight));
    } else if (this.#isWorker && this.#mayKnowBetter(flight)) {
      this.#refer(flight);
    } else if (step === 'done') {
      flight.finished = true;
    } else if (step === 'wait') {
      this.#wait(flight);
    } else {
      this.#drop(flight, step.drop);
    }
    return flight.opening;
  }

  #openAll(count: number): void {
    let leader: Flight | undefined;
    for (let i = 0; i < count; i++) {
      const flight = this.#flights[i]!;
      const kind = this.#kinds[i]!;
      if (kind === FOLLOWS) {
        const to = this.#endOf(FOLLOWS, i, count);
        this.#crypto.openRow(leader!, this.#packets, this.#base, i, to, this.#seqs);
        i = to - 1;
        continue;
      }
      if (kind === HEAD) leader = flight;
      if (kind !== ALIKE && flight.opening) this.#open(flight);
    }
  }

  get #isWorker(): boolean {
    return isWorker(this.#core.shard);
  }

  /** Of a packet as it came, and that no SA of ours is there for: whether main knows more of it. */
  #mayKnowBetter(flight: Flight): boolean {
    return flight.sa === undefined && flight.layerCount === 0 && !this.#isFinal;
  }

  /** Only the main shard can deal with it. */
  #refer(flight: Flight): void {
    this.#leave(flight, this.#core.shard!.referInput(flight));
  }

  /** It is another shard's, if that has taken it. */
  #leave(flight: Flight, isTaken: boolean): void {
    if (!isTaken) return this.#drop(flight, 'shard-full');
    flight.active = false;
    this.#release(flight);
  }

  /** Its SA has no keys yet: the packet comes again, as it was, when it has. */
  #wait(flight: Flight): void {
    const { early, nowMs, stats } = this.#core;
    flight.active = false;
    early.add(flight.packet, nowMs);
    stats.early++;
    this.#release(flight);
  }

  #open(flight: Flight): void {
    const sa = flight.sa!;
    if (sa.spec.protocol === 'esp') {
      this.#crypto.open(flight, sa);
    } else {
      const bad = ah.verify(this.#core, flight, sa);
      if (bad !== undefined) this.#drop(flight, bad);
    }
  }

  /** Followers of one leader: as many at once as are like it, and the others one by one. */
  #completeRow(leader: Flight, from: number, to: number): void {
    const core = this.#core;
    const packets = this.#packets;
    const base = this.#base;
    let goodTo = from;
    for (let i = from; i < to; i++) {
      if (leader.lead !== 'nothing') {
        if (i >= goodTo) goodTo = i + this.#crypto.countOk(i, to);
        const done = completeRow(core, leader, packets, base, i, goodTo, this.#seqs);
        this.#leaveRow(leader, i, i + done);
        i += done;
        if (i === to) return;
      }
      const flight = this.#flights[i]!;
      this.#kinds[i] = ALONE;
      standAlone(flight, packets[base + i]!, leader, this.#seqs[i]!);
      this.#crypto.assign(flight, i);
      this.#complete(flight);
    }
  }

  /** What was in packets that were opened as that of their leader. */
  #leaveRow(leader: Flight, from: number, to: number): void {
    for (let i = from; i < to; i++) {
      const packet = this.#packets[this.#base + i]!;
      if (leader.lead === 'packet' && isAlike(packet, leader)) {
        this.#kinds[i] = ALIKE;
        continue;
      }
      const flight = this.#flights[i]!;
      const { sa } = leader.layers[0]!;
      this.#kinds[i] = ALONE;
      standOpened(flight, packet, leader);
      const bad = enterInner(this.#core, packet, packet.at, leader.next, leader.outerTos, sa);
      if (bad !== undefined) this.#drop(flight, bad);
      else this.#read(flight);
    }
  }

  #complete(flight: Flight): void {
    const sa = flight.sa!;
    const { opened } = this.#core.stats.families[flight.cursor.family];
    // An earlier packet of this batch may have used the SA up, or moved the window.
    if (!sa.isUsable) return this.#drop(flight, 'sa-not-usable');
    if (sa.spec.protocol === 'esp') {
      this.#crypto.settle(flight);
      const bad = esp.completeOpen(flight, sa);
      if (bad === 'esp-dummy') this.#count(flight, sa, 0);
      if (bad !== undefined) return this.#drop(flight, bad);
      opened.count(sa, 1, flight.payloadEnd - flight.payloadAt);
      this.#unwrap(flight, sa, esp.headersEnd(flight));
    } else {
      const bad = ah.completeOpen(flight, sa);
      if (bad !== undefined) return this.#drop(flight, bad);
      opened.count(sa, 1, flight.payloadEnd - flight.payloadAt);
      this.#unwrap(flight, sa, flight.jobAt);
    }
  }

  /**
   * The packet without the layer: headers up to `headersEnd`, and the payload that the flight
   * points at.
   */
  #unwrap(flight: Flight, sa: Sa, headersEnd: number): void {
    const { packet, payloadAt, payloadEnd, next } = flight;
    const carriesIp = next === PROTO.IPIP || next === PROTO.IPV6;
    if (sa.spec.mode === 'tunnel' && !carriesIp) return this.#drop(flight, 'wrong-mode');
    const tunnel = carriesIp && sa.spec.mode !== 'transport';
    if (!flight.push(sa, tunnel, !tunnel && isForeign(flight, sa)))
      return this.#drop(flight, 'too-many-layers');
    if (flight.udpDport !== 0) noteMapping(this.#core, flight, sa);
    this.#count(flight, sa, payloadEnd - payloadAt);
    packet.end = payloadEnd;
    const bad = tunnel ? leaveTunnel(this.#core, flight, sa) : leaveTransport(flight, headersEnd);
    if (bad !== undefined) return this.#drop(flight, bad);
    this.#read(flight);
    if (flight.active && !tunnel && flight.udpDport !== 0) esp.repairChecksum(flight);
  }

  #count(flight: Flight, sa: Sa, payloadLen: number): void {
    this.#core.sad.account(sa, 1, payloadLen);
    flight.opening = false;
  }

  #judge(flight: Flight, before: Flight | undefined): void {
    const core = this.#core;
    const { packet, cursor } = flight;
    if (this.#isWorker) {
      const isForMain = core.shard!.mainDelivers || isIcmpError(packet.bytes, cursor);
      if (isForMain) return this.#refer(flight);
    }
    if (before?.passed && core.checked === undefined && checkedAs(flight, before)) {
      return this.#deliver(flight);
    }
    const check = isIcmpError(packet.bytes, cursor) ? judgeError : checkInput;
    let verdict = check(core, flight);
    if (verdict === 'ports-unknown') {
      this.#reassemble(flight);
      if (!flight.active) return;
      verdict = checkInput(core, flight);
      // Only a fragment within a fragment still is one.
      if (verdict === 'ports-unknown') verdict = 'bad-option';
    }
    core.checked?.(flight, verdict);
    noteUsed(core, flight.policy);
    if (verdict !== undefined) return this.#drop(flight, verdict);
    this.#deliver(flight);
  }

  /** Packets like that of their leader may be handed on if that one was, just now. */
  #deliverRow(leader: Flight, before: Flight | undefined, from: number, to: number): boolean {
    // Others may have had the word since, and changed policies.
    if (!leader.passed || leader.takers !== undefined || !before!.passed) return false;
    const base = this.#base;
    this.#transmitter.addAll(this.#packets, base + from, base + to);
    this.#core.stats.families[leader.cursor.family].inDelivered += to - from;
    return true;
  }

  #deliver(flight: Flight): void {
    const core = this.#core;
    if (flight.takers !== undefined) return this.#deliverTo(flight, flight.takers);
    const mtu = deliveredMtu(core, flight.packet);
    const bad = this.#transmitter.add(flight.packet, flight.owned, mtu);
    if (bad !== undefined) return this.#drop(flight, bad);
    core.stats.of(flight.packet).inDelivered++;
    // Sending fragments lets others have the word, who may change policies.
    flight.passed = !flight.owned && mtu === Number.POSITIVE_INFINITY;
  }

  #deliverTo(flight: Flight, takers: Takers): void {
    const { sockets, stats, nowWallMs } = this.#core;
    for (const socket of takers.sockets) sockets.noteUse(socket, 'in', flight, nowWallMs);
    this.#toSockets.add(flight.packet, flight.owned, takers);
    stats.of(flight.packet).inDelivered++;
    flight.passed = !flight.owned;
  }

  #drop(flight: Flight, reason: DropReason): void {
    flight.active = false;
    noteDrop(this.#core, 'in', reason, flight.packet);
    this.#release(flight);
  }

  #release(flight: Flight): void {
    if (flight.owned) this.#core.arena.give(flight.packet);
    flight.owned = false;
  }
}
