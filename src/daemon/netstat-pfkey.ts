import { messageName } from '../wire/pfkey-table.ts';
import {
  count,
  histogram,
  type StatGroup,
  type StatLine,
  type StatSource,
} from './netstat-table.ts';

/** `netstat -s -p pfkey`: what programs and the key engine have said to each other. */
export const PFKEY_GROUP: StatGroup = { name: 'pfkey', header: 'pfkey:', lines };

function lines({ keys }: StatSource): StatLine[] {
  const { stats } = keys;
  const { faults, targets } = stats;
  return [
    count('out_total', stats.outTotal, 'request(s) sent from userland'),
    count('out_bytes', stats.outBytes, 'byte(s) sent from userland'),
    histogram('out_msgtype', byName(stats.outTypes), 'histogram by message type'),
    count('out_invlen', faults.invlen, 'message(s) with invalid length field'),
    count('out_invver', faults.invver, 'message(s) with invalid version field'),
    count('out_invmsgtype', faults.invmsgtype, 'message(s) with invalid message type field'),
    count('out_tooshort', faults.tooshort, 'message(s) too short'),
    count('out_nomem', faults.nomem, 'message(s) with memory allocation failure'),
    count('out_dupext', faults.dupext, 'message(s) with duplicate extension'),
    count('out_invexttype', faults.invexttype, 'message(s) with invalid extension type'),
    count('out_invsatype', faults.invsatype, 'message(s) with invalid sa type'),
    count('out_invaddr', faults.invaddr, 'message(s) with invalid address extension'),
    count('in_total', stats.inTotal, 'request(s) sent to userland'),
    count('in_bytes', stats.inBytes, 'byte(s) sent to userland'),
    histogram('in_msgtype', byName(stats.inTypes), 'histogram by message type'),
    count('in_msgtarget_one', targets.one, 'message(s) toward single socket'),
    count('in_msgtarget_all', targets.all, 'message(s) toward all sockets'),
    count('in_msgtarget_registered', targets.registered, 'message(s) toward registered sockets'),
    count('in_nomem', stats.inNoMemory, 'message(s) with memory allocation failure'),
  ];
}

/** In the order of the numbers, under the names of BSD's netstat; `#99` for those without. */
function byName(types: ReadonlyMap<number, number>): Record<string, number> {
  const rows = [...types].sort(([a], [b]) => a - b);
  return Object.fromEntries(
    rows.map(([number, times]) => {
      const name = number === 0 ? 'reserved' : messageName(number)?.toLowerCase();
      return [name ?? `#${number}`, times];
    }),
  );
}
