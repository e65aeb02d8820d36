import { copy, setU16, zero } from '../../wire/bytes.ts';
import { AF_INET, AF_INET6, type Libc, MSG_DONTWAIT } from './libc.ts';
import { type NativeBlock, nativeBlock, setWord, unpin } from './native-memory.ts';

/**
 * A vector of messages for recvmmsg(2) and sendmmsg(2): the structs of <sys/socket.h> on 64-bit
 * Linux.
 *
 *     mmsghdr    0 name*   8 namelen   16 iov*   24 iovlen   32 control*   40 controllen
 *     (64)      48 flags  56 len
 *     iovec      0 base*   8 len
 *     sockaddr   0 family  2 port   IPv4: 4 address   IPv6: 4 flow   8 address   24 scope
 *     cmsghdr    0 len     8 level  12 type   16 data; the next one at a multiple of 8
 */
const HEADER_LEN = 64;
const IOVEC_LEN = 16;
/** A sockaddr of 28 octets, and room to keep the next one aligned. */
const NAME_LEN = 32;
const CMSG_LEN = 16;

export interface VectorOptions {
  readonly messages: number;
  /** Pieces of memory that all messages together are made of. Default: one for each. */
  readonly buffers?: number;
  /** Octets for control data of each message, a multiple of 8. Default none. */
  readonly controlLen?: number;
}

export class MessageVector {
  readonly count: number;
  readonly base: number;
  readonly #c: Libc;
  readonly #block: NativeBlock;
  readonly #namesAt: number;
  readonly #iovecsAt: number;
  readonly #controlsAt: number;
  readonly #controlLen: number;
  /** How many the last `receive` filled: all, since none is ready for the first one. */
  #filled: number;

  /** Message `i` is buffer `i`, until `setBuffers` says otherwise. */
  constructor(c: Libc, { messages, buffers = messages, controlLen = 0 }: VectorOptions) {
    this.#c = c;
    this.count = messages;
    this.#controlLen = controlLen;
    this.#filled = messages;
    this.#iovecsAt = HEADER_LEN * messages;
    this.#namesAt = this.#iovecsAt + IOVEC_LEN * buffers;
    this.#controlsAt = this.#namesAt + NAME_LEN * messages;
    this.#block = nativeBlock(c, this.#controlsAt + controlLen * messages);
    this.base = this.#block.base;
    for (let i = 0; i < messages; i++) {
      const at = i * HEADER_LEN;
      setWord(this.view, at, this.base + this.#namesAt + i * NAME_LEN);
      if (controlLen > 0) setWord(this.view, at + 32, this.base + this.controlAt(i));
      if (i < buffers) this.setBuffers(i, i, 1);
    }
  }

  /** The native address of message `i`. */
  at(i: number): number {
    return this.base + i * HEADER_LEN;
  }

  get view(): DataView {
    return this.#block.view;
  }

  get bytes(): Uint8Array {
    return this.#block.bytes;
  }

  /** Buffer number `i`, which is not necessarily that of message `i`. */
  setBuffer(i: number, address: number, len: number): void {
    setWord(this.view, this.#iovecsAt + i * IOVEC_LEN, address);
    setWord(this.view, this.#iovecsAt + i * IOVEC_LEN + 8, len);
  }

  /** Message `i` is made of `count` buffers, from number `first` on. */
  setBuffers(i: number, first: number, count: number): void {
    setWord(this.view, i * HEADER_LEN + 16, this.base + this.#iovecsAt + first * IOVEC_LEN);
    setWord(this.view, i * HEADER_LEN + 24, count);
  }

  /** Receives `most` messages at most without waiting; how many, or -1 (`errno` says why). */
  receive(fd: number, most: number): number {
    // The kernel has overwritten the lengths of those that it filled, or began to.
    for (let i = 0; i < this.#filled; i++) {
      const at = i * HEADER_LEN;
      this.view.setUint32(at + 8, NAME_LEN, true);
      setWord(this.view, at + 40, this.#controlLen);
    }
    const count = this.#c.recvmmsg(fd, this.base, most, MSG_DONTWAIT, 0);
    this.#filled = Math.max(1, count);
    return count;
  }

  /** Where to send message `i`: `addressAt` points to 4 or 16 octets in `from`. */
  setName(i: number, family: 4 | 6, from: Uint8Array, addressAt: number, port = 0): void {
    const at = this.nameAt(i);
    const { bytes, view } = this.#block;
    zero(bytes, at, NAME_LEN);
    bytes[at] = family === 4 ? AF_INET : AF_INET6;
    setU16(bytes, at + 2, port);
    if (family === 4) copy(from, addressAt, bytes, at + 4, 4);
    else copy(from, addressAt, bytes, at + 8, 16);
    view.setUint32(i * HEADER_LEN + 8, family === 4 ? 16 : 28, true);
  }

  /** How many octets of control data message `i` is sent with. */
  setControlLen(i: number, len: number): void {
    setWord(this.view, i * HEADER_LEN + 40, len);
  }

  nameAt(i: number): number {
    return this.#namesAt + i * NAME_LEN;
  }

  controlAt(i: number): number {
    return this.#controlsAt + i * this.#controlLen;
  }

  /** Octets received. */
  len(i: number): number {
    return this.view.getUint32(i * HEADER_LEN + 56, true);
  }

  flags(i: number): number {
    return this.view.getUint32(i * HEADER_LEN + 48, true);
  }

  /**
   * Calls back for each piece of control data of message `i`, with where its data is in `bytes`.
   */
  eachControl(i: number, visit: (level: number, type: number, at: number, end: number) => void) {
    const start = this.controlAt(i);
    const end = start + this.view.getUint32(i * HEADER_LEN + 40, true);
    for (let at = start; at + CMSG_LEN <= end; ) {
      const len = this.view.getUint32(at, true);
      if (len < CMSG_LEN || at + len > end) return;
      const level = this.view.getInt32(at + 8, true);
      visit(level, this.view.getInt32(at + 12, true), at + CMSG_LEN, at + len);
      at += (len + 7) & ~7;
    }
  }

  release(): void {
    unpin(this.bytes);
  }
}
