import type { Family } from '../../base/address.ts';
import type { Libc } from './libc.ts';
import { type Netlink, openNetlink } from './netlink.ts';
import { Network } from './network.ts';
import { flushRoutes } from './routes.ts';
import { removeRule } from './rule.ts';
import { Wires } from './wires.ts';

/** Where an attachment has left its rules and routes. */
export interface Places {
  readonly table: number;
  readonly rulePref: number;
  readonly families: readonly Family[];
}

/** The steps that undo an attachment: first nothing is led to us any more, then the rest goes. */
export function undoing(netlink: Netlink, wires: Wires, places: Places): (() => void)[] {
  const { families, table, rulePref: pref } = places;
  return [
    ...families.map((family) => () => removeRule(netlink, family, { table, pref })),
    () => wires.restore(),
    ...families.map((family) => () => flushRoutes(netlink, table, [family])),
  ];
}

/** The steps that undo what a process that was killed has left, also its block. */
export function undoLeftovers(
  c: Libc,
  places: Places & { readonly stateFile: string },
): (() => void)[] {
  const { rulePref: filterPref, stateFile } = places;
  const netlink = openNetlink(c);
  const network = new Network();
  network.read(netlink);
  const wires = new Wires({ netlink, network, wires: [], filterPref, stateFile });
  return [...undoing(netlink, wires, places), () => netlink.close()];
}
