import { ADDRESS_LEN } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import type { DropReason } from '../base/drop.ts';
import { Sa } from '../sad/sa.ts';
import * as ahHeader from '../wire/ah.ts';
import { u8, u32 } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import { type Cursor, decode } from '../wire/cursor.ts';
import * as espHeader from '../wire/esp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';
import * as ah from './ah.ts';
import { completeAs, isPattern, prepareAs, standAlone } from './alike.ts';
import { checkedAs, checkInput } from './check.ts';
import { type Core, noteDrop, noteUsed, tick } from './core.ts';
import { CryptoRound } from './crypto-round.ts';
import * as esp from './esp.ts';
import { BATCH_MAX, Flight } from './flight.ts';
import { judgeError } from './icmp-error.ts';
import { noteMapping } from './natt.ts';
import { isIcmpError } from './quote.ts';
import type { Reassembly } from './reassembly.ts';
import { isWorker, type Way } from './shard.ts';
import { SocketDelivery } from './socket-delivery.ts';
import type { Takers } from './socket-policies.ts';
import { Transmitter } from './transmit.ts';
import { isForeign, leaveTransport, leaveTunnel } from './unwrap.ts';

/**
 * What to do next with a packet: open its outermost layer, or hand it on because it has none for
 * us.
 */
type Step = 'open' | 'done' | 'wait' | 'elsewhere' | { readonly drop: DropReason };

