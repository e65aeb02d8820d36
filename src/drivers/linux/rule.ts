import type { Family } from '../../base/address.ts';
import type { Netlink } from './netlink.ts';
import {
  addRuleRequest,
  decodeRule,
  deleteRuleRequest,
  listRules,
  type PresentRule,
  type Rule,
} from './netlink-rule.ts';

/**
 * Adds the rule that sends all packets without our mark to our table, unless it is there already.
 * Returns whether it was added. Throws an Error when another rule has its preference, rather than
 * to fight about the order.
 */
export function addRule(netlink: Netlink, family: Family, rule: Rule): boolean {
  const [present] = rulesAt(netlink, family, rule.pref);
  if (present) {
    if (isOurs(present, rule.table) && present.mark === rule.mark) return false;
    throw new Error(`ip rule preference ${rule.pref} (IPv${family}) is in use by another rule`);
  }
  netlink.run(addRuleRequest(family, rule));
  return true;
}

/** Removes our rule, if it is there, whatever its mark. */
export function removeRule(netlink: Netlink, family: Family, of: Omit<Rule, 'mark'>): void {
  const { pref, table } = of;
  for (const present of rulesAt(netlink, family, pref)) {
    if (!isOurs(present, table)) continue;
    netlink.run(deleteRuleRequest(family, { pref, table, mark: present.mark ?? 0 }));
  }
}

function rulesAt(netlink: Netlink, family: Family, pref: number): PresentRule[] {
  return netlink.dump(listRules(family), decodeRule).filter((rule) => rule.pref === pref);
}

function isOurs(rule: PresentRule, table: number): boolean {
  return rule.isInverted && rule.table === table && rule.mark !== undefined;
}
