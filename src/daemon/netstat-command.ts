import { KeyError } from '../base/error.ts';
import type { ControlArgs, ControlServer } from './control-server.ts';
import type { Daemon } from './daemon.ts';
import type { StatGroup, StatReport } from './netstat-table.ts';

/** Everything that is counted, in the order in which it is shown. */
export const STAT_GROUPS: readonly StatGroup[] = [];

/** `netstat`, with `protocol` for one group only. */
export function addNetstatCommand(control: ControlServer, daemon: Daemon): void {
  control.command('netstat', (args) => netstat(daemon, args));
}

function netstat(daemon: Daemon, { protocol }: ControlArgs): StatReport[] {
  if (!daemon.isAttached) throw new KeyError('EAGAIN', 'the host is starting or stopping');
  const groups = STAT_GROUPS.filter(({ name }) => protocol === undefined || name === protocol);
  if (groups.length === 0) {
    const known = STAT_GROUPS.map(({ name }) => name).join(', ');
    throw new KeyError('EPROTONOSUPPORT', `${String(protocol).slice(0, 32)}: there are ${known}`);
  }
  return groups.map((group) => ({
    name: group.name,
    header: group.header,
    lines: group.lines(daemon),
  }));
}
