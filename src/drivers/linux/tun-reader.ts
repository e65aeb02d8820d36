import { u8 } from '../../wire/bytes.ts';
import type { PacketSink } from '../../wire/packet.ts';
import { HEADROOM, PACKET_LEN_MAX, PACKET_LEN_SMALL, slotLen } from '../../wire/packet.ts';
import { PROTO } from '../../wire/protocol.ts';
import { BATCH_MAX } from '../held.ts';
import type { Refusals } from '../refusals.ts';
import { Batch, joinParts, slotsAt, type Whole } from './batch.ts';
import type { Libc } from './libc.ts';
import { type NativeBlock, nativeBlock, setWord, unpin } from './native-memory.ts';
import type { PacketMemory, Region } from './packet-memory.ts';
import type { Segments } from './segments.ts';
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

/**
 * Reads a device with IFF_VNET_HDR. A usual packet is read right into its slot, the rest of a
 * large one behind it into a slot for large packets; that one is cut into segments there, or is a
 * packet by itself.
 */
export class TunReader {
  readonly #c: Libc;
  readonly #fd: number;
  readonly #memory: PacketMemory;
  readonly #segments: Segments;
  readonly #refusals: Refusals;
  readonly #batch: Batch;
  readonly #region: Region;
  readonly #vnetAt: number;
  readonly #large: ReturnType<typeof slotsAt>[0];
  /** Three buffers for each slot: the header, the slot, and what does not fit it. */
  readonly #buffers: NativeBlock;
  readonly #whole: Whole = { at: 0, end: 0, family: 4, protocol: 0, segment: 0 };

  constructor(c: Libc, fd: number, memory: PacketMemory, segments: Segments, refusals: Refusals) {
    this.#c = c;
    this.#fd = fd;
    this.#memory = memory;
    this.#segments = segments;
    this.#refusals = refusals;
    this.#batch = new Batch(memory, segments);
    this.#region = memory.take(64 + slotLen(PACKET_LEN_MAX));
    this.#vnetAt = this.#region.at;
    this.#large = slotsAt(memory, this.#region.at + 64, 1, PACKET_LEN_MAX)[0]!;
    this.#buffers = nativeBlock(c, 48 * BATCH_MAX);
    const restAt = this.#large.slotAt + HEADROOM + PACKET_LEN_SMALL;
    for (const [i, slot] of this.#batch.slots.entries()) {
      this.#setBuffer(3 * i, this.#vnetAt, VNET_LEN);
      this.#setBuffer(3 * i + 1, slot.slotAt + HEADROOM, PACKET_LEN_SMALL);
      this.#setBuffer(3 * i + 2, restAt, PACKET_LEN_MAX - PACKET_LEN_SMALL);
    }
  }

  set sink(sink: PacketSink) {
    this.#batch.sink = sink;
  }

  /** One turn: until nothing is left to read, or it is the turn of others. */
  read(): void {
    const batch = this.#batch;
    for (let turn = 0; turn < TURN_MAX && !batch.isReleased; ) {
      const before = batch.count;
      const len = this.#c.readv(this.#fd, this.#buffers.base + 48 * before, 3) - VNET_LEN;
      if (len <= 0) break;
      const wrong = this.#take(before, len);
      if (wrong !== undefined) this.#refusals.add(wrong);
      turn += Math.ceil(len / PACKET_LEN_SMALL);
    }
    batch.handOn();
  }

  release(): void {
    this.#batch.release();
    this.#memory.give(this.#region);
    unpin(this.#buffers.bytes);
  }

  #setBuffer(i: number, at: number, len: number): void {
    setWord(this.#buffers.view, 16 * i, this.#memory.address(at, len));
    setWord(this.#buffers.view, 16 * i + 8, len);
  }

  /** What was read into slot `i`, and possibly on into the large one. */
  #take(i: number, len: number): string | undefined {
    const { bytes } = this.#memory;
    const packet = this.#batch.slots[i]!;
    packet.reset();
    const isLarge = len > PACKET_LEN_SMALL;
    const gso = vnetGso(bytes, this.#vnetAt);
    if (!isLarge && gso === VNET_GSO.none) {
      packet.end = packet.at + len;
      if (!this.#complete(packet.at, len)) return 'offload header that makes no sense';
      this.#batch.add(packet);
      return undefined;
    }
    const large = this.#large;
    joinParts(packet, large, len);
    if (gso !== VNET_GSO.none) return this.#cut(gso, large.at, large.end);
    if (!this.#complete(large.at, len)) return 'offload header that makes no sense';
    this.#batch.add(large);
    this.#batch.handOn();
    return undefined;
  }

  #cut(gso: number, at: number, end: number): string | undefined {
    const { bytes } = this.#memory;
    const family = u8(bytes, at) >>> 4;
    const isTcp = gso === (family === 4 ? VNET_GSO.tcp4 : VNET_GSO.tcp6);
    const isPartial = (vnetFlags(bytes, this.#vnetAt) & VNET_FLAG.needsChecksum) !== 0;
    // Segments are made from the sum that is in the checksum field.
    if ((family !== 4 && family !== 6) || !(isTcp || gso === VNET_GSO.udp) || !isPartial) {
      return 'offload header that makes no sense';
    }
    const whole = this.#whole;
    whole.at = at;
    whole.end = end;
    whole.family = family;
    whole.protocol = isTcp ? PROTO.TCP : PROTO.UDP;
    whole.segment = vnetSegment(bytes, this.#vnetAt);
    return this.#batch.cut(whole);
  }

  #complete(at: number, len: number): boolean {
    const { bytes } = this.#memory;
    const vnetAt = this.#vnetAt;
    if ((vnetFlags(bytes, vnetAt) & VNET_FLAG.needsChecksum) === 0) return true;
    const start = vnetChecksumStart(bytes, vnetAt);
    return this.#segments.complete(at, len, start, start + vnetChecksumOffset(bytes, vnetAt)) === 0;
  }
}
