import type { Random } from '../../src/base/env.ts';
import { seededRandom } from '../../src/drivers/seeded-random.ts';
import { setU16, setU32 } from '../../src/wire/bytes.ts';
import { dissect } from '../../src/wire/dissect.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { type Packet, packetFrom } from '../../src/wire/packet.ts';
import { policy, Rig, request, type SaOptions, sa, testEnv } from '../engine/rig.ts';
import { Dice } from '../fuzz/mutate.ts';
import { Wire } from './network.ts';

/** What no wire may carry where a policy protects. */
export const MARKER = Uint8Array.from('PLAINTEXT OF THE TEST', (letter) => letter.charCodeAt(0));
const NUMBER_AT = MARKER.length;

/** A host in the chain, as a number, and its addresses. */
const ADDRESS = { 4: (i: number) => `10.0.${i}.1`, 6: (i: number) => `2001:db8:${i}::1` } as const;

/**
 * A chain of hosts that send each other numbered packets from end to end: two hosts, or host,
 * gateway, gateway, host. What protects them is drawn by the seed, the same on both sides.
 * Everything that happens depends on the seed alone.
 */
export class World {
  readonly dice: Dice;
  readonly random: Random;
  readonly hosts: readonly Rig[];
  readonly wires: readonly Wire[];
  readonly family: 4 | 6;
  /** The wires on which everything must be protected. */
  readonly secret: ReadonlySet<Wire>;
  /** How often each numbered packet arrived, by the octets that were sent. */
  readonly arrivals = new Map<number, number>();
  readonly sent = new Map<number, Uint8Array>();
  readonly leaks: string[] = [];
  readonly strangers: string[] = [];

  constructor(seed: number) {
    this.random = seededRandom(seed);
    this.dice = new Dice(this.random);
    this.family = this.dice.pick([4, 6] as const);
    const isChain = this.dice.below(2) === 0;
    const count = isChain ? 4 : 2;
    const mtu = this.dice.pick([1500, 1500, 1400, 600]);
    const env = testEnv(seed + 1);
    this.hosts = Array.from({ length: count }, () => new Rig({ env, mtu, buffers: 48 }));
    this.wires = Array.from({ length: count - 1 }, () => new Wire(this.random));
    this.secret = new Set(isChain ? [this.wires[1]!] : this.wires);
    if (isChain) this.#protect(1, 2, true);
    else this.#protect(0, 1, false);
    this.#connect();
  }

