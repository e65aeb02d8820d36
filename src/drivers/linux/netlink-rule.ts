import type { Family } from '../../base/address.ts';
import { type NetlinkRequest, NLM_F_CREATE, NLM_F_EXCL } from './netlink.ts';
import type { MessageWriter, NetlinkMessage } from './netlink-message.ts';
import { inetOf } from './netlink-route.ts';

/**
 * Routing rules (<linux/fib_rules.h>):
 *
 *     fib_rule_hdr   0 family  1 dst_len  2 src_len  3 tos  4 table  5, 6 unused  7 action  8 flags
 */
const HEADER_LEN = 12;
const RTM_NEWRULE = 32;
export const RTM_DELRULE = 33;
const RTM_GETRULE = 34;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FIB_RULE_INVERT = 2;
const FR_ACT_TO_TBL = 1;

/** The one kind of rule that we make: `not fwmark MARK lookup TABLE`. */
export interface Rule {
  readonly pref: number;
  readonly mark: number;
  readonly table: number;
}

/** A rule as the kernel tells it: what is left out is not there. */
export interface PresentRule {
  readonly pref: number;
  readonly table: number;
  readonly isInverted: boolean;
  readonly mark?: number;
  readonly mask?: number;
}

export function addRuleRequest(family: Family, rule: Rule): NetlinkRequest {
  return {
    what: () => `add rule of preference ${rule.pref} (IPv${family})`,
    type: RTM_NEWRULE,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    write: (writer) => writeRule(writer, family, rule),
  };
}

export function deleteRuleRequest(family: Family, rule: Rule): NetlinkRequest {
  return {
    what: () => `delete rule of preference ${rule.pref} (IPv${family})`,
    type: RTM_DELRULE,
    flags: 0,
    write: (writer) => writeRule(writer, family, rule),
  };
}

export function listRules(family: Family): NetlinkRequest {
  return {
    what: () => `list rules (IPv${family})`,
    type: RTM_GETRULE,
    flags: 0,
    write: (writer) => writeHeader(writer, family, 0, 0),
  };
}

/** Undefined for another message. Throws an Error for a malformed one. */
export function decodeRule({ type, body }: NetlinkMessage): PresentRule | undefined {
  if (type !== RTM_NEWRULE && type !== RTM_DELRULE) return undefined;
  const attributes = body.attributes(HEADER_LEN);
  const mark = attributes.u32(FRA_FWMARK);
  const mask = attributes.u32(FRA_FWMASK);
  return {
    pref: attributes.u32(FRA_PRIORITY) ?? 0,
    table: attributes.u32(FRA_TABLE) ?? body.u8(4),
    isInverted: (body.u32(8) & FIB_RULE_INVERT) !== 0,
    ...(mark === undefined ? {} : { mark }),
    ...(mask === undefined ? {} : { mask }),
  };
}

function writeRule(writer: MessageWriter, family: Family, { pref, mark, table }: Rule): void {
  writeHeader(writer, family, FR_ACT_TO_TBL, FIB_RULE_INVERT);
  writer.attributeU32(FRA_PRIORITY, pref);
  writer.attributeU32(FRA_FWMARK, mark);
  writer.attributeU32(FRA_TABLE, table);
}

function writeHeader(writer: MessageWriter, family: Family, action: number, flags: number): void {
  writer.u8(inetOf(family)).u8(0).u8(0).u8(0);
  writer.u8(0).u8(0).u8(0).u8(action).u32(flags);
}
