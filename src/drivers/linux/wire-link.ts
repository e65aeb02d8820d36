import type { Family } from '../../base/address.ts';
import type { PacketSink } from '../../wire/packet.ts';
import type { Link } from '../link.ts';
import { Refusals } from '../refusals.ts';
import { Backlog } from './backlog.ts';
import { libc } from './libc.ts';
import type { OffloadWish } from './offload.ts';
import { openRaw, openRawSender } from './raw.ts';
import type { Share } from './share.ts';
import { openUdpEncap, type UdpEncap } from './udp.ts';
import { WireFinder } from './wire-finder.ts';

export interface WireOptions {
  readonly mark: number;
  readonly families: readonly Family[];
  /** Whether ESP and AH are received as IP protocols 50 and 51. */
  readonly rawIp: boolean;
  /** UDP port of ESP in UDP; none if not given. */
  readonly encapPort?: number | undefined;
  readonly offload: OffloadWish;
  readonly share?: Share | undefined;
}

export interface WireLink extends Link {
  readonly refusals: ReadonlyMap<string, number>;
  /** Packets that wait because the wire is slower than we are. */
  readonly backlog: Backlog;
  /** For people: how ESP in UDP is sent and received; undefined if there is none. */
  describeEncap(): string | undefined;
}

/**
 * The network's side as one link: raw IP, if that is received, and ESP in UDP, if there is any. The
 * sockets for raw IP are there in any case: without them the kernel would answer what arrives.
 * Throws an Error, with everything closed.
 */
export function openWire(options: WireOptions): WireLink {
  const { mark, families, rawIp, encapPort: port, offload, share } = options;
  const c = libc('raw IP');
  const opened: { close(): void }[] = [];
  const close = () => {
    for (const one of opened.splice(0)) one.close();
  };
  const besides = new Refusals();
  try {
    const wires = new WireFinder(c, mark);
    opened.push(wires);
    const backlog = new Backlog(c, wires);
    // The first to be closed: its last packets go by the others.
    opened.unshift(backlog);
    const beside = openRawSender({ mark, families }, besides);
    opened.push(beside);
    const raw = openRaw({ mark, families, protocols: [50, 51], share, backlog });
    opened.push(raw);
    let udp: UdpEncap | undefined;
    let send: PacketSink = (packets, count) => raw.send(packets, count);
    if (port !== undefined) {
      udp = openUdpEncap({ port, mark, families, offload, share, backlog });
      opened.push(udp);
      send = udp.sendBy(send);
    }
    backlog.sendBy(send, (packets, count) => beside.send(packets, count));
    return {
      name: 'wire',
      receive(handler: PacketSink): void {
        if (rawIp) raw.receive(handler);
        udp?.receive(handler);
      },
      send: (packets, count) => {
        if (backlog.isLooking) backlog.look(packets, count);
        send(packets, count);
      },
      get refused() {
        return raw.refused + (udp?.refused ?? 0) + backlog.refusals.total + besides.total;
      },
      get refusals() {
        const ofUdp = udp?.refusals ?? NONE;
        return summed([raw.refusals, ofUdp, backlog.refusals.byReason, besides.byReason]);
      },
      backlog,
      describeEncap: () => udp?.describe(),
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

const NONE: ReadonlyMap<string, number> = new Map();

function summed(all: readonly ReadonlyMap<string, number>[]): ReadonlyMap<string, number> {
  const sums = new Map<string, number>();
  for (const one of all) {
    for (const [reason, count] of one) sums.set(reason, (sums.get(reason) ?? 0) + count);
  }
  return sums;
}
