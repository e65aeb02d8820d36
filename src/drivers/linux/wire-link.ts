import type { PacketSink } from '../../wire/packet.ts';
import type { Link } from '../link.ts';
import type { RawLink } from './raw.ts';
import type { UdpEncap } from './udp.ts';

export interface RefusingLink extends Link {
  readonly refusals: ReadonlyMap<string, number>;
}

/** The network's side as one link: raw IP, if that is received, and ESP in UDP, if there is any. */
export function mergeWire(raw: RawLink, udp: UdpEncap | undefined, rawIp: boolean): RefusingLink {
  const sendRaw: PacketSink = (packets, count) => raw.send(packets, count);
  return {
    name: 'wire',
    receive(handler: PacketSink): void {
      if (rawIp) raw.receive(handler);
      udp?.receive(handler);
    },
    send: udp === undefined ? sendRaw : udp.sendBy(sendRaw),
    get refused() {
      return raw.refused + (udp?.refused ?? 0);
    },
    get refusals() {
      const all = new Map(raw.refusals);
      for (const [reason, count] of udp?.refusals ?? []) {
        all.set(reason, (all.get(reason) ?? 0) + count);
      }
      return all;
    },
    close(): void {
      raw.close();
      udp?.close();
    },
  };
}
