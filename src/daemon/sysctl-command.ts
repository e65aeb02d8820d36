import { KeyError } from '../base/error.ts';
import { allowed, type SysctlValue } from '../engine/sysctl.ts';
import type { ControlArgs, ControlServer } from './control-server.ts';
import type { Daemon } from './daemon.ts';

/** A variable as it goes to our own tools. `before`: the value that was, where it was changed. */
export interface SysctlLine {
  readonly name: string;
  readonly value: SysctlValue;
  readonly before?: SysctlValue;
  readonly type: string;
  readonly description: string;
  readonly allowed: string;
  readonly isReadOnly: boolean;
}

/** `sysctl`: all variables; with `name` one, with `value` changed. */
export function addSysctlCommand(control: ControlServer, daemon: Daemon): void {
  control.command('sysctl', (args) => sysctl(daemon, args));
}

/** `name=value`, as sysctl(8) takes it. Throws KeyError. */
export function setVariable(daemon: Daemon, assignment: string): void {
  const parts = /^([^=]+)=(.*)$/.exec(assignment.trim());
  if (!parts) throw new KeyError('EINVAL', `"${assignment}": name=value is needed`);
  changeToText(daemon, parts[1]!.trim(), parts[2]!.trim());
}

/** A whole number, decimal or hexadecimal; NaN for anything else, which no variable allows. */
export function readValue(text: string): number {
  return /^(0x[0-9a-fA-F]+|-?[0-9]+)$/.test(text) ? Number(text) : Number.NaN;
}

function sysctl(daemon: Daemon, { name, value }: ControlArgs): SysctlLine[] {
  if (name === undefined) {
    const { variables } = daemon.sysctl;
    return variables.map((variable) => lineOf(daemon, variable.name));
  }
  if (typeof name !== 'string') throw new KeyError('EINVAL', '"name" must be a text');
  if (value === undefined) return [lineOf(daemon, name)];
  const before =
    typeof value === 'number'
      ? change(daemon, name, value)
      : changeToText(daemon, name, String(value));
  return [{ ...lineOf(daemon, name), before }];
}

function changeToText(daemon: Daemon, name: string, text: string): SysctlValue {
  const value = readValue(text);
  const variable = daemon.sysctl.find(name);
  if (!Number.isNaN(value) || !variable.set) return change(daemon, name, value);
  const shown = JSON.stringify(text.slice(0, 40));
  throw new KeyError('EINVAL', `${name}: ${shown} is not ${allowed(variable)}`);
}

function change(daemon: Daemon, name: string, value: number): SysctlValue {
  const before = daemon.sysctl.call(name, value);
  // What no policy matches may have to be diverted now.
  daemon.sync();
  return before;
}

function lineOf(daemon: Daemon, name: string): SysctlLine {
  const variable = daemon.sysctl.find(name);
  const { type, description } = variable;
  const isReadOnly = variable.set === undefined;
  return {
    ...{ name, value: variable.get(), type, description, isReadOnly },
    allowed: isReadOnly ? 'read-only' : allowed(variable),
  };
}
