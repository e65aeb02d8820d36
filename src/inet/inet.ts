import { ADDRESS_LEN, type Address, addressFrom, sameAddress } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import { copy, setU8, setU16, setU32, u8, u16 } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import { type Packet, PacketArena, type PacketSink } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';

const ICMP_HEADER_LEN = 8;
const ECHO_REQUEST = { 4: 8, 6: 128 } as const;
const ECHO_REPLY = { 4: 0, 6: 129 } as const;
/** RFC 1122 §3.2.2 and RFC 4443 §2.4(c): an error quotes no more than fits into these. */
const ERROR_LEN_MAX = { 4: 576, 6: 1280 } as const;
const EPHEMERAL_PORT_MIN = 49_152;
const TTL = 64;

export interface InetOptions {
  /** The addresses of this host inside its tunnels. */
  readonly addresses: readonly Address[];
  /** Where packets go: `Host.output`. */
  readonly send: PacketSink;
  /** How many UDP sockets there may be. */
  readonly socketsMax?: number;
}

/** A datagram that arrived; `data` is borrowed until the handler returns. */
export type DatagramHandler = (data: Uint8Array, from: Address, port: number) => void;

/** An echo reply that arrived; `data` is borrowed. */
export type EchoHandler = (seq: number, data: Uint8Array, from: Address, hopLimit: number) => void;

export interface UdpSocket {
  readonly port: number;
  send(data: Uint8Array, to: Address, port: number): void;
  close(): void;
}

export interface EchoSocket {
  send(seq: number, data: Uint8Array, to: Address): void;
  close(): void;
}

/**
 * The upper layers of a host that has no kernel interface: answers pings, and has sockets for ICMP
 * echo and UDP. Packets go through the engine like anybody's.
 */
export class Inet {
  readonly #options: InetOptions;
  readonly #arena = new PacketArena(4);
  readonly #cursor = new Cursor();
  readonly #udp = new Map<number, DatagramHandler>();
  readonly #echo = new Map<number, EchoHandler>();
  #nextPort = EPHEMERAL_PORT_MIN;
  #nextId = 1;
  /** Packets that nobody here wanted. */
  unwanted = 0;

  constructor(options: InetOptions) {
    this.#options = options;
  }

  get addresses(): readonly Address[] {
    return this.#options.addresses;
  }

  /** For `HostOptions.deliver`. */
  receive(packets: readonly Packet[], count: number): void {
    for (let i = 0; i < count; i++) this.#take(packets[i]!);
  }

  /** Port 0 picks one. EADDRINUSE has no place in PF_KEY's table: a port in use is EBUSY. */
  openUdp(port: number, handler: DatagramHandler): UdpSocket {
    if (this.#udp.size >= (this.#options.socketsMax ?? 1024)) {
      throw new KeyError('ENOBUFS', `${this.#udp.size} UDP sockets are open already`);
    }
    const bound = port === 0 ? this.#freePort() : port;
    if (this.#udp.has(bound)) throw new KeyError('EBUSY', `UDP port ${bound} is in use`);
    this.#udp.set(bound, handler);
    return {
      port: bound,
      send: (data, to, toPort) => this.#sendUdp(bound, data, to, toPort),
      close: () => this.#udp.delete(bound),
    };
  }

  openEcho(handler: EchoHandler): EchoSocket {
    let id = this.#nextId;
    while (this.#echo.has(id)) id = (id % 0xffff) + 1;
    this.#nextId = (id % 0xffff) + 1;
    this.#echo.set(id, handler);
    return {
      send: (seq, data, to) =>
        this.#sendEcho(ECHO_REQUEST[to.family], id, seq, data, this.#sourceFor(to), to),
      close: () => this.#echo.delete(id),
    };
  }

  #freePort(): number {
    while (this.#udp.has(this.#nextPort)) this.#nextPort++;
    return this.#nextPort++;
  }

  #sourceFor(to: Address): Address {
    const source = this.#options.addresses.find((one) => one.family === to.family);
    if (!source) throw new KeyError('EAFNOSUPPORT', `this host has no IPv${to.family} address`);
    return source;
  }

  #take(packet: Packet): void {
    const p = packet.bytes;
    const cursor = this.#cursor;
    if (decode(p, packet.at, packet.end, cursor) !== undefined || cursor.isFragment) {
      this.unwanted++;
      return;
    }
    const to = addressFrom(cursor.family, p, cursor.dstAt);
    const isOurs = this.#options.addresses.some((one) => sameAddress(one, to));
    if (!isOurs || !checksum.transportChecksumOk(p, cursor)) {
      this.unwanted++;
      return;
    }
    const isIcmp = cursor.protocol === (cursor.family === 4 ? PROTO.ICMP : PROTO.ICMPV6);
    if (isIcmp) this.#takeIcmp(p, cursor, to);
    else if (cursor.protocol === PROTO.UDP) this.#takeUdp(packet, cursor, to);
    else this.unwanted++;
  }

