import { KeyError } from '../base/error.ts';
import type { Variable } from '../engine/sysctl.ts';
import type { ControlArgs, ControlServer } from './control-server.ts';
import type { Daemon } from './daemon.ts';
import { ENGINE_GROUPS, fieldsOf, IPSEC_GROUPS } from './netstat-groups.ts';
import { PFKEY_GROUP } from './netstat-pfkey.ts';
import type { StatGroup, StatReport } from './netstat-table.ts';

/** Everything that is counted, in the order in which it is shown. */
export const STAT_GROUPS: readonly StatGroup[] = [...ENGINE_GROUPS, PFKEY_GROUP];

/** `netstat`, with `protocol` for one group only. */
export function addNetstatCommand(control: ControlServer, daemon: Daemon): void {
  control.command('netstat', (args) => netstat(daemon, args));
}

/** The counters of ipsec(4), as structs that can only be read. */
export function statVariables(daemon: Daemon): Variable[] {
  return IPSEC_GROUPS.map((group) => ({
    name: `net.${group.name === 'ipsec' ? 'inet' : 'inet6'}.${group.name}.stats`,
    ...{ aliases: [], type: 'struct', description: `what netstat -s -p ${group.name} shows` },
    get: () => (daemon.isAttached ? fieldsOf(group.lines(daemon)) : {}),
  }));
}

function netstat(daemon: Daemon, { protocol }: ControlArgs): StatReport[] {
  if (!daemon.isAttached) throw new KeyError('EAGAIN', 'the host is starting or stopping');
  const groups = STAT_GROUPS.filter(({ name }) => protocol === undefined || name === protocol);
  if (groups.length === 0) {
    const known = STAT_GROUPS.map(({ name }) => name).join(', ');
    throw new KeyError('EPROTONOSUPPORT', `${String(protocol).slice(0, 32)}: there are ${known}`);
  }
  // The threads of a divided host are asked once.
  const { stats, cacheCounters, keys } = daemon;
  return groups.map((group) => ({
    name: group.name,
    header: group.header,
    lines: group.lines({ stats, cacheCounters, keys }),
  }));
}
