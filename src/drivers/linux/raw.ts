import type { Family } from '../../base/address.ts';
import * as bytes from '../../wire/bytes.ts';
import * as icmp from '../../wire/icmp.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import type { Packet, PacketSink } from '../../wire/packet.ts';
import { PROTO } from '../../wire/protocol.ts';
import { SINGLES_MAX } from '../held.ts';
import type { Link } from '../link.ts';
import { Refusals } from '../refusals.ts';
import type { Backlog } from './backlog.ts';
import {
  CONTROL_LEN,
  Control,
  IPV6_FLOWINFO,
  IPV6_RECVDSTOPTS,
  IPV6_RECVHOPLIMIT,
  IPV6_RECVHOPOPTS,
  IPV6_RECVPKTINFO,
  IPV6_RECVRTHDR,
  IPV6_RECVTCLASS,
} from './control.ts';
import { type Libc, libc, SOCK_RAW } from './libc.ts';
import { RawSender } from './raw-sender.ts';
import { Receiver, type Source } from './receiver.ts';
import { type Share, shareOfRaw } from './share.ts';
import { IPPROTO_IPV6, openSocket } from './socket.ts';

export interface RawOptions {
  /**
   * SO_MARK of all sockets: the rule that diverts packets must except it, or what we send comes
   * back to us.
   */
  readonly mark: number;
  /** Only this device; all if not given. */
  readonly device?: string;
  /** Which IP protocols to receive: 50 and 51 for ESP and AH. Any protocol can be sent. */
  readonly protocols: readonly number[];
  readonly families: readonly Family[];
  /** Octets that may wait in the kernel to be received by each socket. Default 8 MiB. */
  readonly bufferLen?: number;
  /** Packets that are read at once, 64 at most, which is the default. */
  readonly messages?: number;
  /** Of what arrives; all if not given. */
  readonly share?: Share | undefined;
  /** Where packets wait that the kernel has no room for. Closed by its owner, and before this. */
  readonly backlog: Backlog;
}

export interface RawLink extends Link {
  /**
   * Why packets were refused: EMSGSIZE when larger than the wire's MTU (the kernel does not
   * fragment these), and others.
   */
  readonly refusals: ReadonlyMap<string, number>;
}

/** All that AH covers of the headers, since an IPv6 raw socket begins after them. */
const TELL_HEADERS = [
  IPV6_RECVPKTINFO,
  IPV6_RECVHOPLIMIT,
  IPV6_RECVTCLASS,
  IPV6_FLOWINFO,
  IPV6_RECVHOPOPTS,
  IPV6_RECVRTHDR,
  IPV6_RECVDSTOPTS,
].map((name) => [IPPROTO_IPV6, name] as const);

/**
 * Whole IP packets of the given protocols in, whole IP packets of any protocol out, by raw sockets.
 * The kernel reassembles fragments before we get them. It writes the IPv4 header checksum, and
 * replaces an IPv4 identification of 0 unless DF is set. Needs CAP_NET_RAW and CAP_NET_ADMIN;
 * throws an Error that says what failed.
 */
export function openRaw(options: RawOptions): RawLink {
  return new Raw(libc('raw IP'), options, options.backlog);
}

/**
 * Copies of the ICMP errors that come in, which the kernel deals with as well: those that say what
 * became of packets (RFC 792, RFC 4443 §3), not redirects. What is sent is refused.
 */
export function openErrors(options: Pick<RawOptions, 'mark' | 'families'>): RawLink {
  const protocols = [PROTO.ICMP, PROTO.ICMPV6];
  // They are small, and what is more than this is somebody who plays.
  return new Raw(libc('raw ICMP'), { ...options, protocols, bufferLen: 256 << 10, messages: 8 });
}

/**
 * Sends whole IP packets of any protocol by sockets of its own. What they have no room for is
 * dropped. Throws an Error.
 */
export function openRawSender(
  { mark, families }: Pick<RawOptions, 'mark' | 'families'>,
  refusals: Refusals,
): RawSender {
  const c = libc('raw IP');
  const sender = new RawSender(c, refusals);
  try {
    addSockets(c, sender, { mark, families, protocols: [] });
  } catch (error) {
    sender.close();
    throw error;
  }
  return sender;
}

const ERROR_TYPES: Readonly<
  Record<number, { readonly family: Family; readonly types: readonly number[] }>
> = {
  [PROTO.ICMP]: {
    family: 4,
    types: [icmp.TYPE4.UNREACHABLE, icmp.TYPE4.TIME_EXCEEDED, icmp.TYPE4.PARAMETER_PROBLEM],
  },
  [PROTO.ICMPV6]: {
    family: 6,
    types: [
      icmp.TYPE6.UNREACHABLE,
      icmp.TYPE6.TOO_BIG,
      icmp.TYPE6.TIME_EXCEEDED,
      icmp.TYPE6.PARAMETER_PROBLEM,
    ],
  },
};

