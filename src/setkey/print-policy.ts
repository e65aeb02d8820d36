import { formatPolicy } from '../spd/set-policy.ts';
import { extension, type Message } from '../wire/pfkey-message.ts';
import {
  contextText,
  type PrintContext,
  selectorText,
  timeText,
  upperText,
} from './print-parts.ts';

/** A policy as `setkey -DP` shows it, in the wording of ipsec-tools. */
export function formatPolicyEntry(message: Message, context: PrintContext): string {
  const policy = extension(message, 'X_POLICY');
  const text = policy ? formatPolicy(policy, { ports: context.ports }) : '(no policy)';
  return (
    `${selector(message)}\n\t${text}\n` +
    lifetimes(message, context) +
    contextText(message.extensions) +
    `\tspid=${policy?.id ?? 0} seq=${message.seq} pid=${message.pid}\n` +
    `\trefcnt=${message.reserved}\n`
  );
}

/** A policy that a program set on its own socket: it has no selector, and -N leaves it out. */
export function isSocketPolicy(message: Message): boolean {
  return !extension(message, 'ADDRESS_SRC') && !extension(message, 'ADDRESS_DST');
}

function selector(message: Message): string {
  const src = extension(message, 'ADDRESS_SRC');
  const dst = extension(message, 'ADDRESS_DST');
  if (!src || !dst) return '(no selector, probably per-socket policy)';
  return `${selectorText(src)} ${selectorText(dst)} ${upperText(src, dst)}`;
}

function lifetimes(message: Message, context: PrintContext): string {
  const current = extension(message, 'LIFETIME_CURRENT');
  const hard = extension(message, 'LIFETIME_HARD');
  const used = current
    ? `\tcreated: ${timeText(current.addTime, context)}` +
      `  lastused: ${timeText(current.useTime, context)}\n`
    : '';
  const limits = hard ? `\tlifetime: ${hard.addTime}(s) validtime: ${hard.useTime}(s)\n` : '';
  return used + limits;
}