const OPEN: Step = 'open';
const DONE: Step = 'done';
const WAIT: Step = 'wait';
const ELSEWHERE: Step = 'elsewhere';

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
    tick(this.#core);
    let leader: Flight | undefined;
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      const packet = packets[from + i]!;
      this.#core.stats.of(packet).inPackets++;
      if (packet.follows && leader?.active) {
        flight.follow(packet, leader);
      } else {
        this.#begin(flight, packet);
        // A last fragment has become a datagram, and its duplicate is a fragment of another one.
        leader = flight.packet === packet ? flight : undefined;
      }
    }
    this.#finish(count);
  }

  /** What comes after the headers of the packets have been read. */
  #finish(count: number): void {
    const flights = this.#flights;
    while (this.#openRound(count)) {}
    let before: Flight | undefined;
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      if (!flight.active || (flight.isAlike && this.#deliverAs(flight, before))) continue;
      if (flight.isAlike) standAlone(flight);
      this.#judge(flight, before);
      before = flight;
    }
    this.#transmitter.flush();
    this.#toSockets.flush();
    this.#core.shard?.flush();
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
    if (cursor.family === 4 && !ipv4.checksumOk(packet.bytes, packet.at)) {
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
    const flights = this.#flights;
    let jobs = 0;
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      flight.opening = false;
      if (!flight.active || flight.finished) continue;
      if (flight.leader !== undefined) {
        if (prepareAs(flight, flight.leader)) {
          flight.opening = true;
          jobs++;
          continue;
        }
        this.#begin(flight, flight.packet);
        if (!flight.active) continue;
      }
      const step = this.#prepare(flight);
      if (step === OPEN) {
        flight.opening = true;
        jobs++;
      } else if (step === ELSEWHERE) {
        // Another shard owns the SA that comes next.
        this.#leave(flight, this.#core.shard!.passInput(flight));
      } else if (this.#isWorker && this.#mayKnowBetter(flight)) {
        this.#refer(flight);
      } else if (step === DONE) {
        flight.finished = true;
      } else if (step === WAIT) {
        this.#wait(flight);
      } else {
        this.#drop(flight, (step as { drop: DropReason }).drop);
      }
    }
    if (jobs === 0) return false;
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      if (flight.opening) this.#open(flight);
    }
    this.#crypto.run();
    let asked: Flight | undefined;
    let pattern: Flight | undefined;
    for (let i = 0; i < count; i++) {
      const flight = flights[i]!;
      if (!flight.opening || !flight.active) continue;
      const { leader } = flight;
      if (leader !== undefined && leader !== asked) {
        asked = leader;
        pattern = isPattern(this.#core, leader) ? leader : undefined;
      }
      if (leader !== undefined) {
        if (leader === pattern && this.#completeAs(flight, leader)) continue;
        standAlone(flight);
      }
      this.#complete(flight);
    }
    return true;
  }

  /** Is the packet IPsec to us? Then its SA is found and the job described. */
  #prepare(flight: Flight): Step {
    const { packet, cursor } = flight;
    const p = packet.bytes;
    flight.sa = undefined;
    flight.udpSport = 0;
    flight.udpDport = 0;
    if (cursor.isFragment) return DONE;
    if (cursor.protocol === PROTO.ESP) return this.#prepareEsp(flight, cursor.upperAt, packet.end);
    if (cursor.protocol === PROTO.AH) return this.#prepareAh(flight, cursor.upperAt);
    if (cursor.protocol === PROTO.IPCOMP && flight.layerCount === 0)
      return { drop: 'ipcomp-unsupported' };
    if (cursor.protocol !== PROTO.UDP || !cursor.portsKnown) return DONE;
    if (!this.#core.settings.encapsulationPorts.includes(cursor.dport)) return DONE;
    return this.#prepareUdp(flight, p, cursor);
  }

  /** RFC 3948 §2: ESP, a keep-alive, or behind four zero octets IKE, which is not ours. */
  #prepareUdp(flight: Flight, p: Uint8Array, cursor: Cursor): Step {
    const { upperAt, end } = cursor;
    const bad = udp.check(p, upperAt, end);
    if (bad !== undefined) return dropOutermost(flight, bad);
    const dataAt = upperAt + udp.HEADER_LEN;
    const dataLen = udp.len(p, upperAt) - udp.HEADER_LEN;
    if (dataLen === 1 && u8(p, dataAt) === 0xff) return dropOutermost(flight, 'natt-keepalive');
    if (dataLen < 4) return dropOutermost(flight, 'natt-not-esp');
    if (u32(p, dataAt) === 0) return DONE;
    // Over IPv6 a datagram without checksum is not one (RFC 8200 §8.1); over IPv4 ESP needs none,
    // and has 0.
    if (!checksum.transportChecksumOk(p, cursor)) return dropOutermost(flight, 'bad-udp-checksum');
    flight.udpSport = cursor.sport;
    flight.udpDport = cursor.dport;
    return this.#prepareEsp(flight, dataAt, dataAt + dataLen);
  }

  /** `end`: of ESP, which in UDP may be before that of the packet. */
  #prepareEsp(flight: Flight, espAt: number, end: number): Step {
    const p = flight.packet.bytes;
    const bad = espHeader.check(p, espAt, end);
    if (bad !== undefined) return { drop: bad };
    const sa = this.#find(flight, 'esp', espHeader.spi(p, espAt));
    if (!(sa instanceof Sa)) return sa;
    if ((sa.spec.encapsulation !== undefined) !== (flight.udpDport !== 0)) {
      return { drop: 'sa-wrong-encapsulation' };
    }
    flight.packet.end = end;
    const wrong = esp.prepareOpen(flight, sa, espAt);
    return wrong === undefined ? OPEN : { drop: wrong };
  }

  #prepareAh(flight: Flight, ahAt: number): Step {
    const p = flight.packet.bytes;
    const bad = ahHeader.check(p, ahAt, flight.packet.end);
    if (bad !== undefined) return { drop: bad };
    const sa = this.#find(flight, 'ah', ahHeader.spi(p, ahAt));
    if (!(sa instanceof Sa)) return sa;
    const wrong = ah.prepareOpen(flight, sa, ahAt);
    return wrong === undefined ? OPEN : { drop: wrong };
  }

  #find(flight: Flight, protocol: 'esp' | 'ah', spi: number): Sa | Step {
    const { packet, cursor } = flight;
    const len = ADDRESS_LEN[cursor.family];
    const sa = this.#core.sad.inbound(protocol, spi, packet.bytes, cursor.dstAt, len);
    if (sa === undefined) return dropOutermost(flight, 'no-sa-for-spi');
    const { shard } = this.#core;
    if (sa.isUsable) {
      flight.sa = sa;
      return shard !== undefined && shard.self !== sa.owner ? ELSEWHERE : sa;
    }
    // Whoever answered a key exchange may use the new keys before they are here (RFC 7296 §2.8).
    if (sa.state === 'larval' && flight.layerCount === 0) return WAIT;
    return { drop: 'sa-not-usable' };
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

  #completeAs(flight: Flight, leader: Flight): boolean {
    this.#crypto.settle(flight);
    return completeAs(this.#core, flight, leader);
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
      opened.count(sa, flight.payloadEnd - flight.payloadAt);
      this.#unwrap(flight, sa, esp.headersEnd(flight));
    } else {
      const bad = ah.completeOpen(flight, sa);
      if (bad !== undefined) return this.#drop(flight, bad);
      opened.count(sa, flight.payloadEnd - flight.payloadAt);
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

  /** What is like the packet of its leader may be handed on if that one was, just now. */
  #deliverAs(flight: Flight, before: Flight | undefined): boolean {
    const leader = flight.leader!;
    // Others may have had the word since, and changed policies.
    if (!leader.passed || leader.takers !== undefined || !before!.passed) return false;
    this.#transmitter.add(flight.packet, false, Number.POSITIVE_INFINITY);
    this.#core.stats.families[leader.cursor.family].inDelivered++;
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

/** What a tunnel carries may be between others, and is then none of our business. */
function dropOutermost(flight: Flight, reason: DropReason): Step {
  return flight.layerCount > 0 ? DONE : { drop: reason };
}

/** The SAs that a packet came through, as a key. */
function usedSas(flight: Flight): string {
  let key = '';
  for (let i = 0; i < flight.layerCount; i++) key += ` ${flight.layers[i]!.sa.serial}`;
  return key;
}

/**
 * A datagram that came in fragments fits where these fit. IPv4 routers cut it again by themselves;
 * IPv6 routers must not, so what may have to be forwarded goes on as it came.
 */
function deliveredMtu(core: Core, packet: Packet): number {
  const isIpv6 = u8(packet.bytes, packet.at) >>> 4 === 6;
  return core.forwards && isIpv6 && packet.fragmentMax > 0
    ? packet.fragmentMax
    : Number.POSITIVE_INFINITY;
}