  /** SAs and policies of the two hosts between which everything is protected. */
  #protect(left: number, right: number, isTunnel: boolean): void {
    const { dice, family } = this;
    const layers = 1 + dice.below(3);
    const [all, other] = family === 4 ? ['0.0.0.0/0', '::/0'] : ['::/0', '0.0.0.0/0'];
    const requests = {
      there: [] as ReturnType<typeof request>[],
      back: [] as ReturnType<typeof request>[],
    };
    let outer = family;
    for (let i = 0; i < layers; i++) {
      const tunnel = (isTunnel && i === 0) || dice.below(2) === 0;
      if (tunnel) outer = dice.pick([4, 6] as const);
      const kind = this.#kind(i === 0 || dice.below(3) > 0);
      const reqid = i + 1;
      const mode = tunnel ? ('tunnel' as const) : ('transport' as const);
      const ends = { src: ADDRESS[outer](left), dst: ADDRESS[outer](right) };
      const back = { src: ends.dst, dst: ends.src };
      for (const host of [this.hosts[left]!, this.hosts[right]!]) {
        host.sad.add(
          sa({ ...kind, ...ends, mode, reqid, spi: 0x1001 + i, replayPackets: 1024 }),
          'mature',
        );
        host.sad.add(
          sa({ ...kind, ...back, mode, reqid, spi: 0x2001 + i, replayPackets: 1024 }),
          'mature',
        );
      }
      const { protocol } = kind;
      requests.there.push(request({ protocol, mode, reqid, ...(tunnel ? ends : {}) }));
      requests.back.push(request({ protocol, mode, reqid, ...(tunnel ? back : {}) }));
    }
    for (const [host, out, into] of [
      [this.hosts[left]!, requests.there, requests.back],
      [this.hosts[right]!, requests.back, requests.there],
    ] as const) {
      host.spd.add(policy('out', all, all, { requests: out }));
      host.spd.add(policy('in', all, all, { requests: into }));
      // Tunnels may be of the other family, in which nothing is sent in the clear.
      host.spd.add(policy('in', other, other, { type: 'discard' }));
    }
  }

  #kind(encrypts: boolean): Pick<SaOptions, 'enc' | 'auth' | 'esn'> & { protocol: 'esp' | 'ah' } {
    const { dice } = this;
    if (!encrypts)
      return { protocol: 'ah', auth: dice.pick(['hmac-sha256', 'hmac-sha1', 'aes-cmac']) };
    const enc = dice.pick(['aes-gcm-16', 'aes-gcm-16', 'aes-cbc', 'aes-ctr', 'chacha20-poly1305']);
    const auth = enc === 'aes-cbc' || enc === 'aes-ctr' ? { auth: 'hmac-sha256' } : {};
    return { protocol: 'esp', enc, ...auth, esn: dice.below(2) === 0 };
  }

  /** The protected wire is in the middle; what a host has no policy for goes straight on. */
  #connect(): void {
    const { hosts, wires } = this;
    const last = hosts.length - 1;
    const secretAt = wires.findIndex((wire) => this.secret.has(wire));
    for (const [i, wire] of wires.entries()) {
      const [left, right] = wire.ends;
      // A gateway's local side is the wire to its own host.
      const isSecret = i === secretAt;
      left.receive((packets, count) => this.#fromWire(i, packets, count, isSecret));
      right.receive((packets, count) => this.#fromWire(i + 1, packets, count, isSecret));
    }
    for (const [i, host] of hosts.entries()) {
      const isLeft = i <= secretAt;
      const toWire = wires[isLeft ? i : i - 1]!;
      const end = toWire.ends[isLeft ? 0 : 1];
      host.onTransmit = (packets, count) => {
        if (this.secret.has(toWire)) this.#watch(packets, count);
        end.send(packets, count);
      };
      const isEnd = i === 0 || i === last;
      host.onDeliver = (packets, count) => {
        if (isEnd) this.#arrive(packets, count);
        else wires[isLeft ? i - 1 : i]!.ends[isLeft ? 1 : 0].send(packets, count);
      };
    }
  }

  /** A gateway hands what comes from its own side to `output`; everything else is input. */
  #fromWire(host: number, packets: readonly Packet[], count: number, isSecret: boolean): void {
    const isGateway = host > 0 && host < this.hosts.length - 1;
    if (isGateway && !isSecret) this.hosts[host]!.host.output(packets, count);
    else this.hosts[host]!.host.input(packets, count);
  }

  #watch(packets: readonly Packet[], count: number): void {
    for (let i = 0; i < count; i++) {
      if (find(packets[i]!.copy(), MARKER) >= 0)
        this.leaks.push(`packet of ${packets[i]!.len} octets`);
    }
  }

  #arrive(packets: readonly Packet[], count: number): void {
    for (let i = 0; i < count; i++) {
      const octets = packets[i]!.copy();
      const at = find(octets, MARKER);
      const number = at < 0 ? -1 : new DataView(octets.buffer, at + NUMBER_AT, 4).getUint32(0);
      const original = this.sent.get(number);
      if (original === undefined || !same(original, octets)) {
        this.strangers.push(`number ${number}: ${dissect(octets)}`);
      } else {
        this.arrivals.set(number, (this.arrivals.get(number) ?? 0) + 1);
      }
    }
  }

  /** A numbered UDP packet from one end to the other. */
  send(number: number, leftToRight: boolean, dataLen: number): void {
    const last = this.hosts.length - 1;
    const packet = numbered(this.family, leftToRight ? [0, last] : [last, 0], number, dataLen);
    this.sent.set(number, packet);
    this.hosts[leftToRight ? 0 : last]!.host.output([packetFrom(packet)], 1);
  }

  /** Lets everything arrive that is on its way. */
  settle(): void {
    for (let moved = 1; moved > 0; ) {
      moved = 0;
      for (const wire of this.wires) moved += wire.flush();
    }
  }

  wait(ms: number): void {
    this.hosts[0]!.env.advance(ms);
    for (const { host, env } of this.hosts) host.poll(env.clock.monotonicMs());
  }

  /**
   * What every host has taken, and where it went: delivered, sent, dropped with a reason, joined,
   * or waiting.
   */
  unaccounted(): number {
    let left = 0;
    for (const { host } of this.hosts) {
      const { stats } = host;
      const dropped = (['in', 'out'] as const)
        .flatMap((side) => stats.dropped(side))
        .reduce((sum, [, count]) => sum + count, 0);
      left += stats.inPackets + stats.outPackets - stats.inDelivered - stats.outProtected;
      left -= stats.outClear + dropped;
      left -= stats.fragmentsJoined - stats.reassembled + host.fragmentsWaiting;
    }
    return left;
  }
}

function numbered(
  family: 4 | 6,
  [from, to]: readonly [number, number],
  number: number,
  dataLen: number,
): Uint8Array {
  const headerLen = family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
  const len = 8 + NUMBER_AT + 4 + dataLen;
  const p = new Uint8Array(headerLen + len);
  if (family === 4) {
    ipv4.write(p, 0, 0, p.length, (number & 0x7fff) + 1, 0, 64, 17);
    p.set([10, 0, from, 1, 10, 0, to, 1], ipv4.SRC_AT);
    ipv4.updateChecksum(p, 0);
  } else {
    ipv6.write(p, 0, 0, 0, len, 17, 64);
    for (const [at, host] of [
      [ipv6.SRC_AT, from],
      [ipv6.DST_AT, to],
    ] as const) {
      p.set([0x20, 0x01, 0x0d, 0xb8, 0, host, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], at);
    }
  }
  setU16(p, headerLen, 1000);
  setU16(p, headerLen + 2, 2000);
  setU16(p, headerLen + 4, len);
  p.set(MARKER, headerLen + 8);
  setU32(p, headerLen + 8 + NUMBER_AT, number);
  for (let i = headerLen + 8 + NUMBER_AT + 4; i < p.length; i++) p[i] = number + i;
  return p;
}

function find(p: Uint8Array, what: Uint8Array): number {
  outer: for (let at = p.indexOf(what[0]!); at >= 0; at = p.indexOf(what[0]!, at + 1)) {
    for (let i = 1; i < what.length; i++) if (p[at + i] !== what[i]) continue outer;
    return at;
  }
  return -1;
}

/**
 * Octets in front of the addresses may change on the way, and nothing covers them in transport
 * mode.
 */
function same(a: Uint8Array, b: Uint8Array): boolean {
  const from = a[0]! >> 4 === 4 ? ipv4.SRC_AT : ipv6.SRC_AT;
  return a.length === b.length && a.every((octet, i) => i < from || octet === b[i]);
}
