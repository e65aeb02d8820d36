import { u8 } from '../../wire/bytes.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import type { PacketSink } from '../../wire/packet.ts';
import { HEADROOM, PACKET_LEN_MAX, PACKET_LEN_SMALL, slotLen } from '../../wire/packet.ts';
import { PROTO } from '../../wire/protocol.ts';
import * as tcp from '../../wire/tcp.ts';
import * as udp from '../../wire/udp.ts';
import { BATCH_MAX } from '../held.ts';
import type { Refusals } from '../refusals.ts';
import { Batch, joinParts, slotsAt, type Whole } from './batch.ts';
import type { Libc } from './libc.ts';
import { type NativeBlock, nativeBlock, setWord, unpin } from './native-memory.ts';
import type { PacketMemory, Region } from './packet-memory.ts';
import type { Segments } from './segments.ts';
import { Spread } from './spread.ts';
import {
  VNET_FLAG,
  VNET_GSO,
  VNET_LEN,
  vnetChecksumOffset,
  vnetChecksumStart,
  vnetFlags,
  vnetGso,
  vnetSegment,
} from './vnet-header.ts';

/** Packets read in one turn, so that the other side has its turn soon. */
const TURN_MAX = 2 * BATCH_MAX;
/** A third of a batch: three large packets and a half fit it. */
const SPREAD_MAX = 64;
const IOVEC_LEN = 16;

/**
 * Reads a device with IFF_VNET_HDR, whose header is read into the headroom of a slot. A usual
 * packet is read right into its slot, the rest of a large one on into a slot for large packets;
 * that one is cut into segments there, or is a packet by itself. When the last one was cut, the
 * next is read into the slots of its segments.
 */
