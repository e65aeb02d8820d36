import { spawnSync } from 'node:child_process';

/**
 * iproute2's programs. They speak netlink and know every kernel's dialect; changes are rare, so a
 * process each is cheap.
 */
export type Tool = 'ip' | 'tc';

/**
 * Runs the program and returns what it printed. Throws an Error with the command and the program's
 * own words.
 */
export function run(tool: Tool, args: readonly string[], input?: string): string {
  const ended = spawnSync(tool, args, {
    encoding: 'utf8',
    maxBuffer: 256 << 20,
    ...(input === undefined ? {} : { input }),
  });
  if (ended.error) throw new Error(`cannot run ${tool}: ${ended.error.message} (install iproute2)`);
  if (ended.status !== 0) throw new Error(`${[tool, ...args].join(' ')}: ${ended.stderr.trim()}`);
  return ended.stdout;
}

/** As `run`, for clean-up that may find nothing to do: returns whether it worked. */
export function tryRun(tool: Tool, args: readonly string[]): boolean {
  const ended = spawnSync(tool, args, { stdio: 'ignore' });
  return ended.status === 0;
}

/**
 * Gives the program many commands at once, in order; it stops at the first that fails, and so does
 * this, with an Error.
 */
export function runBatch(tool: Tool, args: readonly string[], lines: readonly string[]): void {
  if (lines.length === 0) return;
  run(tool, [...args, '-batch', '-'], `${lines.join('\n')}\n`);
}

/**
 * Runs with `-json` and returns the list of objects that iproute2 prints; it prints nothing for an
 * empty list.
 */
export function list(tool: Tool, args: readonly string[]): readonly JsonObject[] {
  const text = run(tool, ['-json', ...args]).trim();
  const parsed: unknown = text === '' ? [] : JSON.parse(text);
  // Old versions print empty objects for entries that a filter left out.
  return Array.isArray(parsed) ? parsed.filter(isFilled) : [];
}

export type JsonObject = Readonly<Record<string, unknown>>;

function isFilled(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && Object.keys(value).length > 0;
}

/** A field that is text, or undefined. */
export function textOf(object: JsonObject, field: string): string | undefined {
  const value = object[field];
  return typeof value === 'string' ? value : undefined;
}
