import type { Packet, PacketSink } from '../../wire/packet.ts';
import { PACKET_LEN_MAX, PacketArena } from '../../wire/packet.ts';
import { SINGLES_MAX } from '../held.ts';
import type { Link } from '../link.ts';
import { Refusals } from '../refusals.ts';
import type { Pausable } from './backlog.ts';
import {
  checkDeviceName,
  IFREQ_LEN,
  IFREQ_UNION_AT,
  setDeviceMtu,
  setDeviceSegments,
  setDeviceUp,
  setNoLinkLocalAddress,
  writeName,
} from './device.ts';
import { errnoReason } from './errno-name.ts';
import { failure, type Libc, libc, O_CLOEXEC, O_NONBLOCK, O_RDWR } from './libc.ts';
import { addressOf, pin, unpin, withBlock } from './native-memory.ts';
import { type Offload, type OffloadWish, offload } from './offload.ts';
import { type Watch, watchPackets } from './poll.ts';
import { TunReader } from './tun-reader.ts';
import { TunWriter } from './tun-writer.ts';

const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const IFF_MULTI_QUEUE = 0x0100;
/** Fail when the device exists, rather than join another program's. */
const IFF_TUN_EXCL = 0x8000;
/** What the device may leave to us: checksums, TCP segments of both families, with CWR too. */
const OFFLOAD_TCP = 0x01 | 0x02 | 0x04 | 0x08;
/** UDP segments of both families, from Linux 6.2 on. */
const OFFLOAD_UDP = 0x20 | 0x40;

export interface TunOptions {
  /** 1 to 15 letters, digits, `_`, `.` or `-`; not the name of a device that exists. */
  readonly name: string;
  /** Octets of the largest IP packet, 68 to 65535; IPv6 needs 1280. */
  readonly mtu: number;
  /** Default `auto`. */
  readonly offload?: OffloadWish;
  /**
   * A device with several queues, each a link of its own that gets a share of the flows: `first`
   * makes the device, `further` adds a queue to one that was made so. Default: one queue.
   */
  readonly queue?: 'first' | 'further';
}

export interface TunLink extends Link, Pausable {
  /**
   * Why packets were refused: names of errors, such as EINVAL for octets that the kernel does not
   * take for IP.
   */
  readonly refusals: ReadonlyMap<string, number>;
  setMtu(mtu: number): void;
  /**
   * While paused, nothing is read: the kernel keeps packets in the queue of the device, and drops
   * what finds no room there.
   */
  pause(isPaused: boolean): void;
  /** For people: what the kernel leaves to us in large packets, or why it does not. */
  describe(): string;
}

/**
 * Makes a TUN device and brings it up, without addresses or routes. Needs CAP_NET_ADMIN; throws an
 * Error that says what failed. The device vanishes with `close` of its last queue, and with the
 * process.
 */
