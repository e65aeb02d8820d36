import { ADDRESS_LEN, type Family } from '../../base/address.ts';
import { u16 } from '../../wire/bytes.ts';
import type { Packet, PacketSink } from '../../wire/packet.ts';
import { Refusals } from '../refusals.ts';
import {
  finishUdpHeaders,
  UDP_HEADERS_LEN,
  UDP_PAYLOAD_MAX,
  writeUdpHeaders,
} from '../udp-packet.ts';
import type { Backlog } from './backlog.ts';
import type { Payloads } from './batch.ts';
import {
  Control,
  IP_PKTINFO,
  IP_RECVTOS,
  IP_RECVTTL,
  IPV6_RECVHOPLIMIT,
  IPV6_RECVPKTINFO,
  IPV6_RECVTCLASS,
  IPV6_V6ONLY,
  SOL_UDP,
  UDP_GRO,
} from './control.ts';
import { AF_INET, AF_INET6, failure, type Libc, libc, SOCK_DGRAM } from './libc.ts';
import type { MessageVector } from './messages.ts';
import { withBlock } from './native-memory.ts';
import { type Offload, type OffloadWish, offload } from './offload.ts';
import { type PacketMemory, packetMemory } from './packet-memory.ts';
import { Receiver, type Source } from './receiver.ts';
import { type Share, shareOfPort } from './share.ts';
import {
  IPPROTO_IP,
  IPPROTO_IPV6,
  openSocket,
  SO_REUSEPORT,
  SOL_SOCKET,
  setOption,
  steerPort,
} from './socket.ts';
import { UdpSender } from './udp-sender.ts';

export interface UdpEncapOptions {
  /** 4500 (RFC 3948 §2.1), or what both sides agreed on. */
  readonly port: number;
  readonly mark: number;
  readonly families: readonly Family[];
  /**
   * Octets that may wait in the kernel for each socket. Default 1 MiB, which is short; 4 MiB where
   * several threads share the port, since each also has to do what others hand over to it.
   */
  readonly bufferLen?: number;
  /** Default `auto`. */
  readonly offload?: OffloadWish;
  /** Of what arrives, by sockets opened in the order of their numbers; all if not given. */
  readonly share?: Share | undefined;
  /** Where packets wait that the kernel has no room for. Closed by its owner, and before this. */
  readonly backlog: Backlog;
}

/** ESP in UDP: receives all of it, and sends what goes better by this port than by raw sockets. */
export interface UdpEncap {
  readonly port: number;
  /** Sets who gets what arrives: whole IP packets with UDP inside. */
  receive(handler: PacketSink): void;
  /**
   * Sends whole IP packets in their order: rows of datagrams from this port to one peer as one
   * message, all else by `raw`.
   */
  sendBy(raw: PacketSink): PacketSink;
  readonly refused: number;
  readonly refusals: ReadonlyMap<string, number>;
  /** For people: whether rows of datagrams are sent and received as one, or why not. */
  describe(): string;
  close(): void;
}

const OPTIONS = {
  4: [IP_PKTINFO, IP_RECVTTL, IP_RECVTOS].map((name) => [IPPROTO_IP, name] as const),
  6: [IPV6_V6ONLY, IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS].map(
    (name) => [IPPROTO_IPV6, name] as const,
  ),
};
const REUSE_PORT = [SOL_SOCKET, SO_REUSEPORT] as const;
const CONTROL_LEN = 256;
const BUFFER_LEN = 1 << 20;
const SHARED_BUFFER_LEN = 4 << 20;

/**
 * Binds the encapsulation port on all addresses of the host, so that the kernel accepts these
 * datagrams, reassembles them and does not answer "port unreachable". Throws an Error, also when
 * another program has the port.
 */
export function openUdpEncap(options: UdpEncapOptions): UdpEncap {
  const c = libc('ESP in UDP');
  const how = offload(options.offload ?? 'auto', c);
  const segments = 'why' in how ? undefined : how.segments;
  const memory = packetMemory(c);
  const header = memory.take(64);
  const refusals = new Refusals();
  const receiver = new Receiver(c, refusals, { controlLen: CONTROL_LEN, segments });
  const sender = segments && new UdpSender(c, memory, options.port, options.backlog);
  let isCoalescing = segments !== undefined;
  const close = () => {
    receiver.close();
    sender?.release();
    memory.give(header);
  };
  try {
    for (const family of options.families) {
      const fd = openPort(c, options, family);
      if (segments) isCoalescing = setOption(c, fd, SOL_UDP, UDP_GRO, 1) && isCoalescing;
      const headerAt = segments && header.at;
      receiver.add(new PortSource(fd, family, options.port, memory, headerAt));
      sender?.add(family, fd);
    }
  } catch (error) {
    close();
    throw error;
  }
  return {
    port: options.port,
    receive: (handler) => receiver.receive(handler),
    sendBy: (raw) => (sender ? (packets, count) => sender.send(packets, count, raw) : raw),
    describe: () => describe(how, isCoalescing),
    get refused() {
      return refusals.total;
    },
    get refusals() {
      return refusals.byReason;
    },
    close,
  };
}