export class TunReader {
  readonly #c: Libc;
  readonly #fd: number;
  readonly #memory: PacketMemory;
  readonly #segments: Segments;
  readonly #refusals: Refusals;
  readonly #batch: Batch;
  readonly #region: Region;
  readonly #large: ReturnType<typeof slotsAt>[0];
  /** Two buffers for each slot: header and slot, and what does not fit it. */
  readonly #buffers: NativeBlock;
  readonly #spread = new Spread(PACKET_LEN_MAX, SPREAD_MAX);
  /** A buffer for the payload of each slot. */
  readonly #payloads: NativeBlock;
  readonly #whole: Whole = {
    at: 0,
    end: 0,
    family: 4,
    protocol: 0,
    segment: 0,
    spread: 0,
    slot: 0,
  };
  /** Set, possibly by whoever is handed packets: what has been read is all there is for now. */
  isPaused = false;

  constructor(c: Libc, fd: number, memory: PacketMemory, segments: Segments, refusals: Refusals) {
    this.#c = c;
    this.#fd = fd;
    this.#memory = memory;
    this.#segments = segments;
    this.#refusals = refusals;
    this.#batch = new Batch(memory, segments);
    this.#region = memory.take(slotLen(PACKET_LEN_MAX));
    this.#large = slotsAt(memory, this.#region.at, 1, PACKET_LEN_MAX)[0]!;
    this.#buffers = nativeBlock(c, 2 * IOVEC_LEN * BATCH_MAX);
    this.#payloads = nativeBlock(c, IOVEC_LEN * BATCH_MAX);
    const restAt = this.#large.slotAt + HEADROOM + PACKET_LEN_SMALL;
    for (const [i, slot] of this.#batch.slots.entries()) {
      const at = slot.slotAt + HEADROOM - VNET_LEN;
      this.#setBuffer(this.#buffers, 2 * i, at, VNET_LEN + PACKET_LEN_SMALL);
      this.#setBuffer(this.#buffers, 2 * i + 1, restAt, PACKET_LEN_MAX - PACKET_LEN_SMALL);
    }
  }

  set sink(sink: PacketSink) {
    this.#batch.sink = sink;
  }

  /** One turn: until nothing is left to read, or it is the turn of others. */
  read(): void {
    const batch = this.#batch;
    for (let turn = 0; turn < TURN_MAX && !batch.isReleased && !this.isPaused; ) {
      const { isOn, slots } = this.#spread;
      if (isOn && !batch.makeRoom(slots)) return;
      if (this.isPaused) break;
      const i = batch.count;
      const read = isOn
        ? this.#readSpread(i)
        : this.#c.readv(this.#fd, this.#buffers.base + 2 * IOVEC_LEN * i, 2);
      const len = read - VNET_LEN;
      if (len <= 0) break;
      const wrong = this.#take(i, len);
      if (wrong !== undefined) this.#refusals.add(wrong);
      turn += Math.ceil(len / PACKET_LEN_SMALL);
    }
    batch.handOn();
  }

  release(): void {
    this.#batch.release();
    this.#memory.give(this.#region);
    unpin(this.#buffers.bytes);
    unpin(this.#payloads.bytes);
  }

  #setBuffer({ view }: NativeBlock, i: number, at: number, len: number): void {
    setWord(view, IOVEC_LEN * i, this.#memory.address(at, len));
    setWord(view, IOVEC_LEN * i + 8, len);
  }

  /** Into slot `i` and those that follow: as many as the longest packet needs. */
  #readSpread(i: number): number {
    const { headersLen, segment, slots } = this.#spread;
    const at = this.#batch.slots[i]!.slotAt + HEADROOM;
    this.#setBuffer(this.#payloads, i, at - VNET_LEN, VNET_LEN + headersLen + segment);
    const len = this.#c.readv(this.#fd, this.#payloads.base + IOVEC_LEN * i, slots);
    this.#setBuffer(this.#payloads, i, at + headersLen, segment);
    return len;
  }

  /** What was read into slot `i`, and possibly on into others or the large one. */
  #take(i: number, len: number): string | undefined {
    const { bytes } = this.#memory;
    const { isOn, headersLen, segment } = this.#spread;
    const packet = this.#batch.slots[i]!;
    packet.reset();
    const vnetAt = packet.at - VNET_LEN;
    const gso = vnetGso(bytes, vnetAt);
    if (gso !== VNET_GSO.none) return this.#takeLarge(i, gso, len);
    const isLarge = len > (isOn ? headersLen + segment : PACKET_LEN_SMALL);
    if (isLarge) this.#gather(i, len);
    if (isOn) this.#spread.forget();
    const whole = isLarge ? this.#large : packet;
    whole.end = whole.at + len;
    if (!this.#complete(vnetAt, whole.at, len)) return 'offload header that makes no sense';
    this.#batch.add(whole);
    if (isLarge) this.#batch.handOn();
    return undefined;
  }

  /** Into the large slot. */
  #gather(i: number, len: number): void {
    const large = this.#large;
    const { slots } = this.#batch;
    const { isOn, headersLen, segment } = this.#spread;
    if (!isOn) return joinParts(slots[i]!, large, len);
    large.reset();
    large.end = large.at + len;
    this.#spread.gather(slots, i, slots[i]!.at, headersLen + segment, large);
  }

  #takeLarge(i: number, gso: number, len: number): string | undefined {
    const { bytes } = this.#memory;
    const large = this.#large;
    const { at } = this.#batch.slots[i]!;
    const family = u8(bytes, at) >>> 4;
    const isTcp = gso === (family === 4 ? VNET_GSO.tcp4 : VNET_GSO.tcp6);
    const vnetAt = at - VNET_LEN;
    const isPartial = (vnetFlags(bytes, vnetAt) & VNET_FLAG.needsChecksum) !== 0;
    // Segments are made from the sum that is in the checksum field.
    if ((family !== 4 && family !== 6) || !(isTcp || gso === VNET_GSO.udp) || !isPartial) {
      return 'offload header that makes no sense';
    }
    const whole = this.#whole;
    whole.family = family;
    whole.protocol = isTcp ? PROTO.TCP : PROTO.UDP;
    whole.segment = vnetSegment(bytes, vnetAt);
    const headersLen = headersLenOf(bytes, at, len, whole);
    whole.slot = i;
    if (this.#spread.isOn && this.#spread.matches(headersLen, whole.segment)) {
      whole.spread = headersLen;
      large.reset();
      bytes.copyWithin(large.at, at, at + headersLen);
    } else {
      whole.spread = 0;
      this.#gather(i, len);
      if (this.#spread.learn(headersLen, whole.segment)) this.#arrange();
    }
    whole.at = large.at;
    whole.end = large.at + len;
    return this.#batch.cut(whole);
  }

  #arrange(): void {
    const { headersLen, segment } = this.#spread;
    for (const [i, slot] of this.#batch.slots.entries()) {
      this.#setBuffer(this.#payloads, i, slot.slotAt + HEADROOM + headersLen, segment);
    }
  }

  #complete(vnetAt: number, at: number, len: number): boolean {
    const { bytes } = this.#memory;
    if ((vnetFlags(bytes, vnetAt) & VNET_FLAG.needsChecksum) === 0) return true;
    const start = vnetChecksumStart(bytes, vnetAt);
    return this.#segments.complete(at, len, start, start + vnetChecksumOffset(bytes, vnetAt)) === 0;
  }
}

/**
 * Of a TCP or UDP packet without options or extensions of IP, all of whose headers lie together; 0
 * of any other.
 */
function headersLenOf(p: Uint8Array, at: number, len: number, { family, protocol }: Whole): number {
  const ipLen = family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN;
  if (len < ipLen + tcp.HEADER_LEN) return 0;
  const carried = family === 4 ? ipv4.protocol(p, at) : ipv6.nextHeader(p, at);
  const isPlain = family === 6 || ipv4.headerLen(p, at) === ipLen;
  if (!isPlain || carried !== protocol) return 0;
  return ipLen + (protocol === PROTO.TCP ? tcp.headerLen(p, at + ipLen) : udp.HEADER_LEN);
}
