import type { Packet, PacketSink } from '../wire/packet.ts';
import type { Link } from './link.ts';

/**
 * Called for every packet before it goes on; borrows the packet. `in` came from the link, `out`
 * goes to it.
 */
export type Trace = (direction: 'in' | 'out', packet: Packet) => void;

/** A link that shows every packet to `trace` on its way. */
export function traceLink(inner: Link, trace: Trace): Link {
  return {
    get name() {
      return inner.name;
    },
    get refused() {
      return inner.refused;
    },
    receive(handler: PacketSink): void {
      inner.receive((packets, count) => {
        for (let i = 0; i < count; i++) trace('in', packets[i]!);
        handler(packets, count);
      });
    },
    send(packets, count): void {
      for (let i = 0; i < count; i++) trace('out', packets[i]!);
      inner.send(packets, count);
    },
    close(): void {
      inner.close();
    },
  };
}
