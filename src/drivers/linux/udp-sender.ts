import type { Family } from '../../base/address.ts';
import { u16 } from '../../wire/bytes.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import type { Packet, PacketSink } from '../../wire/packet.ts';
import * as udp from '../../wire/udp.ts';
import { BATCH_MAX } from '../held.ts';
import { UDP_HEADERS_LEN, UDP_PAYLOAD_MAX } from '../udp-packet.ts';
import type { Backlog } from './backlog.ts';
import { EAGAIN, EINVAL, EIO, EMSGSIZE, EOPNOTSUPP, type Libc, MSG_DONTWAIT } from './libc.ts';
import { MessageVector } from './messages.ts';
import { type NativeBlock, nativeBlock, unpin } from './native-memory.ts';
import type { PacketMemory } from './packet-memory.ts';
import { SEND_CONTROL_LEN, writeSendControl } from './send-control.ts';
import { MTU_DISCOVER } from './socket.ts';
import { familyOfRow, rowLen } from './udp-row.ts';

/** What the kernel takes in one message, whatever its version (UDP_MAX_SEGMENTS). */
const SEGMENTS_MAX = 64;
const MESSAGES_MAX = 32;
/** What is set for a moment to have DF in IPv4 headers, and what is set otherwise. */
const PMTUDISC_PROBE = 3;
const PMTUDISC_INTERFACE = 4;
/** Errors that say that this path does not do it, and not that nothing can be sent. */
const CANNOT: readonly number[] = [EINVAL, EIO, EMSGSIZE, EOPNOTSUPP];
/** How many rows to such a destination go as single packets until it is tried again. */
const SINGLY_MAX = 4096;
const DESTINATIONS_MAX = 256;
const NONE: readonly Packet[] = [];

/**
 * Sends rows of datagrams of one size from our port to one peer as one message (UDP_SEGMENT), which
 * the kernel carries through its layers as one packet. Everything else goes by raw sockets as
 * before. What the kernel does not take as one goes by them as well, so nothing is lost when a path
 * refuses. What it has no room for waits in the backlog.
 */
export class UdpSender {
  readonly #c: Libc;
  readonly #memory: PacketMemory;
  readonly #port: number;
  readonly #backlog: Backlog;
  readonly #lanes = new Map<Family, Lane>();
  readonly #singles: Packet[] = [];
  /** Hash of a destination to the rows that still go singly. */
  readonly #singly = new Map<number, number>();
  /** The two values of the option that DF depends on: off and on. */
  readonly #discover: NativeBlock;
  #raw: PacketSink = () => {};
  #packets: readonly Packet[] = NONE;

  constructor(c: Libc, memory: PacketMemory, port: number, backlog: Backlog) {
    this.#c = c;
    this.#memory = memory;
    this.#port = port;
    this.#backlog = backlog;
    this.#discover = nativeBlock(c, 8);
    this.#discover.view.setInt32(0, PMTUDISC_INTERFACE, true);
    this.#discover.view.setInt32(4, PMTUDISC_PROBE, true);
  }