  #takeIcmp(p: Uint8Array, cursor: Cursor, to: Address): void {
    const { upperAt, end, family } = cursor;
    if (end - upperAt < ICMP_HEADER_LEN) {
      this.unwanted++;
      return;
    }
    const type = u8(p, upperAt);
    const id = u16(p, upperAt + 4);
    const seq = u16(p, upperAt + 6);
    const data = p.subarray(upperAt + ICMP_HEADER_LEN, end);
    const from = addressFrom(family, p, cursor.srcAt);
    if (type === ECHO_REQUEST[family]) {
      this.#sendEcho(ECHO_REPLY[family], id, seq, data, to, from);
    } else if (type === ECHO_REPLY[family] && this.#echo.has(id)) {
      const hops = family === 4 ? ipv4.ttl(p, cursor.at) : ipv6.hopLimit(p, cursor.at);
      this.#echo.get(id)!(seq, data, from, hops);
    } else {
      this.unwanted++;
    }
  }

  #takeUdp(packet: Packet, cursor: Cursor, to: Address): void {
    const p = packet.bytes;
    const { upperAt, end } = cursor;
    if (udp.check(p, upperAt, end) !== undefined) {
      this.unwanted++;
      return;
    }
    const handler = this.#udp.get(cursor.dport);
    const from = addressFrom(cursor.family, p, cursor.srcAt);
    if (!handler) {
      this.unwanted++;
      this.#sendPortUnreachable(packet, cursor, to, from);
      return;
    }
    handler(
      p.subarray(upperAt + udp.HEADER_LEN, upperAt + udp.len(p, upperAt)),
      from,
      cursor.sport,
    );
  }

  #sendUdp(port: number, data: Uint8Array, to: Address, toPort: number): void {
    this.#send(this.#sourceFor(to), to, PROTO.UDP, udp.HEADER_LEN + data.length, (p, at) => {
      udp.write(p, at, port, toPort, udp.HEADER_LEN + data.length);
      p.set(data, at + udp.HEADER_LEN);
    });
  }

  #sendEcho(
    type: number,
    id: number,
    seq: number,
    data: Uint8Array,
    from: Address,
    to: Address,
  ): void {
    const protocol = to.family === 4 ? PROTO.ICMP : PROTO.ICMPV6;
    this.#send(from, to, protocol, ICMP_HEADER_LEN + data.length, (p, at) => {
      setU16(p, at, type << 8);
      setU16(p, at + 2, 0);
      setU16(p, at + 4, id);
      setU16(p, at + 6, seq);
      p.set(data, at + ICMP_HEADER_LEN);
    });
  }

  #sendPortUnreachable(packet: Packet, cursor: Cursor, from: Address, to: Address): void {
    const { family } = cursor;
    const headerLen = family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
    const quotedLen = Math.min(
      cursor.end - cursor.at,
      ERROR_LEN_MAX[family] - headerLen - ICMP_HEADER_LEN,
    );
    const protocol = family === 4 ? PROTO.ICMP : PROTO.ICMPV6;
    this.#send(from, to, protocol, ICMP_HEADER_LEN + quotedLen, (p, at) => {
      setU8(p, at, family === 4 ? 3 : 1);
      setU8(p, at + 1, family === 4 ? 3 : 4);
      setU16(p, at + 2, 0);
      setU32(p, at + 4, 0);
      copy(packet.bytes, cursor.at, p, at + ICMP_HEADER_LEN, quotedLen);
    });
  }

  /** Builds the IP header around what `fill` writes, and the checksum of the upper layer. */
  #send(
    from: Address,
    to: Address,
    protocol: number,
    len: number,
    fill: (p: Uint8Array, at: number) => void,
  ): void {
    const header = from.family === 4 ? ipv4 : ipv6;
    if (header.HEADER_LEN + len > ipv4.TOTAL_LEN_MAX) {
      throw new KeyError('EMSGSIZE', `${len} octets do not fit into an IPv${from.family} packet`);
    }
    const packet = this.#arena.take();
    // A handler that answers from within `receive` goes one deep; nothing sends in a loop.
    if (!packet) throw new KeyError('ENOBUFS', 'no packet buffer left');
    const p = packet.bytes;
    const { at } = packet;
    packet.end = at + header.HEADER_LEN + len;
    if (from.family === 4) ipv4.write(p, at, 0, packet.len, this.#id(), 0, TTL, protocol);
    else ipv6.write(p, at, 0, 0, len, protocol, TTL);
    copy(from.bytes, 0, p, at + header.SRC_AT, ADDRESS_LEN[from.family]);
    copy(to.bytes, 0, p, at + header.DST_AT, ADDRESS_LEN[to.family]);
    fill(p, at + header.HEADER_LEN);
    if (from.family === 4) ipv4.updateChecksum(p, at);
    const cursor = new Cursor();
    decode(p, at, packet.end, cursor);
    checksum.updateTransportChecksum(p, cursor);
    try {
      this.#options.send([packet], 1);
    } finally {
      this.#arena.give(packet);
    }
  }

  #id(): number {
    this.#nextId = (this.#nextId % 0xffff) + 1;
    return this.#nextId;
  }
}
