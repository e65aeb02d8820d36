import type { Packet } from '../../wire/packet.ts';
import { BATCH_MAX } from '../held.ts';
import type { Refusals } from '../refusals.ts';
import { errnoReason } from './errno-name.ts';
import type { Libc } from './libc.ts';
import { addressOf, type NativeBlock, nativeBlock, setWord, unpin } from './native-memory.ts';
import type { PacketMemory, Region } from './packet-memory.ts';
import { JOIN, type Segments, STATE } from './segments.ts';
import { VNET_FLAG, VNET_GSO, VNET_LEN, writeVnet } from './vnet-header.ts';

/** A place for the header of a large packet, with that of the device in front of it. */
const HEAD_ROOM = 128;
const BUFFER_LEN = 16;
/** After so many large packets in a row that the kernel did not want, none are made any more. */
const FAILURES_MAX = 8;

/**
 * Writes to a device with IFF_VNET_HDR. Neighbours in a batch that are segments of one stream are
 * written as one large packet: its header from a place of our own, the payloads from where they
 * lie. Only packets whose checksums were verified are joined, so that nothing damaged is made good.
 */
export class TunWriter {
  readonly #c: Libc;
  readonly #fd: number;
  readonly #memory: PacketMemory;
  readonly #segments: Segments;
  readonly #refusals: Refusals;
  readonly #region: Region;
  readonly #buffers: NativeBlock;
  readonly #jobWord: number;
  readonly #packetsWord: number;
  readonly #statesWord: number;
  readonly #headsAt: number;
  /** Headers of the device for packets that go alone: checksum not verified, and verified. */
  readonly #plainAt: number;
  #joinsLeft = FAILURES_MAX;

  constructor(
    c: Libc,
    fd: number,
    memory: PacketMemory,
    segments: Segments,
    refusals: Refusals,
    withUdp: boolean,
  ) {
    this.#c = c;
    this.#fd = fd;
    this.#memory = memory;
    this.#segments = segments;
    this.#refusals = refusals;
    this.#buffers = nativeBlock(c, BUFFER_LEN * (BATCH_MAX + 1));
    const headsLen = (BATCH_MAX / 2) * HEAD_ROOM;
    const wordsLen = 4 * (JOIN.words + 3 * BATCH_MAX);
    this.#region = memory.take(64 + headsLen + wordsLen);
    const { at } = this.#region;
    this.#plainAt = at;
    writeVnet(memory.bytes, at + 16, VNET_FLAG.verified, VNET_GSO.none, 0, 0, 0, 0);
    this.#headsAt = at + 64;
    this.#packetsWord = (this.#headsAt + headsLen) / 4;
    this.#statesWord = this.#packetsWord + 2 * BATCH_MAX;
    this.#jobWord = this.#statesWord + BATCH_MAX;
    const { words } = memory;
    words[this.#jobWord + JOIN.packets] = 4 * this.#packetsWord;
    words[this.#jobWord + JOIN.states] = 4 * this.#statesWord;
    words[this.#jobWord + JOIN.withUdp] = Number(withUdp);
    words[this.#jobWord + JOIN.heads] = this.#headsAt;
    words[this.#jobWord + JOIN.headRoom] = HEAD_ROOM;
  }

  write(packets: readonly Packet[], count: number): void {
    for (let from = 0; from < count; from += BATCH_MAX) {
      this.#writeBatch(packets, from, Math.min(count, from + BATCH_MAX));
    }
  }

  release(): void {
    this.#memory.give(this.#region);
    unpin(this.#buffers.bytes);
  }

  #writeBatch(packets: readonly Packet[], from: number, to: number): void {
    const { words } = this.#memory;
    this.#examine(packets, from, to);
    for (let i = from, train = 0; i < to; ) {
      const state = words[this.#statesWord + i - from]!;
      if ((state & STATE.leads) === 0) {
        this.#writeOne(packets[i]!, (state & STATE.verified) !== 0);
        i++;
        continue;
      }
      let end = i + 1;
      while (end < to && (words[this.#statesWord + end - from]! & STATE.follows) !== 0) end++;
      this.#writeTrain(packets, i, end, train++, state >>> STATE.headersShift);
      i = end;
    }
  }

  /** Which packets are right, and which belong together: the states. */
  #examine(packets: readonly Packet[], from: number, to: number): void {
    const { words, bytes } = this.#memory;
    const count = to - from;
    for (let i = 0; i < count; i++) {
      const packet = packets[from + i]!;
      // What lies elsewhere is for the loops an empty packet, that is, none of theirs.
      const isHere = packet.bytes === bytes;
      words[this.#packetsWord + 2 * i] = isHere ? packet.at : 0;
      words[this.#packetsWord + 2 * i + 1] = isHere ? packet.end : 0;
    }
    words[this.#jobWord + JOIN.count] = this.#joinsLeft > 0 ? count : 0;
    const trains = this.#segments.join(4 * this.#jobWord);
    if (trains < 0 || this.#joinsLeft === 0) {
      words.fill(0, this.#statesWord, this.#statesWord + count);
    }
  }

  #writeOne(packet: Packet, isVerified: boolean): void {
    const { at, len } = packet;
    this.#setBuffer(0, this.#memory.address(this.#plainAt + (isVerified ? 16 : 0), VNET_LEN), 10);
    const isHere = packet.bytes === this.#memory.bytes;
    const address = isHere
      ? this.#memory.address(at, len)
      : addressOf(this.#c, packet.bytes) + packet.at;
    this.#setBuffer(1, address, len);
    if (this.#c.writev(this.#fd, this.#buffers.base, 2) < 0) {
      this.#refusals.add(errnoReason(this.#c, this.#c.errno()));
    }
  }

  #writeTrain(
    packets: readonly Packet[],
    from: number,
    to: number,
    train: number,
    headersLen: number,
  ): void {
    const memory = this.#memory;
    const headAt = this.#headsAt + train * HEAD_ROOM;
    const vnetAt = headAt - VNET_LEN;
    const first = packets[from]!;
    this.#writeVnet(headAt, vnetAt, headersLen, first.len - headersLen);
    const headLen = VNET_LEN + headersLen;
    this.#setBuffer(0, memory.address(vnetAt, headLen), headLen);
    for (let i = from; i < to; i++) {
      const { at, end } = packets[i]!;
      const len = end - at - headersLen;
      this.#setBuffer(1 + i - from, memory.address(at + headersLen, len), len);
    }
    if (this.#c.writev(this.#fd, this.#buffers.base, 1 + to - from) >= 0) {
      this.#joinsLeft = FAILURES_MAX;
      return;
    }
    this.#joinsLeft--;
    for (let i = from; i < to; i++) this.#writeOne(packets[i]!, true);
  }

  #writeVnet(headAt: number, vnetAt: number, headersLen: number, segment: number): void {
    const { bytes } = this.#memory;
    const isIpv4 = bytes[headAt]! >>> 4 === 4;
    const isTcp = bytes[headAt + (isIpv4 ? 9 : 6)] === 6;
    const gso = isTcp ? (isIpv4 ? VNET_GSO.tcp4 : VNET_GSO.tcp6) : VNET_GSO.udp;
    const { needsChecksum } = VNET_FLAG;
    const [start, offset] = [isIpv4 ? 20 : 40, isTcp ? 16 : 6];
    writeVnet(bytes, vnetAt, needsChecksum, gso, headersLen, segment, start, offset);
  }

  #setBuffer(i: number, address: number, len: number): void {
    setWord(this.#buffers.view, BUFFER_LEN * i, address);
    setWord(this.#buffers.view, BUFFER_LEN * i + 8, len);
  }
}
