import type { Packet, PacketSink } from '../../wire/packet.ts';
import { HEADROOM, PACKET_LEN_MAX, PacketArena } from '../../wire/packet.ts';
import { BATCH_MAX } from '../held.ts';
import type { Refusals } from '../refusals.ts';
import { type Libc, MSG_CTRUNC, MSG_DONTWAIT, MSG_TRUNC } from './libc.ts';
import { MessageVector } from './messages.ts';
import { pin, unpin } from './native-memory.ts';
import { type Watch, watch } from './poll.ts';

/**
 * Makes a whole IP packet of message `i`: the data of the message is in `packet` already. Returns a
 * reason for people when that cannot be done.
 */
export type Rebuild = (vector: MessageVector, i: number, packet: Packet) => string | undefined;

/**
 * Reads batches from sockets into packets. All its sockets share the memory, since only one is read
 * at a time.
 */
export class Receiver {
  readonly #c: Libc;
  readonly #vector: MessageVector;
  readonly #arena = new PacketArena(BATCH_MAX);
  readonly #packets: Packet[] = [];
  readonly #whole: Packet[] = [];
  readonly #sources: { readonly fd: number; readonly rebuild: Rebuild }[] = [];
  readonly #watches: Watch[] = [];
  readonly #refusals: Refusals;
  #handler: PacketSink | undefined;
  #closed = false;

  constructor(c: Libc, refusals: Refusals, controlLen: number) {
    this.#c = c;
    this.#refusals = refusals;
    this.#vector = new MessageVector(c, BATCH_MAX, controlLen);
    const base = pin(c, this.#arena.bytes);
    for (let i = 0; i < BATCH_MAX; i++) {
      const packet = this.#arena.take()!;
      this.#packets.push(packet);
      this.#vector.setBuffer(i, base + packet.slotAt + HEADROOM, PACKET_LEN_MAX);
    }
  }

  /** Takes a socket over: it is read once there is a handler, and closed with the receiver. */
  add(fd: number, rebuild: Rebuild): void {
    this.#sources.push({ fd, rebuild });
  }

  receive(handler: PacketSink): void {
    this.#handler = handler;
    if (this.#closed || this.#watches.length > 0) return;
    for (const { fd, rebuild } of this.#sources) {
      this.#watches.push(watch(this.#c, fd, () => this.#readBatch(fd, rebuild)));
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const each of this.#watches) each.close();
    for (const { fd } of this.#sources) this.#c.close(fd);
    this.#vector.release();
    unpin(this.#arena.bytes);
  }

  #readBatch(fd: number, rebuild: Rebuild): void {
    if (this.#closed) return;
    const vector = this.#vector;
    vector.prepareReceive();
    const count = this.#c.recvmmsg(fd, vector.base, BATCH_MAX, MSG_DONTWAIT, 0);
    // Also negative for errors that ICMP messages left on the socket: reading has taken them off,
    // packets come next.
    if (count <= 0) return;
    this.#whole.length = 0;
    for (let i = 0; i < count; i++) {
      const packet = this.#packets[i]!;
      packet.reset();
      packet.end = packet.at + vector.len(i);
      const cut = (vector.flags(i) & (MSG_TRUNC | MSG_CTRUNC)) !== 0;
      const wrong = cut ? 'too long to receive' : rebuild(vector, i, packet);
      if (wrong === undefined) this.#whole.push(packet);
      else this.#refusals.add(wrong);
    }
    if (this.#whole.length > 0) this.#handler?.(this.#whole, this.#whole.length);
  }
}
