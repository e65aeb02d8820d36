import { type Address, addressFrom } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import { mayReport, portUnreachable, writeError } from '../engine/icmp.ts';
import { isIcmpError, Quote } from '../engine/quote.ts';
import type { SocketEntry, Takers } from '../engine/socket-policies.ts';
import * as checksum from '../wire/checksum.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import type { Packet, PacketSink } from '../wire/packet.ts';
import { PROTO } from '../wire/protocol.ts';
import * as udp from '../wire/udp.ts';
import {
  type EchoHandler,
  type EchoOptions,
  type EchoSocket,
  EchoSockets,
  echoMessage,
} from './echo.ts';
import type { PolicyService } from './policy-options.ts';
import { type RawHandler, type RawOptions, type RawSocket, RawSockets } from './raw.ts';
import { Sender } from './sender.ts';
import { type DatagramHandler, type UdpOptions, type UdpSocket, UdpSockets } from './udp.ts';

export interface InetOptions {
  /** The addresses of this host inside its tunnels. */
  readonly addresses: readonly Address[];
  /** Where packets go: `Host.output`. */
  readonly send: PacketSink;
  /** How many sockets there may be. 1024. */
  readonly socketsMax?: number;
}

/** Who gets a packet that no socket of the host's table is named for. */
const EVERYBODY: Takers = { sockets: [], others: true };

/**
 * The upper layers of a host that has no kernel interface: answers pings, and has sockets for ICMP
 * echo, UDP, and other protocols as they are. Packets go through the engine like anybody's; with
 * `join`, sockets have policies of their own.
 */
export class Inet {
  readonly #options: InetOptions;
  readonly #sender: Sender;
  readonly #udp: UdpSockets;
  readonly #echo: EchoSockets;
  readonly #raw: RawSockets;
  readonly #cursor = new Cursor();
  readonly #quote = new Quote();
  #service: PolicyService | undefined;
  #open = 0;
  /** Packets that nobody here wanted. */
  unwanted = 0;