class Raw implements RawLink {
  readonly name = 'raw';
  readonly #refusals = new Refusals();
  readonly #receiver: Receiver;
  readonly #sender: RawSender | undefined;
  readonly #control = new Control();

  /** Without a backlog it only receives. */
  constructor(c: Libc, options: Omit<RawOptions, 'backlog'>, backlog?: Backlog) {
    this.#receiver = new Receiver(c, this.#refusals, {
      controlLen: CONTROL_LEN,
      messages: options.messages ?? SINGLES_MAX,
    });
    this.#sender = backlog && new RawSender(c, this.#refusals, backlog);
    try {
      // All receiving sockets first: without one the kernel answers ESP by "protocol unreachable",
      // which would be protected and answered in turn.
      for (const family of options.families) {
        for (const protocol of options.protocols) {
          if ((ERROR_TYPES[protocol]?.family ?? family) !== family) continue;
          const fd = open(c, options, family, protocol, family === 6 ? TELL_HEADERS : []);
          const rebuild = family === 4 ? whole : this.#rebuild6(protocol);
          this.#receiver.add({ fd, rebuild });
        }
      }
      if (this.#sender) addSockets(c, this.#sender, options);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get refused(): number {
    return this.#refusals.total;
  }

  get refusals(): ReadonlyMap<string, number> {
    return this.#refusals.byReason;
  }

  receive(handler: PacketSink): void {
    this.#receiver.receive(handler);
  }

  send: PacketSink = (packets, count) => {
    if (this.#sender) this.#sender.send(packets, count);
    else this.#refusals.add('no socket to send by', count);
  };

  close(): void {
    this.#sender?.close();
    this.#receiver.close();
  }

  #rebuild6(protocol: number): Source['rebuild'] {
    return (vector, i, packet) => {
      const control = this.#control;
      control.read(vector, i);
      if (control.dstAt < 0) return 'destination not told';
      prependExtensions(vector.bytes, control, packet);
      const payloadLen = packet.len;
      const next = control.firstExtension < 0 ? protocol : control.firstExtension;
      if (packet.at - ipv6.HEADER_LEN < packet.slotAt) return 'too many extension headers';
      if (payloadLen > ipv6.PAYLOAD_LEN_MAX) return 'too long to receive';
      packet.at -= ipv6.HEADER_LEN;
      const { trafficClass, flowLabel, hopLimit } = control;
      const p = packet.bytes;
      ipv6.write(p, packet.at, trafficClass, flowLabel, payloadLen, next, hopLimit);
      bytes.copy(vector.bytes, vector.nameAt(i) + 8, p, packet.at + ipv6.SRC_AT, 16);
      bytes.copy(vector.bytes, control.dstAt, p, packet.at + ipv6.DST_AT, 16);
      return undefined;
    };
  }
}

function addSockets(c: Libc, sender: RawSender, options: Omit<RawOptions, 'backlog'>): void {
  for (const family of options.families) {
    sender.add(family, open(c, options, family, IPPROTO_RAW, []));
  }
}

const IPPROTO_RAW = 255;
/**
 * Octets that may wait to be sent, for each family: fewer packets of the usual size than the queue
 * of a network card takes (1,000), which drops what is more without a word.
 */
const SEND_BUFFER_LEN = 1 << 20;

function open(
  c: Libc,
  options: Omit<RawOptions, 'backlog'>,
  family: Family,
  protocol: number,
  on: readonly (readonly [number, number])[],
): number {
  return openSocket(c, `open raw IPv${family} socket for protocol ${protocol}`, {
    family,
    type: SOCK_RAW,
    protocol,
    mark: options.mark,
    device: options.device,
    bufferLen: protocol === IPPROTO_RAW ? SEND_BUFFER_LEN : (options.bufferLen ?? 8 << 20),
    on,
    icmpTypes: ERROR_TYPES[protocol]?.types,
    filter:
      options.share && protocol !== IPPROTO_RAW
        ? shareOfRaw(family, protocol, options.share)
        : undefined,
  });
}

/** IPv4 raw sockets deliver the header, with length and offset in network order. */
function whole(): undefined {
  return undefined;
}

/**
 * Puts the extension headers back. Moves `at` below the slot's begin, without writing, when there
 * is no room.
 */
function prependExtensions(from: Uint8Array, control: Control, packet: Packet): void {
  let total = 0;
  for (const { at, end } of control.extensions) total += end - at;
  packet.at -= total;
  if (packet.at < packet.slotAt) return;
  let to = packet.at;
  for (const { at, end } of control.extensions) {
    bytes.copy(from, at, packet.bytes, to, end - at);
    to += end - at;
  }
}
