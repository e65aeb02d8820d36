import type { Packet, PacketSink } from '../../wire/packet.ts';
import { PACKET_LEN_MAX, PacketArena } from '../../wire/packet.ts';
import { BATCH_MAX } from '../held.ts';
import type { Link } from '../link.ts';
import { Refusals } from '../refusals.ts';
import {
  checkDeviceName,
  IFREQ_LEN,
  IFREQ_UNION_AT,
  setDeviceMtu,
  setDeviceUp,
  setNoLinkLocalAddress,
  writeName,
} from './device.ts';
import { errnoReason } from './errno-name.ts';
import { failure, type Libc, libc, O_CLOEXEC, O_NONBLOCK, O_RDWR } from './libc.ts';
import { addressOf, pin, unpin, withBlock } from './native-memory.ts';
import { type Watch, watch } from './poll.ts';

const TUNSETIFF = 0x400454ca;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
/** Fail when the device exists, rather than join another program's. */
const IFF_TUN_EXCL = 0x8000;

export interface TunOptions {
  /** 1 to 15 letters, digits, `_`, `.` or `-`; not the name of a device that exists. */
  readonly name: string;
  /** Octets of the largest IP packet, 68 to 65535; IPv6 needs 1280. */
  readonly mtu: number;
}

export interface TunLink extends Link {
  /**
   * Why packets were refused: names of errors, such as EINVAL for octets that the kernel does not
   * take for IP.
   */
  readonly refusals: ReadonlyMap<string, number>;
  setMtu(mtu: number): void;
}

/**
 * Makes a TUN device and brings it up, without addresses or routes. Needs CAP_NET_ADMIN; throws an
 * Error that says what failed. The device vanishes with `close`, and with the process.
 */
export function openTun(options: TunOptions): TunLink {
  const { name, mtu } = options;
  checkDeviceName(name);
  const c = libc('TUN');
  const fd = c.open('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) throw failure(c, 'open /dev/net/tun');
  try {
    withBlock(c, IFREQ_LEN, (ifreq) => {
      writeName(ifreq, name);
      ifreq.view.setUint16(IFREQ_UNION_AT, IFF_TUN | IFF_NO_PI | IFF_TUN_EXCL, true);
      if (c.ioctl(fd, TUNSETIFF, ifreq.base) < 0) throw failure(c, `make TUN device ${name}`);
    });
    setDeviceMtu(c, name, mtu);
    setNoLinkLocalAddress(name);
    setDeviceUp(c, name);
    return new Tun(c, fd, name);
  } catch (error) {
    c.close(fd);
    throw error;
  }
}

class Tun implements TunLink {
  readonly name: string;
  readonly #c: Libc;
  readonly #refusals = new Refusals();
  readonly #arena = new PacketArena(BATCH_MAX);
  readonly #arenaBase: number;
  readonly #packets: Packet[] = [];
  #fd: number;
  #watch: Watch | undefined;
  #handler: PacketSink | undefined;

  constructor(c: Libc, fd: number, name: string) {
    this.#c = c;
    this.#fd = fd;
    this.name = name;
    this.#arenaBase = pin(c, this.#arena.bytes);
    for (let i = 0; i < BATCH_MAX; i++) this.#packets.push(this.#arena.take()!);
  }

  get refused(): number {
    return this.#refusals.total;
  }

  get refusals(): ReadonlyMap<string, number> {
    return this.#refusals.byReason;
  }

  setMtu(mtu: number): void {
    setDeviceMtu(this.#c, this.name, mtu);
  }

  receive(handler: PacketSink): void {
    this.#handler = handler;
    if (this.#fd >= 0) this.#watch ??= watch(this.#c, this.#fd, () => this.#readBatch());
  }

  send: PacketSink = (packets, count) => {
    for (let i = 0; i < count; i++) {
      const packet = packets[i]!;
      const address = addressOf(this.#c, packet.bytes) + packet.at;
      if (this.#fd < 0) this.#refusals.add('closed');
      else if (this.#c.write(this.#fd, address, packet.len) < 0) this.#refuse();
    }
  };

  close(): void {
    if (this.#fd < 0) return;
    this.#watch?.close();
    this.#c.close(this.#fd);
    this.#fd = -1;
    unpin(this.#arena.bytes);
  }

  /**
   * One batch for each turn of the event loop, so that a flood on this side does not starve the
   * other.
   */
  #readBatch(): void {
    let count = 0;
    while (count < BATCH_MAX) {
      const packet = this.#packets[count]!;
      packet.reset();
      const address = this.#arenaBase + packet.at;
      const len = this.#c.read(this.#fd, address, PACKET_LEN_MAX);
      if (len <= 0) break;
      packet.end = packet.at + len;
      count++;
    }
    if (count > 0) this.#handler?.(this.#packets, count);
  }

  #refuse(): void {
    this.#refusals.add(errnoReason(this.#c, this.#c.errno()));
  }
}
