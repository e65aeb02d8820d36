import { ADDRESS_LEN, type Address, sameAddress } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import type { SocketEntry } from '../engine/socket-policies.ts';
import { copy } from '../wire/bytes.ts';
import * as checksum from '../wire/checksum.ts';
import { Cursor, decode } from '../wire/cursor.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as ipv6 from '../wire/ipv6.ts';
import { type Packet, PacketArena } from '../wire/packet.ts';

const TTL = 64;

/** Where packets go: `socket` is whose policy they go by; undefined: the host's. */
export type SocketOutput = (
  packets: readonly Packet[],
  count: number,
  socket: SocketEntry | undefined,
) => void;

/** What a packet is made of: `fill` writes `len` octets behind the IP header. */
export interface Outgoing {
  readonly from: Address;
  readonly to: Address;
  readonly protocol: number;
  readonly len: number;
  readonly fill: (p: Uint8Array, at: number) => void;
  readonly socket?: SocketEntry | undefined;
}

/** Makes IP packets and sends them. */
export class Sender {
  readonly addresses: readonly Address[];
  readonly #output: SocketOutput;
  readonly #arena = new PacketArena(4);
  readonly #cursor = new Cursor();
  #nextId = 0;

  constructor(addresses: readonly Address[], output: SocketOutput) {
    this.addresses = addresses;
    this.#output = output;
  }

  isOurs(one: Address): boolean {
    return this.addresses.some((own) => sameAddress(own, one));
  }

  /** The address that packets come from: the one that the socket is bound to, or the first. */
  sourceFor(to: Address, bound?: Address): Address {
    if (bound !== undefined && bound.family === to.family) return bound;
    const source = this.addresses.find((one) => one.family === to.family);
    if (!source || bound !== undefined) {
      const whose = bound === undefined ? 'this host' : 'this socket';
      throw new KeyError('EAFNOSUPPORT', `${whose} has no IPv${to.family} address`);
    }
    return source;
  }

  /** The IP header around what `fill` writes, and the checksum of the upper layer. */
  send({ from, to, protocol, len, fill, socket }: Outgoing): void {
    const header = from.family === 4 ? ipv4 : ipv6;
    if (header.HEADER_LEN + len > ipv4.TOTAL_LEN_MAX) {
      throw new KeyError('EMSGSIZE', `${len} octets do not fit into an IPv${from.family} packet`);
    }
    this.make(socket, (packet) => {
      const p = packet.bytes;
      const { at } = packet;
      packet.end = at + header.HEADER_LEN + len;
      if (from.family === 4) ipv4.write(p, at, 0, packet.len, this.nextId(), 0, TTL, protocol);
      else ipv6.write(p, at, 0, 0, len, protocol, TTL);
      copy(from.bytes, 0, p, at + header.SRC_AT, ADDRESS_LEN[from.family]);
      copy(to.bytes, 0, p, at + header.DST_AT, ADDRESS_LEN[to.family]);
      fill(p, at + header.HEADER_LEN);
      if (from.family === 4) ipv4.updateChecksum(p, at);
      if (decode(p, at, packet.end, this.#cursor) !== undefined) return;
      checksum.updateTransportChecksum(p, this.#cursor);
    });
  }

  /** Sends what `write` makes of an empty packet. */
  make(socket: SocketEntry | undefined, write: (packet: Packet) => void): void {
    const packet = this.#arena.take();
    // A handler that answers from within `receive` goes one deep; nothing sends in a loop.
    if (!packet) throw new KeyError('ENOBUFS', 'no packet buffer left');
    try {
      write(packet);
      this.#output([packet], 1, socket);
    } finally {
      this.#arena.give(packet);
    }
  }

  nextId(): number {
    this.#nextId = (this.#nextId % 0xffff) + 1;
    return this.#nextId;
  }
}
