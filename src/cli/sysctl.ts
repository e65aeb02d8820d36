import { Command } from 'commander';
import { KeyError } from '../base/error.ts';
import { request } from '../daemon/control-client.ts';
import { controlPath } from '../daemon/paths.ts';
import { readValue, type SysctlLine } from '../daemon/sysctl-command.ts';
import { socketOption } from './options.ts';

interface SysctlOptions {
  readonly socket: string;
  readonly all?: boolean;
  readonly write?: boolean;
  readonly description?: boolean;
  readonly values?: boolean;
  readonly json?: boolean;
}

export function sysctlCommand(): Command {
  return new Command('sysctl')
    .description('read and write the variables of a running host, as sysctl(8)')
    .argument('[names...]', 'variables, or name=value to change one')
    .addOption(socketOption())
    .option('-a, --all', 'all variables')
    .option('-w, --write', 'to change variables (which name=value does anyway)')
    .option('-d, --description', 'what they mean and which values they may have')
    .option('-n, --values', 'values only')
    .option('--json', 'as one JSON object')
    .action(sysctl);
}

async function sysctl(names: readonly string[], options: SysctlOptions): Promise<void> {
  const path = controlPath(options.socket);
  if (names.length === 0 && !options.all) {
    throw new KeyError('EINVAL', 'name a variable, or give -a for all of them');
  }
  const lines: SysctlLine[] = [];
  for (const args of options.all ? [{}] : names.map((name) => argsOf(name, options))) {
    lines.push(...((await request(path, 'sysctl', args)) as SysctlLine[]));
  }
  process.stdout.write(
    options.json ? `${JSON.stringify(sysctlJson(lines), null, 2)}\n` : sysctlText(lines, options),
  );
}

function argsOf(text: string, { write }: SysctlOptions): { name: string; value?: number | string } {
  const parts = /^([^=]+)=(.*)$/.exec(text);
  if (!parts && write) throw new KeyError('EINVAL', `"${text}": -w needs name=value`);
  if (!parts) return { name: text };
  const value = readValue(parts[2]!.trim());
  // What is no number is for the host to refuse, which knows what would be allowed.
  return { name: parts[1]!.trim(), value: Number.isNaN(value) ? parts[2]! : value };
}

/** `name: value`, and `name: before -> value` for what was changed. */
export function sysctlText(
  lines: readonly SysctlLine[],
  options: Pick<SysctlOptions, 'description' | 'values'> = {},
): string {
  return lines
    .map((line) => {
      if (options.description) return `${line.name}: ${line.description}; ${line.allowed}\n`;
      if (options.values) return `${valueText(line.value)}\n`;
      const before = line.before === undefined ? '' : `${valueText(line.before)} -> `;
      return `${line.name}: ${before}${valueText(line.value)}\n`;
    })
    .join('');
}

export function sysctlJson(lines: readonly SysctlLine[]): Record<string, unknown> {
  return Object.fromEntries(lines.map(({ name, value }) => [name, value]));
}

function valueText(value: SysctlLine['value']): string {
  return typeof value === 'number' ? String(value) : JSON.stringify(value);
}
