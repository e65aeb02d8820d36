import { address, prefix } from '../src/base/address.ts';
import type { Env } from '../src/base/env.ts';
import { encryptionByName } from '../src/crypto/algorithms.ts';
import { LazyCrypto } from '../src/crypto/lazy.ts';
import type { CryptoProvider } from '../src/crypto/provider.ts';
import { Host } from '../src/engine/host.ts';
import { saSpec } from '../src/sad/sa.ts';
import { Sad } from '../src/sad/sad.ts';
import { memorySequences } from '../src/sad/sequence.ts';
import { PORT_ANY, type PolicySpec, PROTOCOL_ANY, type Request } from '../src/spd/policy.ts';
import { Spd } from '../src/spd/spd.ts';
import { setU16, setU32 } from '../src/wire/bytes.ts';
import * as ipv4 from '../src/wire/ipv4.ts';
import { PACKET_LEN_SMALL, type Packet, PacketArena } from '../src/wire/packet.ts';
import * as udp from '../src/wire/udp.ts';

/** Packets that are handed to a host at once. */
export const BATCH = 64;

export type Flows = 'row' | 'one' | 'many' | 'all';

export interface EnginePairOptions {
  readonly provider: CryptoProvider;
  readonly env: Env;
  readonly mode: 'tunnel' | 'transport';
  /** ESP in UDP. */
  readonly inUdp: boolean;
  /** Of an inner packet, IP header included. */
  readonly octets: number;
  /** How many SAs there are to B, each with a policy of its own. */
  readonly tunnels: number;
  /**
   * Whether the packets of a batch are cut from one large packet, as those of a TCP stream are, or
   * only of one flow, or each of another one through the same SA, or each goes through another SA
   * than the one before.
   */
  readonly flows: Flows;
}

const KEY = Uint8Array.from({ length: 20 }, (_, i) => (i * 37 + 11) & 255);
const HEADERS_LEN = ipv4.HEADER_LEN + udp.HEADER_LEN;
const SPI = 0x1000;
/** A prime, so that it goes round all of any number of tunnels that it is no divisor of. */
const STRIDE = 40_487;
const A = '192.0.2.1';
const B = '192.0.2.2';

/**
 * Two hosts in memory, and batches of packets that A seals and B opens. Nothing here allocates per
 * packet, so that what is measured is the engine.
 *
 * A batch is sealed in place, and what is sent next time is the ciphertext under a new header: the
 * engine does not look at payloads, and ciphers take as long for any.
 */
export class EnginePair {
  readonly a: Host;
  readonly b: Host;
  readonly #options: EnginePairOptions;
  readonly #crypto: LazyCrypto;
  readonly #arena = new PacketArena(2 * BATCH + 1, { room: PACKET_LEN_SMALL });
  readonly #plain = this.#slots();
  readonly #sealed = this.#slots();
  /** The headers of an inner packet. */
  readonly #head = this.#arena.take()!;
  #tunnel = 0;
  #transmitted = 0;
  #delivered = 0;

  constructor(options: EnginePairOptions) {
    this.#options = options;
    // As the daemon does; the transforms of a large table are made when they are used.
    this.#crypto = LazyCrypto.around(options.provider);
    this.a = this.#host('out');
    this.b = this.#host('in');
    this.#writeHead();
  }

