import {
  type AttachOptions,
  attach,
  OVERHEAD_AUTO,
  socketDevicePlace,
} from '../drivers/linux/attachment.ts';
import { libc } from '../drivers/linux/libc.ts';
import { families } from '../drivers/linux/network.ts';
import { readArrived } from '../drivers/linux/poll.ts';
import { openSocketDevice, type SocketDevice } from '../drivers/linux/socket-device.ts';
import type { HostAttachment } from './attach.ts';
import { deliverToSockets } from './socket-link.ts';

export interface TunOptions extends Omit<AttachOptions, 'mtu'> {
  /** MTU of the TUN device, or what is left of the smallest wire. */
  readonly mtu: number | 'auto';
}

const IPV6_MTU_MIN = 1280;

/**
 * A host on the real network of this machine (Linux, root): see `drivers/linux/attachment.ts` for
 * what is set and undone.
 */
export function attachTun(options: TunOptions): HostAttachment {
  const attachment = attach(options);
  const { rawIp, encapPort } = options;
  const ways = [
    rawIp ? 'raw IP' : '',
    encapPort === undefined ? '' : `ESP in UDP on port ${encapPort}`,
  ];
  let sockets: SocketDevice | undefined;
  const socketMtu = () =>
    options.mtu === 'auto'
      ? Math.max(IPV6_MTU_MIN, attachment.wireMtu - OVERHEAD_AUTO)
      : options.mtu;
  const followSockets = () => {
    sockets?.setMtu(socketMtu());
    sockets?.refresh();
  };
  return {
    description: `TUN ${attachment.local.name}, ${ways.filter((way) => way !== '').join(', ')}`,
    describeIo: () => attachment.describeIo(),
    wire: attachment.wire,
    get backlog() {
      return attachment.wire.backlog.counts;
    },
    local: attachment.local,
    inspect: attachment.inspect,
    errors: attachment.errors,
    mark: options.mark,
    deliverToSockets: (packets, count, takers) =>
      deliverToSockets(packets, count, takers, attachment.local, sockets?.link),
    openSocketDevice() {
      if (sockets) return sockets;
      sockets = openSocketDevice({
        ...socketDevicePlace(options),
        mtu: socketMtu(),
        families: families(),
        offload: options.offload ?? 'auto',
      });
      attachment.wire.backlog.pauses(sockets.link);
      return sockets;
    },
    get socketDevice() {
      return sockets;
    },
    divertPorts: (ports) => attachment.divertPorts(ports),
    get wireMtu() {
      return attachment.wireMtu;
    },
    handleArrived: () => readArrived(libc('TUN')),
    addresses: () => attachment.addresses(),
    sharePorts: (ports) => attachment.sharePorts(ports),
    divert: (table) => attachment.divert(table),
    follow: (events) =>
      attachment.follow({
        ...events,
        changed() {
          try {
            followSockets();
          } catch (error) {
            events.failed(error as Error);
          }
          events.changed();
        },
      }),
    setOverhead(octets) {
      if (options.mtu === 'auto')
        attachment.setMtu(Math.max(IPV6_MTU_MIN, attachment.wireMtu - octets));
    },
    refresh() {
      attachment.refresh();
      followSockets();
    },
    close() {
      try {
        sockets?.close();
      } finally {
        attachment.close();
      }
    },
  };
}
