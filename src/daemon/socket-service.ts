import type { Env } from '../base/env.ts';
import type { Link } from '../drivers/link.ts';
import { libc } from '../drivers/linux/libc.ts';
import type { SocketDevice } from '../drivers/linux/socket-device.ts';
import type { Host } from '../engine/host.ts';
import type { SocketPolicies } from '../engine/socket-policies.ts';
import type { PacketSink } from '../wire/packet.ts';
import type { HostAttachment } from './attach.ts';
import { ClearPorts } from './socket-clear-ports.ts';
import { linuxSockets, type SocketKernel } from './socket-kernel.ts';
import { SocketSource } from './socket-link.ts';
import { SocketRegistry } from './socket-registry.ts';

/** Policies of programs' sockets on a host that is attached to its machine. */
export interface SocketService {
  readonly registry: SocketRegistry;
  close(): void;
}

/**
 * Opens what it needs: the kernel's word about its sockets now, and the device for those that are
 * protected with the first of them. Undefined on hosts in user space. Throws an Error.
 */
export function openSocketService(
  env: Env,
  host: Host,
  attachment: HostAttachment,
): SocketService | undefined {
  const { mark } = attachment;
  if (mark === undefined || attachment.openSocketDevice === undefined) return undefined;
  const kernel: SocketKernel = linuxSockets(libc('policies of sockets'), {
    destroyed: (cookie) => registry.destroyed(cookie),
    lost: () => registry.lost(),
  });
  let device: SocketDevice | undefined;
  const openDevice = () => {
    device ??= startDevice(attachment.openSocketDevice!(), env, host, registry);
    return device;
  };
  const table: SocketPolicies = host.sockets;
  const clearPorts = new ClearPorts(host.settings, (ports) => {
    try {
      attachment.divertPorts?.(ports);
    } catch (error) {
      // Clear packets are not delivered to them, then.
      env.log('error', `exec: clear packets for sockets: ${String(error)}`);
    }
  });
  const registry = new SocketRegistry({ env, table, kernel, mark, openDevice, clearPorts });
  return {
    registry,
    close() {
      registry.close();
      kernel.close();
    },
  };
}

function startDevice(
  device: SocketDevice,
  env: Env,
  host: Host,
  registry: SocketRegistry,
): SocketDevice {
  const output: PacketSink = (packets, count) => host.outputOfSockets(packets, count);
  const link: Link = device.link;
  const source = new SocketSource({
    ...{ table: host.sockets, registry, clock: env.clock, output },
    device: device.index,
  });
  link.receive(source.take);
  return device;
}
