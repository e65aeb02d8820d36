import { bytecode, type Instruction } from './redirect-filter.ts';
import { type JsonObject, list, run, runBatch, textOf, tryRun } from './tools.ts';

/**
 * Our filter at the ingress of a wire. There is one for each wire, found again by its preference
 * and kind, so it can be removed after a crash.
 */

export function ensureIngress(wire: string): void {
  if (!hasIngress(wire)) run('tc', ['qdisc', 'add', 'dev', wire, 'ingress']);
}

/** Whether the wire has a queueing discipline that filters incoming packets, whoever made it. */
export function hasIngress(wire: string): boolean {
  return list('tc', ['qdisc', 'show', 'dev', wire]).some((qdisc) => {
    const kind = textOf(qdisc, 'kind');
    return kind === 'ingress' || kind === 'clsact';
  });
}

/**
 * Redirects what the program says to `device`, from now on; replaces the program that was there in
 * one step.
 */
export function setFilter(
  wire: string,
  pref: number,
  program: readonly Instruction[],
  device: string,
): void {
  const line =
    `filter replace dev ${wire} ingress protocol all pref ${pref} handle 1 ` +
    `bpf bytecode "${bytecode(program)}" action mirred egress redirect dev ${device}`;
  // Through standard input, since a program is longer than some systems allow an argument to be.
  runBatch('tc', [], [line]);
}

/**
 * Removes our filter, if it is there. Another program's filter of the same preference is left
 * alone.
 */
export function removeFilter(wire: string, pref: number): void {
  const ours = filters(wire).some((filter) => filter.pref === pref && isOurs(filter));
  if (ours) run('tc', ['filter', 'del', 'dev', wire, 'ingress', 'pref', String(pref)]);
}

/**
 * Removes the ingress queueing discipline that we made, unless others have put filters there since.
 */
export function removeIngress(wire: string): void {
  if (filters(wire).length === 0) tryRun('tc', ['qdisc', 'del', 'dev', wire, 'ingress']);
}

/** A classic program: others that use BPF here load the other kind, which has no listing. */
function isOurs(filter: JsonObject): boolean {
  const { kind, options } = filter;
  return kind === 'bpf' && typeof options === 'object' && options !== null && 'bytecode' in options;
}

function filters(wire: string): readonly JsonObject[] {
  try {
    return list('tc', ['filter', 'show', 'dev', wire, 'ingress']);
  } catch {
    // The wire is gone, and its filters with it.
    return [];
  }
}