  /** Makes the next batch of inner packets. */
  refill(): void {
    const { octets, flows } = this.#options;
    const { bytes } = this.#arena;
    for (const [i, packet] of this.#plain.entries()) {
      packet.reset();
      packet.follows = flows === 'row' && i > 0;
      packet.end = packet.at + octets;
      bytes.copyWithin(packet.at, this.#head.at, this.#head.at + HEADERS_LEN);
      if (flows === 'many') setU16(bytes, packet.at + ipv4.HEADER_LEN, 1024 + i);
      if (flows === 'all') this.#turn(packet);
    }
  }

  /** A takes the batch. All of it is on the wire afterwards, or it throws. */
  seal(): void {
    this.#transmitted = 0;
    this.a.output(this.#plain, BATCH);
    if (this.#transmitted !== BATCH) throw new Error(`A sent ${this.#transmitted} of a batch`);
  }

  /** What A has sent, as B gets it: other memory, with the full headroom in front. */
  carry(): void {
    const { bytes } = this.#arena;
    for (let i = 0; i < BATCH; i++) {
      const [from, to] = [this.#plain[i]!, this.#sealed[i]!];
      to.reset();
      to.end = to.at + from.len;
      to.follows = from.follows;
      bytes.copyWithin(to.at, from.at, from.end);
    }
  }

  /** B takes the batch. All of it is delivered afterwards, or it throws. */
  open(): void {
    this.#delivered = 0;
    this.b.input(this.#sealed, BATCH);
    if (this.#delivered !== BATCH) throw new Error(`B delivered ${this.#delivered} of a batch`);
  }

  /** One batch all the way. */
  pass(): void {
    this.refill();
    this.seal();
    this.carry();
    this.open();
  }

  /**
   * Passes a batch and compares: throws unless B delivers what A was given, and the wire had
   * something else.
   */
  verify(): void {
    this.refill();
    const before = this.#plain.map((packet) => packet.copy());
    this.seal();
    const wire = this.#plain.map((packet) => Buffer.from(packet.copy()));
    this.carry();
    this.open();
    for (const [i, packet] of this.#sealed.entries()) {
      // Transport mode gives packets with the identification 0 one of their own.
      const from = this.#options.mode === 'tunnel' ? 0 : ipv4.HEADER_LEN;
      if (!Buffer.from(packet.copy().subarray(from)).equals(before[i]!.subarray(from))) {
        throw new Error(`packet ${i} of the batch was changed on its way`);
      }
      const text = before[i]!.subarray(HEADERS_LEN);
      if (wire[i]!.includes(Buffer.from(text)))
        throw new Error(`packet ${i} was sent in the clear`);
    }
  }

  /** Frees what SAs hold outside the heap. */
  close(): void {
    for (const host of [this.a, this.b]) host.sad.flush();
  }

  /** Lets the packet go through the next tunnel: far from the one before, and all in turn. */
  #turn(packet: Packet): void {
    this.#tunnel = (this.#tunnel + STRIDE) % this.#options.tunnels;
    setU32(packet.bytes, packet.at + ipv4.DST_AT, innerAddress(this.#tunnel));
    ipv4.updateChecksum(packet.bytes, packet.at);
  }

  #slots(): Packet[] {
    return Array.from({ length: BATCH }, () => this.#arena.take()!);
  }

  #writeHead(): void {
    const { bytes, at } = this.#head;
    const { octets } = this.#options;
    ipv4.write(bytes, at, 0, octets, 1, 0, 64, 17);
    setU32(bytes, at + ipv4.SRC_AT, 0x0a00_0001);
    setU32(bytes, at + ipv4.DST_AT, innerAddress(0));
    ipv4.updateChecksum(bytes, at);
    udp.write(bytes, at + ipv4.HEADER_LEN, 5201, 5201, octets - ipv4.HEADER_LEN);
  }

  #host(direction: 'in' | 'out'): Host {
    const { env, tunnels } = this.#options;
    const { clock, random } = env;
    const sad = new Sad({ clock, random, sequences: memorySequences(), saMax: tunnels });
    const spd = new Spd({ clock, policyMax: tunnels });
    for (let i = 0; i < tunnels; i++) {
      sad.add(this.#sa(i), 'mature');
      spd.add(this.#policy(direction, i));
    }
    return new Host({
      env,
      sad,
      spd,
      transmit: (_, count) => {
        this.#transmitted += count;
      },
      deliver: (_, count) => {
        this.#delivered += count;
      },
    });
  }

  #sa(i: number): ReturnType<typeof saSpec> {
    const { mode, inUdp } = this.#options;
    const cipher = encryptionByName('aes-gcm-16')!;
    const [src, dst] = this.#ends(i);
    const key = Uint8Array.from(KEY);
    setU32(key, 0, i);
    const none = new Uint8Array(0);
    return saSpec({
      protocol: 'esp',
      spi: SPI + i,
      src: address(src),
      dst: address(dst),
      mode,
      reqid: mode === 'tunnel' ? i + 1 : 0,
      replayPackets: 2048,
      keys: { auth: 0, encrypt: cipher.pfkey, authKey: none, encryptKey: key },
      esp: this.#crypto.esp({ cipher, cipherKey: key, macKey: none, allowLegacy: false }),
      ...(inUdp ? { encapsulation: { srcPort: 4500, dstPort: 4500 } } : {}),
    });
  }

  /** Of an SA: in transport mode those of the packets. */
  #ends(i: number): readonly [string, string] {
    return this.#options.mode === 'tunnel' ? [A, B] : ['10.0.0.1', dotted(innerAddress(i))];
  }

  #policy(direction: 'in' | 'out', i: number): PolicySpec {
    const { mode } = this.#options;
    const isTunnel = mode === 'tunnel';
    const request: Request = {
      protocol: 'esp',
      mode,
      level: isTunnel ? 'unique' : 'require',
      reqid: isTunnel ? i + 1 : 0,
      ...(isTunnel ? { src: address(A), dst: address(B) } : {}),
      srcPort: 0,
      dstPort: 0,
    };
    return {
      direction,
      selector: {
        src: prefix('10.0.0.1/32'),
        dst: prefix(`${dotted(innerAddress(i))}/32`),
        protocol: PROTOCOL_ANY,
        sport: PORT_ANY,
        dport: PORT_ANY,
      },
      type: 'ipsec',
      priority: 0,
      requests: [request],
      lifetimeSeconds: 0,
      idleSeconds: 0,
      origin: 'client',
    };
  }
}

/** Where the packets of tunnel `i` go: 11.0.0.0/8 has room for all. */
function innerAddress(i: number): number {
  return 0x0b00_0001 + i;
}

function dotted(octets: number): string {
  return [24, 16, 8, 0].map((shift) => (octets >>> shift) & 255).join('.');
}
