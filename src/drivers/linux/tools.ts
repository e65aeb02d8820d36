import { spawnSync } from 'node:child_process';

/**
 * iproute2's programs. They speak netlink and know every kernel's dialect; changes are rare, so a
 * process each is cheap.
 */
export type Tool = 'ip' | 'tc';

/** Runs the program and returns what it printed. Throws an Error with the command and its words. */
export function run(tool: Tool, args: readonly string[]): string {
  const ended = start(tool, args, '');
  if (ended.status !== 0) throw new Error(`${[tool, ...args].join(' ')}: ${ended.stderr.trim()}`);
  return ended.stdout;
}

/** As `run`, for clean-up that may find nothing to do: returns whether it worked. */
export function tryRun(tool: Tool, args: readonly string[]): boolean {
  return spawnSync(tool, args, { stdio: 'ignore' }).status === 0;
}

/**
 * Gives the program many commands at once, in order; it stops at the first that fails. Throws an
 * Error with that command and the program's own words.
 */
export function runBatch(tool: Tool, args: readonly string[], lines: readonly string[]): void {
  if (lines.length === 0) return;
  const ended = start(tool, [...args, '-batch', '-'], `${lines.join('\n')}\n`);
  if (ended.status === 0) return;
  const at = Number(/Command failed -:(\d+)/.exec(ended.stderr)?.[1] ?? 1);
  const words = ended.stderr.replace(/\s*Command failed -:\d+/, '').trim();
  throw new Error(`${[tool, ...args].join(' ')} ${lines[at - 1]}: ${words}`);
}

/** Runs with `-json` and returns the list of objects that iproute2 prints; nothing is no list. */
export function list(tool: Tool, args: readonly string[]): readonly JsonObject[] {
  const text = run(tool, ['-json', ...args]).trim();
  const parsed: unknown = text === '' ? [] : JSON.parse(text);
  // Old versions print empty objects for entries that a filter left out.
  return Array.isArray(parsed) ? parsed.filter(isFilled) : [];
}

export type JsonObject = Readonly<Record<string, unknown>>;

/** A field that is text, or undefined. */
export function textOf(object: JsonObject, field: string): string | undefined {
  const value = object[field];
  return typeof value === 'string' ? value : undefined;
}

function start(tool: Tool, args: readonly string[], input: string) {
  const ended = spawnSync(tool, args, { encoding: 'utf8', maxBuffer: 256 << 20, input });
  if (ended.error) throw new Error(`cannot run ${tool}: ${ended.error.message} (install iproute2)`);
  return ended;
}

function isFilled(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && Object.keys(value).length > 0;
}
