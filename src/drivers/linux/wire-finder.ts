import { ADDRESS_LEN, addressFrom } from '../../base/address.ts';
import { toHex, u32 } from '../../wire/bytes.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import type { Packet } from '../../wire/packet.ts';
import type { Libc } from './libc.ts';
import { type Netlink, NetlinkError, openNetlink } from './netlink.ts';
import { decodeRoute, findRoute } from './netlink-route.ts';

const DESTINATIONS_MAX = 1024;
/** No device has this index. */
const NOWHERE = 0;

/** Says by which devices packets leave, for whoever can do with an answer that is a bit old. */
export class WireFinder {
  readonly #netlink: Netlink;
  readonly #mark: number;
  /** By destination: a word for IPv4, hexadecimal digits for IPv6. */
  readonly #devices = new Map<number | string, number>();

  /** `mark`: that of the sockets they are sent by. Throws an Error. */
  constructor(c: Libc, mark: number) {
    this.#netlink = openNetlink(c);
    this.#mark = mark;
  }

  /** The index of the device that an IP packet would leave by; 0 if by none. */
  deviceOf({ bytes: p, at, len }: Packet): number {
    const family = p[at]! >>> 4 === 4 ? 4 : 6;
    if (len < (family === 4 ? ipv4.HEADER_LEN : ipv6.HEADER_LEN)) return NOWHERE;
    const dstAt = at + (family === 4 ? ipv4.DST_AT : ipv6.DST_AT);
    const key =
      family === 4 ? u32(p, dstAt) : toHex(p.subarray(dstAt, dstAt + ADDRESS_LEN[family]));
    let device = this.#devices.get(key);
    if (device === undefined) {
      if (this.#devices.size >= DESTINATIONS_MAX) this.#devices.clear();
      const question = findRoute(addressFrom(family, p, dstAt), this.#mark);
      device = this.#ask(question);
      this.#devices.set(key, device);
    }
    return device;
  }

  /** Routes may have changed. */
  forget(): void {
    this.#devices.clear();
  }

  close(): void {
    this.#netlink.close();
  }

  #ask(question: ReturnType<typeof findRoute>): number {
    try {
      const [route] = this.#netlink.ask([question], decodeRoute);
      return route instanceof NetlinkError ? NOWHERE : (route?.device ?? NOWHERE);
    } catch (error) {
      // No answer could be had: then all are taken for one.
      if (error instanceof NetlinkError) return NOWHERE;
      throw error;
    }
  }
}