  constructor(options: InetOptions) {
    this.#options = options;
    this.#sender = new Sender(options.addresses, (packets, count, socket) => {
      if (socket !== undefined && this.#service) {
        this.#service.host.outputOf(socket, packets, count);
      } else {
        options.send(packets, count);
      }
    });
    const service = () => this.#service;
    this.#udp = new UdpSockets(this.#sender, service);
    this.#echo = new EchoSockets(this.#sender, service);
    this.#raw = new RawSockets(this.#sender, service);
  }

  get addresses(): readonly Address[] {
    return this.#options.addresses;
  }

  /** From now on sockets can have policies, which this host keeps. */
  join(service: PolicyService): void {
    this.#service = service;
    this.#raw.joined();
  }

  /**
   * For `HostOptions.deliver`, and with `takers` for `HostOptions.deliverToSockets`, without which
   * sockets with policies get nothing that is for several.
   */
  receive(packets: readonly Packet[], count: number, takers?: readonly Takers[]): void {
    for (let i = 0; i < count; i++) this.#take(packets[i]!, takers?.[i] ?? EVERYBODY);
  }

  /** Port 0 picks one. Without a handler datagrams wait for `receive`. */
  openUdp(port: number, handler?: DatagramHandler, options: UdpOptions = {}): UdpSocket {
    return this.#opened((closed) => this.#udp.open(port, handler, options, closed));
  }

  openEcho(handler: EchoHandler, options: EchoOptions = {}): EchoSocket {
    return this.#opened((closed) => this.#echo.open(handler, options, closed));
  }

  /** Gets copies of all packets of a protocol that is neither TCP nor UDP. */
  openRaw(protocol: number, handler: RawHandler, options: RawOptions = {}): RawSocket {
    return this.#opened((closed) => this.#raw.open(protocol, handler, options, closed));
  }

  #opened<Socket>(open: (closed: () => void) => Socket): Socket {
    const max = this.#options.socketsMax ?? 1024;
    if (this.#open >= max) throw new KeyError('ENOBUFS', `${max} sockets are open already`);
    const socket = open(() => this.#open--);
    this.#open++;
    return socket;
  }

  #take(packet: Packet, { sockets, others }: Takers): void {
    const p = packet.bytes;
    const cursor = this.#cursor;
    if (decode(p, packet.at, packet.end, cursor) !== undefined || cursor.isFragment) {
      this.unwanted++;
      return;
    }
    const { family, protocol } = cursor;
    const to = addressFrom(family, p, cursor.dstAt);
    if (!this.#sender.isOurs(to) || !checksum.transportChecksumOk(p, cursor)) {
      this.unwanted++;
      return;
    }
    const from = addressFrom(family, p, cursor.srcAt);
    const isLetIn = others || sockets.some((one) => one.ends.raw !== true);
    const wanted = isLetIn && this.#takeByPort(packet, cursor, to, from);
    const isRead = this.#raw.size > 0 && this.#takeRaw(packet, to, from, sockets, others) > 0;
    if (wanted || isRead) return;
    this.unwanted++;
    if (isLetIn && protocol === PROTO.UDP) this.#sendPortUnreachable(packet);
  }

  /** To the socket that a packet is for, and to nobody else; false: there is none. */
  #takeByPort(packet: Packet, cursor: Cursor, to: Address, from: Address): boolean {
    const { protocol, family } = cursor;
    if (protocol === PROTO.UDP) return this.#takeUdp(packet.bytes, cursor, to, from);
    return protocol === icmp.protocolOf(family) && this.#takeIcmp(packet.bytes, cursor, to, from);
  }

  #takeRaw(
    packet: Packet,
    to: Address,
    from: Address,
    sockets: readonly SocketEntry[],
    isLetIn: boolean,
  ): number {
    const p = packet.bytes;
    // A handler may have answered, and used the cursor.
    const cursor = new Cursor();
    if (decode(p, packet.at, packet.end, cursor) !== undefined) return 0;
    const data = p.subarray(cursor.upperAt, cursor.end);
    const about = { protocol: cursor.protocol, from, to, hopLimit: hopLimit(p, cursor) };
    return this.#raw.take(data, about, sockets, isLetIn);
  }

  #takeIcmp(p: Uint8Array, cursor: Cursor, to: Address, from: Address): boolean {
    const { upperAt, end, family } = cursor;
    if (icmp.check(p, upperAt, end) !== undefined) return false;
    const [id, seq] = [icmp.echoId(p, upperAt), icmp.echoSeq(p, upperAt)];
    const data = p.subarray(upperAt + icmp.HEADER_LEN, end);
    if (icmp.isEcho(p, upperAt, family)) {
      const type = family === 4 ? icmp.TYPE4.ECHO_REPLY : icmp.TYPE6.ECHO_REPLY;
      this.#sender.send(echoMessage(type, id, seq, data, to, from));
      return true;
    }
    if (isIcmpError(p, cursor)) return this.#takeError(p, cursor);
    const handler = icmp.isEchoReply(p, upperAt, family) ? this.#echo.find(id) : undefined;
    handler?.(seq, data, from, hopLimit(p, cursor));
    return handler !== undefined;
  }

  /** An error about a datagram of ours: the socket that sent it is told (RFC 1122 §4.1.3.3). */
  #takeError(p: Uint8Array, error: Cursor): boolean {
    const quote = this.#quote;
    if (!quote.read(p, error) || !quote.isToSender) return false;
    const { bytes: q, cursor } = quote;
    if (cursor.protocol !== PROTO.UDP || !cursor.portsKnown) return false;
    const { family, sport, dport } = cursor;
    const from = addressFrom(family, q, cursor.dstAt);
    const to = addressFrom(family, q, cursor.srcAt);
    const socket = this.#udp.find({ to, port: sport, from, fromPort: dport });
    const { upperAt } = error;
    const mtu = icmp.isTooBig(p, upperAt, family) ? icmp.mtu(p, upperAt, family) : 0;
    const [type, code] = [icmp.type(p, upperAt), icmp.code(p, upperAt)];
    socket?.report({ to: from, port: dport, type, code, mtu });
    return socket !== undefined;
  }

  #takeUdp(p: Uint8Array, cursor: Cursor, to: Address, from: Address): boolean {
    const { upperAt, end, sport, dport } = cursor;
    if (udp.check(p, upperAt, end) !== undefined) return false;
    const socket = this.#udp.find({ to, port: dport, from, fromPort: sport });
    socket?.take(p.subarray(upperAt + udp.HEADER_LEN, upperAt + udp.len(p, upperAt)), from, sport);
    return socket !== undefined;
  }

  #sendPortUnreachable(packet: Packet): void {
    const cursor = new Cursor();
    const bad =
      decode(packet.bytes, packet.at, packet.end, cursor) ??
      udp.check(packet.bytes, cursor.upperAt, cursor.end);
    if (bad !== undefined || !mayReport(packet, cursor)) return;
    this.#sender.make(undefined, (error) => {
      writeError(error, packet, cursor, portUnreachable(cursor.family), this.#sender.nextId());
    });
  }
}

function hopLimit(p: Uint8Array, cursor: Cursor): number {
  return cursor.family === 4 ? ipv4.ttl(p, cursor.at) : ipv6.hopLimit(p, cursor.at);
}
