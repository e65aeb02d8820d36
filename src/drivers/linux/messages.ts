import { AF_INET, AF_INET6, type Libc } from './libc.ts';
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

export class MessageVector {
  readonly count: number;
  readonly base: number;
  readonly #block: NativeBlock;
  readonly #namesAt: number;
  readonly #iovecsAt: number;
  readonly #controlsAt: number;
  readonly #controlLen: number;

  /** `controlLen`: octets for control data of each message, a multiple of 8. */
  constructor(c: Libc, count: number, controlLen = 0) {
    this.count = count;
    this.#controlLen = controlLen;
    this.#iovecsAt = HEADER_LEN * count;
    this.#namesAt = this.#iovecsAt + IOVEC_LEN * count;
    this.#controlsAt = this.#namesAt + NAME_LEN * count;
    this.#block = nativeBlock(c, this.#controlsAt + controlLen * count);
    this.base = this.#block.base;
    for (let i = 0; i < count; i++) {
      const at = i * HEADER_LEN;
      setWord(this.view, at, this.base + this.#namesAt + i * NAME_LEN);
      setWord(this.view, at + 16, this.base + this.#iovecsAt + i * IOVEC_LEN);
      setWord(this.view, at + 24, 1);
      if (controlLen > 0) setWord(this.view, at + 32, this.base + this.controlAt(i));
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

  setBuffer(i: number, address: number, len: number): void {
    setWord(this.view, this.#iovecsAt + i * IOVEC_LEN, address);
    setWord(this.view, this.#iovecsAt + i * IOVEC_LEN + 8, len);
  }

  /** Before each receive: the kernel has overwritten the lengths. */
  prepareReceive(): void {
    for (let i = 0; i < this.count; i++) {
      const at = i * HEADER_LEN;
      this.view.setUint32(at + 8, NAME_LEN, true);
      setWord(this.view, at + 40, this.#controlLen);
    }
  }

  /** Where to send message `i`: `addressAt` points to 4 or 16 octets in `from`. */
  setName(i: number, family: 4 | 6, from: Uint8Array, addressAt: number): void {
    const at = this.nameAt(i);
    this.bytes.fill(0, at, at + NAME_LEN);
    const inet = family === 4 ? AF_INET : AF_INET6;
    this.view.setUint16(at, inet, true);
    const len = family === 4 ? 4 : 16;
    const to = at + (family === 4 ? 4 : 8);
    for (let k = 0; k < len; k++) this.bytes[to + k] = from[addressAt + k]!;
    this.view.setUint32(i * HEADER_LEN + 8, family === 4 ? 16 : 28, true);
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
