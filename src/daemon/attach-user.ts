import type { Address } from '../base/address.ts';
import type { Endpoint } from '../drivers/udp-packet.ts';
import { openUdpUser } from '../drivers/udp-user.ts';
import { Inet } from '../inet/inet.ts';
import type { Packet, PacketSink } from '../wire/packet.ts';
import type { HostAttachment } from './attach.ts';

/** UDP sockets fragment by themselves: the engine must not. */
const WIRE_MTU = 65_535;

export interface UserAttachment extends HostAttachment {
  readonly inet: Inet;
  readonly endpoints: readonly Endpoint[];
}

/**
 * A host in user space: ESP travels in UDP through ordinary sockets, and the local side is `Inet`.
 * Nothing of the machine is changed, and no privilege is needed.
 */
export async function attachUser(
  addresses: readonly Address[],
  endpoints: readonly Endpoint[],
): Promise<UserAttachment> {
  const wire = await openUdpUser({ endpoints });
  let toHost: PacketSink = () => {};
  const inet = new Inet({ addresses, send: (packets, count) => toHost(packets, count) });
  const ports = wire.endpoints.map(({ port }) => port).join(', ');
  return {
    description: `user space, ESP in UDP on port ${ports}`,
    wire,
    local: {
      name: 'inet',
      receive: (handler) => {
        toHost = handler;
      },
      send: (packets: readonly Packet[], count: number) => inet.receive(packets, count),
      refused: 0,
      close: () => {},
    },
    inet,
    deliverToSockets: (packets, count, takers) => inet.receive(packets, count, takers),
    joined: (host, reqid) => inet.join({ host, reqid, dialect: 'linux' }),
    endpoints: wire.endpoints,
    wireMtu: WIRE_MTU,
    addresses: () => addresses,
    divert: () => {},
    setOverhead: () => {},
    refresh: () => {},
    close: () => wire.close(),
  };
}
