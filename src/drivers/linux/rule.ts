import type { Family } from '../../base/address.ts';
import { type JsonObject, list, run, textOf } from './tools.ts';

export interface RuleOptions {
  readonly table: number;
  readonly pref: number;
  readonly mark: number;
}

/**
 * Adds the rule that sends all packets without our mark to our table, unless it is there already.
 * Returns whether it was added. Throws an Error when another rule has its preference, rather than
 * to fight about the order.
 */
export function addRule(family: Family, { table, pref, mark }: RuleOptions): boolean {
  const [present] = rulesAt(family, pref);
  if (present) {
    if (isOurs(present, table) && Number(textOf(present, 'fwmark')) === mark) return false;
    throw new Error(`ip rule preference ${pref} (IPv${family}) is in use by another rule`);
  }
  run('ip', [`-${family}`, ...words(`rule add pref ${pref} not fwmark ${mark} lookup ${table}`)]);
  return true;
}

/** Removes our rule, if it is there, whatever its mark. */
export function removeRule(family: Family, { table, pref }: Omit<RuleOptions, 'mark'>): void {
  for (const rule of rulesAt(family, pref)) {
    if (!isOurs(rule, table)) continue;
    const mark = textOf(rule, 'fwmark') ?? '0';
    run('ip', [`-${family}`, ...words(`rule del pref ${pref} not fwmark ${mark} lookup ${table}`)]);
  }
}

function rulesAt(family: Family, pref: number): JsonObject[] {
  return list('ip', [`-${family}`, '-N', 'rule', 'show']).filter((rule) => rule.priority === pref);
}

function isOurs(rule: JsonObject, table: number): boolean {
  return 'not' in rule && textOf(rule, 'table') === String(table) && 'fwmark' in rule;
}

function words(text: string): string[] {
  return text.split(' ');
}
