import { networkInterfaces } from 'node:os';
import { type Address, parseAddress } from '../base/address.ts';
import { type AttachOptions, attach } from '../drivers/linux/attachment.ts';
import type { HostAttachment } from './attach.ts';

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
  return {
    description: `TUN ${attachment.local.name}, ${ways.filter((way) => way !== '').join(', ')}`,
    wire: attachment.wire,
    local: attachment.local,
    inspect: attachment.inspect,
    errors: attachment.errors,
    mark: options.mark,
    get wireMtu() {
      return attachment.wireMtu;
    },
    addresses: localAddresses,
    sharePorts: (ports) => attachment.sharePorts(ports),
    divert: (diversion) => attachment.setDiversion(diversion),
    setOverhead(octets) {
      if (options.mtu === 'auto')
        attachment.setMtu(Math.max(IPV6_MTU_MIN, attachment.wireMtu - octets));
    },
    refresh: () => attachment.refresh(),
    close: () => attachment.close(),
  };
}

function localAddresses(): Address[] {
  return Object.values(networkInterfaces())
    .flat()
    .map((one) => parseAddress(one?.address ?? ''))
    .filter((one) => one !== undefined);
}
