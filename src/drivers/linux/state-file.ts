import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { checkDeviceName } from './device.ts';

/** What we changed on a wire, so that it can be undone by another process after a crash. */
export interface WireState {
  /** The reverse path filter that the wire had. */
  readonly reversePathFilter: string;
  /** Whether its ingress queueing discipline is ours to remove. */
  readonly madeIngress: boolean;
}

export type State = Map<string, WireState>;

/**
 * Reads the file; no file is no state. Throws an Error that names the file when it is not one of
 * ours.
 */
export function loadState(file: string): State {
  if (!existsSync(file)) return new Map();
  try {
    const parsed: unknown = JSON.parse(readFileSync(file, 'utf8'));
    if (typeof parsed !== 'object' || parsed === null || !('wires' in parsed)) throw new Error();
    return new Map(Object.entries(parsed.wires as object).map(([name, of]) => wireState(name, of)));
  } catch (error) {
    throw new Error(`${file} does not hold the state of an attachment: remove it to go on`, {
      cause: error,
    });
  }
}

/**
 * Writes the file for its owner alone, in one step, so that a crash leaves the old or the new
 * state.
 */
export function saveState(file: string, state: State): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  const next = `${file}.new`;
  rmSync(next, { force: true });
  writeFileSync(next, `${JSON.stringify({ wires: Object.fromEntries(state) }, null, 2)}\n`, {
    mode: 0o600,
    flag: 'wx',
  });
  renameSync(next, file);
}

export function removeState(file: string): void {
  rmSync(file, { force: true });
}

function wireState(name: string, of: unknown): [string, WireState] {
  checkDeviceName(name);
  if (typeof of !== 'object' || of === null) throw new Error('not an object');
  if (!('reversePathFilter' in of) || !('madeIngress' in of)) throw new Error('a field is missing');
  const { reversePathFilter, madeIngress } = of;
  if (typeof reversePathFilter !== 'string' || !/^[0-2]$/.test(reversePathFilter)) {
    throw new Error('not a reverse path filter');
  }
  return [name, { reversePathFilter, madeIngress: madeIngress === true }];
}
