import type { Family } from '../../base/address.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import type { Packet } from '../../wire/packet.ts';
import { SINGLES_MAX } from '../held.ts';
import type { Refusals } from '../refusals.ts';
import type { Backlog } from './backlog.ts';
import { errnoReason } from './errno-name.ts';
import { EAGAIN, type Libc, MSG_DONTWAIT } from './libc.ts';
import { MessageVector } from './messages.ts';
import { addressOf } from './native-memory.ts';

/**
 * Sends whole IP packets by header-included sockets, one for each family, in batches. What they
 * have no room for waits in the backlog; without one it is dropped.
 */
export class RawSender {
  readonly #c: Libc;
  readonly #refusals: Refusals;
  readonly #backlog: Backlog | undefined;
  readonly #lanes = new Map<Family, Lane>();

  constructor(c: Libc, refusals: Refusals, backlog?: Backlog) {
    this.#c = c;
    this.#refusals = refusals;
    this.#backlog = backlog;
  }

  /** Takes a socket over. */
  add(family: Family, fd: number): void {
    const vector = new MessageVector(this.#c, { messages: SINGLES_MAX });
    this.#lanes.set(family, { fd, family, vector, packets: [], used: 0 });
    this.#backlog?.add(fd);
  }

  send(packets: readonly Packet[], count: number): void {
    for (let i = 0; i < count; i++) {
      const reason = this.#put(packets[i]!);
      if (reason !== undefined) this.#refusals.add(reason);
    }
    for (const lane of this.#lanes.values()) this.#flush(lane);
  }

  close(): void {
    for (const lane of this.#lanes.values()) {
      this.#c.close(lane.fd);
      lane.vector.release();
    }
    this.#lanes.clear();
  }

  #put(packet: Packet): string | undefined {
    if (packet.len < ipv4.HEADER_LEN) return 'not IPv4 or IPv6';
    const version = packet.bytes[packet.at]! >> 4;
    const family = version === 4 || version === 6 ? version : undefined;
    if (!family || (family === 6 && packet.len < ipv6.HEADER_LEN)) return 'not IPv4 or IPv6';
    const lane = this.#lanes.get(family);
    if (!lane) return 'no socket for this address family';
    if (lane.used === SINGLES_MAX) this.#flush(lane);
    const dstAt = packet.at + (family === 4 ? ipv4.DST_AT : ipv6.DST_AT);
    lane.vector.setName(lane.used, family, packet.bytes, dstAt);
    lane.vector.setBuffer(
      lane.used,
      addressOf(this.#c, packet.bytes) + packet.at,
      packet.end - packet.at,
    );
    lane.packets[lane.used] = packet;
    lane.used++;
    return undefined;
  }

  /**
   * sendmmsg stops at the first packet that fails: it is counted, and the rest goes on behind it,
   * unless it fails for lack of room.
   */
  #flush(lane: Lane): void {
    const { used, vector } = lane;
    lane.used = 0;
    for (let from = 0; from < used; ) {
      const isWaiting = this.#backlog?.isWaiting ?? false;
      const sent = isWaiting
        ? 0
        : this.#c.sendmmsg(lane.fd, vector.at(from), used - from, MSG_DONTWAIT);
      if (sent > 0) {
        from += sent;
        continue;
      }
      const errno = isWaiting ? EAGAIN : this.#c.errno();
      if (errno === EAGAIN && this.#backlog) {
        this.#backlog.keep(lane.fd, lane.packets, from, used);
        return;
      }
      const failed = errno === EAGAIN ? used - from : 1;
      this.#refusals.add(errnoReason(this.#c, errno), failed);
      from += failed;
    }
  }
}

interface Lane {
  readonly fd: number;
  readonly family: Family;
  readonly vector: MessageVector;
  /**
   * Messages that are filled in and not sent yet; their packets are borrowed until `send` returns.
   */
  used: number;
  /** Which packet each message is. */
  readonly packets: Packet[];
}