  /** A socket that is bound to the port; whoever opened it closes it. */
  add(family: Family, fd: number): void {
    const vector = new MessageVector(this.#c, {
      messages: MESSAGES_MAX,
      buffers: BATCH_MAX,
      controlLen: SEND_CONTROL_LEN,
    });
    const [froms, lens] = [new Array<number>(MESSAGES_MAX), new Array<number>(MESSAGES_MAX)];
    this.#lanes.set(family, { fd, family, vector, used: 0, buffers: 0, froms, lens, df: false });
    this.#backlog.add(fd);
  }

  send(packets: readonly Packet[], count: number, raw: PacketSink): void {
    this.#packets = packets;
    this.#raw = raw;
    for (let i = 0; i < count; ) {
      const len = this.#rowLen(i, count);
      if (len === 1) {
        // In order: what was before it first.
        this.#flushRows();
        this.#singles.push(packets[i]!);
      } else {
        this.#flushSingles();
        this.#put(i, len);
      }
      i += len;
    }
    this.#flushRows();
    this.#flushSingles();
    this.#packets = NONE;
    for (const lane of this.#lanes.values()) if (lane.df) this.#setDf(lane, false);
  }

  release(): void {
    for (const { vector } of this.#lanes.values()) vector.release();
    this.#lanes.clear();
    unpin(this.#discover.bytes);
  }

  /** How many packets from `i` on go as one message; 1: this one goes by itself. */
  #rowLen(i: number, count: number): number {
    const packets = this.#packets;
    const first = packets[i]!;
    if (first.bytes !== this.#memory.bytes) return 1;
    const family = familyOfRow(first, this.#port);
    if (family === undefined || !this.#lanes.has(family)) return 1;
    const headersLen = UDP_HEADERS_LEN[family];
    const most = Math.floor(UDP_PAYLOAD_MAX[family] / (first.len - headersLen));
    const end = Math.min(count, i + most, i + SEGMENTS_MAX);
    const len = rowLen(packets, i, end, family);
    return len > 1 && this.#goesSingly(first, family) ? 1 : len;
  }

  #put(i: number, len: number): void {
    const packets = this.#packets;
    const first = packets[i]!;
    const p = first.bytes;
    const family = p[first.at]! >>> 4 === 4 ? 4 : 6;
    const lane = this.#lanes.get(family)!;
    const df = family === 4 && ipv4.dontFragment(p, first.at);
    const isFull = lane.used === MESSAGES_MAX || lane.buffers + len > BATCH_MAX;
    // Rows of the other family may go before these: nobody sees their order.
    if (isFull || (df !== lane.df && lane.used > 0)) this.#flushRow(lane);
    if (df !== lane.df) this.#setDf(lane, df);
    const headersLen = UDP_HEADERS_LEN[family];
    const { vector } = lane;
    for (let k = 0; k < len; k++) {
      const { at, end } = packets[i + k]!;
      const payloadLen = end - at - headersLen;
      const address = this.#memory.address(at + headersLen, payloadLen);
      vector.setBuffer(lane.buffers + k, address, payloadLen);
    }
    const m = lane.used;
    const udpAt = first.at + headersLen - udp.HEADER_LEN;
    const dstAt = first.at + (family === 4 ? ipv4.DST_AT : ipv6.DST_AT);
    vector.setBuffers(m, lane.buffers, len);
    vector.setName(m, family, p, dstAt, u16(p, udpAt + 2));
    writeSendControl(vector, m, family, first, first.len - headersLen);
    lane.froms[m] = i;
    lane.lens[m] = len;
    lane.buffers += len;
    lane.used++;
  }

  #flushRows(): void {
    for (const lane of this.#lanes.values()) if (lane.used > 0) this.#flushRow(lane);
  }

  /** sendmmsg stops at the first message that fails: its packets go by themselves. */
  #flushRow(lane: Lane): void {
    const { used, vector } = lane;
    lane.used = 0;
    lane.buffers = 0;
    for (let from = 0; from < used; ) {
      const { isWaiting } = this.#backlog;
      const sent = isWaiting
        ? 0
        : this.#c.sendmmsg(lane.fd, vector.at(from), used - from, MSG_DONTWAIT);
      if (sent > 0) {
        from += sent;
        continue;
      }
      const errno = isWaiting ? EAGAIN : this.#c.errno();
      if (errno === EAGAIN) {
        this.#keep(lane, from, used);
        return;
      }
      this.#sendSingly(lane, from, errno);
      from++;
    }
  }

  #keep(lane: Lane, message: number, used: number): void {
    for (let i = message; i < used; i++) {
      const from = lane.froms[i]!;
      this.#backlog.keep(lane.fd, this.#packets, from, from + lane.lens[i]!);
    }
  }

  #sendSingly(lane: Lane, message: number, errno: number): void {
    const first = lane.froms[message]!;
    const packets = this.#packets.slice(first, first + lane.lens[message]!);
    if (CANNOT.includes(errno)) {
      if (this.#singly.size >= DESTINATIONS_MAX) this.#singly.clear();
      this.#singly.set(destinationHash(packets[0]!, lane.family), SINGLY_MAX);
    }
    this.#raw(packets, packets.length);
  }

  /** Whether the path to this destination did not take rows lately. */
  #goesSingly(packet: Packet, family: Family): boolean {
    if (this.#singly.size === 0) return false;
    const hash = destinationHash(packet, family);
    const left = this.#singly.get(hash);
    if (left === undefined) return false;
    if (left <= 1) this.#singly.delete(hash);
    else this.#singly.set(hash, left - 1);
    return true;
  }

  #flushSingles(): void {
    const singles = this.#singles;
    if (singles.length === 0) return;
    this.#raw(singles, singles.length);
    singles.length = 0;
  }

  /**
   * DF belongs to the socket, not to the message. It is back off as soon as the packets are out:
   * while it is on, ICMP errors about the port would change what the kernel thinks of paths.
   */
  #setDf(lane: Lane, df: boolean): void {
    const [level, option] = MTU_DISCOVER[4];
    this.#c.setsockopt(lane.fd, level, option, this.#discover.base + (df ? 4 : 0), 4);
    lane.df = df;
  }
}

interface Lane {
  readonly fd: number;
  readonly family: Family;
  readonly vector: MessageVector;
  /** Messages and buffers that are filled in and not sent yet. */
  used: number;
  buffers: number;
  /** For each message: the first of its packets, and how many they are. */
  readonly froms: number[];
  readonly lens: number[];
  df: boolean;
}

/** Two destinations with one hash only share their luck. */
function destinationHash({ bytes, at }: Packet, family: Family): number {
  const dstAt = at + (family === 4 ? ipv4.DST_AT : ipv6.DST_AT);
  let hash: number = family;
  for (let i = 0; i < (family === 4 ? 4 : 16); i++) {
    hash = (Math.imul(hash, 31) + bytes[dstAt + i]!) | 0;
  }
  return hash;
}