export function openTun(options: TunOptions): TunLink {
  const { name, mtu } = options;
  checkDeviceName(name);
  const c = libc('TUN');
  const how = offload(options.offload ?? 'auto', c);
  const fd = c.open('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) throw failure(c, 'open /dev/net/tun');
  try {
    makeDevice(c, fd, options, 'why' in how ? 0 : IFF_VNET_HDR);
    const refusals = new Refusals();
    const { io, text } =
      'why' in how
        ? { io: new SingleIo(c, fd, refusals), text: `no offload: ${how.why}` }
        : largeIo(c, fd, how, refusals);
    if (options.queue !== 'further') {
      setDeviceMtu(c, name, mtu);
      if (!('why' in how)) setDeviceSegments(c, name, mtu);
      setNoLinkLocalAddress(c, name);
      setDeviceUp(c, name);
    }
    return new Tun(c, fd, name, io, text, refusals);
  } catch (error) {
    c.close(fd);
    throw error;
  }
}

function makeDevice(c: Libc, fd: number, { name, queue }: TunOptions, more: number): void {
  const queues = queue === undefined ? 0 : IFF_MULTI_QUEUE;
  const alone = queue === 'further' ? 0 : IFF_TUN_EXCL;
  withBlock(c, IFREQ_LEN, (ifreq) => {
    writeName(ifreq, name);
    const flags = IFF_TUN | IFF_NO_PI | more | queues | alone;
    ifreq.view.setUint16(IFREQ_UNION_AT, flags, true);
    if (c.ioctl(fd, TUNSETIFF, ifreq.base) < 0) throw failure(c, `make TUN device ${name}`);
  });
}

/** How packets are read and written. */
interface Io {
  readonly takesLarge: boolean;
  sink: PacketSink;
  /** One turn of the event loop, so that a flood on this side does not starve the other. */
  read(): void;
  pause(isPaused: boolean): void;
  write(packets: readonly Packet[], count: number): void;
  release(): void;
}

class Tun implements TunLink {
  readonly name: string;
  readonly #c: Libc;
  readonly #io: Io;
  readonly #text: string;
  readonly #refusals: Refusals;
  #fd: number;
  #watch: Watch | undefined;
  #isReceiving = false;
  #isPaused = false;

  constructor(c: Libc, fd: number, name: string, io: Io, text: string, refusals: Refusals) {
    this.#c = c;
    this.#fd = fd;
    this.name = name;
    this.#io = io;
    this.#text = text;
    this.#refusals = refusals;
  }

  get refused(): number {
    return this.#refusals.total;
  }

  get refusals(): ReadonlyMap<string, number> {
    return this.#refusals.byReason;
  }

  setMtu(mtu: number): void {
    setDeviceMtu(this.#c, this.name, mtu);
    if (this.#io.takesLarge) setDeviceSegments(this.#c, this.name, mtu);
  }

  describe(): string {
    return this.#text;
  }

  receive(handler: PacketSink): void {
    this.#io.sink = handler;
    this.#isReceiving = true;
    this.#follow();
  }

  pause(isPaused: boolean): void {
    this.#isPaused = isPaused;
    this.#io.pause(isPaused);
    this.#follow();
  }

  send: PacketSink = (packets, count) => {
    if (this.#fd < 0) this.#refusals.add('closed', count);
    else this.#io.write(packets, count);
  };

  close(): void {
    if (this.#fd < 0) return;
    this.#watch?.close();
    this.#c.close(this.#fd);
    this.#fd = -1;
    this.#io.release();
  }

  #follow(): void {
    const fd = this.#fd;
    if (fd < 0) return;
    if (this.#isReceiving && !this.#isPaused) {
      this.#watch ??= watchPackets(this.#c, fd, () => this.#io.read());
    } else {
      this.#watch?.close();
      this.#watch = undefined;
    }
  }
}

/** Each packet by itself: one system call, and no work but that. */
class SingleIo implements Io {
  readonly takesLarge = false;
  sink: PacketSink = () => {};
  readonly #c: Libc;
  readonly #fd: number;
  readonly #refusals: Refusals;
  readonly #arena = new PacketArena(SINGLES_MAX);
  readonly #arenaBase: number;
  readonly #packets: Packet[] = [];

  constructor(c: Libc, fd: number, refusals: Refusals) {
    this.#c = c;
    this.#fd = fd;
    this.#refusals = refusals;
    this.#arenaBase = pin(c, this.#arena.bytes);
    for (let i = 0; i < SINGLES_MAX; i++) this.#packets.push(this.#arena.take()!);
  }

  read(): void {
    let count = 0;
    while (count < SINGLES_MAX) {
      const packet = this.#packets[count]!;
      packet.reset();
      const address = this.#arenaBase + packet.at;
      const len = this.#c.read(this.#fd, address, PACKET_LEN_MAX);
      if (len <= 0) break;
      packet.end = packet.at + len;
      count++;
    }
    if (count > 0) this.sink(this.#packets, count);
  }

  /** A batch is a turn. */
  pause(): void {}

  write(packets: readonly Packet[], count: number): void {
    for (let i = 0; i < count; i++) {
      const packet = packets[i]!;
      const address = addressOf(this.#c, packet.bytes) + packet.at;
      if (this.#c.write(this.#fd, address, packet.len) < 0) {
        this.#refusals.add(errnoReason(this.#c, this.#c.errno()));
      }
    }
  }

  release(): void {
    unpin(this.#arena.bytes);
  }
}

function largeIo(
  c: Libc,
  fd: number,
  { memory, segments }: Exclude<Offload, { readonly why: string }>,
  refusals: Refusals,
): { readonly io: Io; readonly text: string } {
  const withUdp = c.ioctl(fd, TUNSETOFFLOAD, OFFLOAD_TCP | OFFLOAD_UDP) === 0;
  // A kernel that does not know this either gives and takes single packets, with the same header.
  const withTcp = withUdp || c.ioctl(fd, TUNSETOFFLOAD, OFFLOAD_TCP) === 0;
  const what = withUdp ? 'TCP and UDP' : withTcp ? 'TCP' : 'no';
  const reader = new TunReader(c, fd, memory, segments, refusals);
  const writer = new TunWriter(c, fd, memory, segments, refusals, withUdp);
  return {
    text: `${what} segmentation offload, ${segments.name}`,
    io: {
      takesLarge: true,
      set sink(sink: PacketSink) {
        reader.sink = sink;
      },
      read: () => reader.read(),
      pause(isPaused): void {
        reader.isPaused = isPaused;
      },
      write: (packets, count) => writer.write(packets, count),
      release(): void {
        reader.release();
        writer.release();
      },
    },
  };
}
