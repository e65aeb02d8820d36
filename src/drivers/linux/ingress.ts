import { ENODEV, type Netlink, NetlinkError } from './netlink.ts';
import {
  decodeFilter,
  decodeQdisc,
  deleteFilter,
  deleteIngress,
  type Filter,
  listFilters,
  listQdiscs,
} from './netlink-filter.ts';

/**
 * Our filter at the ingress of a wire. There is one for each wire, found again by its preference
 * and kind, so it can be removed after a crash.
 */

/** The devices with a queueing discipline that filters incoming packets, whoever made it. */
export function ingressDevices(netlink: Netlink): Set<number> {
  const all = netlink.dump(listQdiscs(), decodeQdisc);
  const filtering = all.filter(({ kind }) => kind === 'ingress' || kind === 'clsact');
  return new Set(filtering.map(({ device }) => device));
}

/**
 * Removes our filter, if it is there. Another program's filter of the same preference is left
 * alone.
 */
export function removeFilter(netlink: Netlink, device: number, pref: number): void {
  const isOurs = (filter: Filter) => filter.pref === pref && filter.isClassicBpf;
  if (!filters(netlink, device).some(isOurs)) return;
  const error = netlink.execute([deleteFilter(device, pref)]).get(0);
  // A device can vanish at any time; what fails because of that is no failure.
  if (error && error.errno !== ENODEV) throw error;
}

/**
 * Removes the ingress queueing discipline that we made, unless others have put filters there since.
 */
export function removeIngress(netlink: Netlink, device: number): void {
  if (filters(netlink, device).length > 0) return;
  // It fails when somebody has removed it already, which is as good.
  netlink.execute([deleteIngress(device)]);
}

function filters(netlink: Netlink, device: number): readonly Filter[] {
  try {
    return netlink.dump(listFilters(device), decodeFilter);
  } catch (error) {
    // Without a discipline there are none, and without the device neither.
    if (error instanceof NetlinkError && error.errno !== 0) return [];
    throw error;
  }
}