function describe(how: Offload, isCoalescing: boolean): string {
  if ('why' in how) return `no offload: ${how.why}`;
  const received = isCoalescing ? 'UDP_SEGMENT and UDP_GRO' : 'UDP_SEGMENT, no UDP_GRO';
  return `${received}, ${how.segments.name}`;
}

function openPort(c: Libc, options: UdpEncapOptions, family: Family): number {
  const what = `listen on UDP port ${options.port} for IPv${family}`;
  const fd = openSocket(c, what, {
    family,
    type: SOCK_DGRAM,
    protocol: 0,
    mark: options.mark,
    bufferLen: options.bufferLen ?? (options.share ? SHARED_BUFFER_LEN : BUFFER_LEN),
    on: options.share ? [...OPTIONS[family], REUSE_PORT] : OPTIONS[family],
  });
  // Without that: two programs that share the port would each get some of the packets.
  const bound = withBlock(c, 64, (name) => {
    name.view.setUint16(0, family === 4 ? AF_INET : AF_INET6, true);
    name.view.setUint16(2, options.port, false);
    return c.bind(fd, name.base, family === 4 ? 16 : 28);
  });
  try {
    if (bound < 0) throw failure(c, what);
    if (options.share?.self === 0) steerPort(c, fd, shareOfPort(options.share.count), what);
    return fd;
  } catch (error) {
    c.close(fd);
    throw error;
  }
}

/** Makes IP packets of what a port gets; the kernel may put datagrams of one sender in a row. */
class PortSource implements Source {
  readonly fd: number;
  readonly #family: Family;
  readonly #port: number;
  readonly #control = new Control();
  readonly #payloads: Payloads | undefined;
  readonly #memory: PacketMemory;

  constructor(
    fd: number,
    family: Family,
    port: number,
    memory: PacketMemory,
    headerAt: number | undefined,
  ) {
    this.fd = fd;
    this.#family = family;
    this.#port = port;
    this.#memory = memory;
    if (headerAt === undefined) return;
    this.#payloads = { at: 0, end: 0, family, segment: 0, header: headerAt, spread: 0, slot: 0 };
  }

  coalesced(vector: MessageVector, i: number): Payloads | string | undefined {
    this.#control.read(vector, i);
    const payloads = this.#payloads;
    if (payloads === undefined || this.#control.segment <= 0) return undefined;
    payloads.segment = this.#control.segment;
    return this.#writeHeaders(vector, i, this.#memory.bytes, payloads.header) ?? payloads;
  }

  /** After `coalesced`, which has read the control data. */
  rebuild(vector: MessageVector, i: number, packet: Packet): string | undefined {
    const family = this.#family;
    if (packet.len > UDP_PAYLOAD_MAX[family]) return 'too long to receive';
    packet.at -= UDP_HEADERS_LEN[family];
    const wrong = this.#writeHeaders(vector, i, packet.bytes, packet.at);
    if (wrong === undefined) finishUdpHeaders(packet, family);
    return wrong;
  }

  #writeHeaders(
    vector: MessageVector,
    i: number,
    to: Uint8Array,
    toAt: number,
  ): string | undefined {
    const { bytes } = vector;
    const family = this.#family;
    if (this.#control.dstAt < 0) return 'destination not told';
    const nameAt = vector.nameAt(i);
    const from = { bytes, at: nameAt + (family === 4 ? 4 : 8), port: u16(bytes, nameAt + 2) };
    if (isZero(bytes, from.at, ADDRESS_LEN[family])) return 'source not told';
    const local = { bytes, at: this.#control.dstAt, port: this.#port };
    writeUdpHeaders(to, toAt, family, from, local, this.#control);
    return undefined;
  }
}

function isZero(p: Uint8Array, at: number, len: number): boolean {
  for (let i = at; i < at + len; i++) if (p[i] !== 0) return false;
  return true;
}
