import { formatAddress } from '../base/address.ts';
import { ERRNO_TEXT, errnoName } from '../base/errno.ts';
import { formatPolicy } from '../spd/set-policy.ts';
import type { Extension, Message } from '../wire/pfkey-message.ts';
import { hex32, modeName, stateName } from './print-parts.ts';

/** Every octet of a message, 16 to a line, as -x with -H shows it. Keys are in it. */
export function hexDump(octets: Uint8Array): string {
  let text = '';
  for (let at = 0; at < octets.length; at += 16) {
    const row = [...octets.subarray(at, at + 16)];
    const bytes = row.map((octet) => `${octet.toString(16).padStart(2, '0')} `).join('');
    text += `${hex32(at)}: ${bytes}\n`;
  }
  return text;
}

/**
 * A message for people (-v and -x): a line for its head, then one per extension. Keys are shown by
 * their length only.
 */
export function formatMessage(message: Message): string {
  const { type, satype, seq, pid, errno, wrapped } = message;
  const name = errnoName(errno);
  const error = errno === 0 ? '' : ` errno=${errno} (${name ? ERRNO_TEXT[name] : 'unknown'})`;
  const inner = wrapped ? `\t${wrapped.length} octets of another message\n` : '';
  const lines = message.extensions.map((one) => `\t${one.type} ${extensionText(one)}\n`);
  return `${type} ${satype} seq=${seq} pid=${pid}${error}\n${inner}${lines.join('')}`;
}

function extensionText(one: Extension): string {
  switch (one.type) {
    case 'SA':
      return (
        `spi=0x${hex32(one.spi)} replay=${one.replay} state=${stateName(one.state)} ` +
        `auth=${one.auth} encrypt=${one.encrypt} flags=0x${hex32(one.flags)}`
      );
    case 'KEY_AUTH':
    case 'KEY_ENCRYPT':
      return `bits=${one.bits}`;
    case 'X_POLICY':
      return `id=${one.id} ${formatPolicy(one, { ports: true }).replaceAll('\n\t', ' ')}`;
    case 'X_SA2':
      return `mode=${modeName(one.mode)} sequence=${one.sequence} reqid=${one.reqid}`;
    case 'SUPPORTED_AUTH':
    case 'SUPPORTED_ENCRYPT':
      return one.algorithms
        .map(({ id, minBits, maxBits }) => `${id}:${minBits}-${maxBits}`)
        .join(' ');
    case 'PROPOSAL':
      return `replay=${one.replay} combinations=${one.combs.length}`;
    default:
      return fieldsText(one);
  }
}

/** The rest are flat: numbers, addresses, and octets that are shown by their length. */
function fieldsText(one: Extension): string {
  return Object.entries(one)
    .filter(([name]) => name !== 'type')
    .map(([name, value]) => {
      if (value instanceof Uint8Array) return `${name}=${value.length} octets`;
      return `${name}=${name === 'address' ? formatAddress(value) : JSON.stringify(value)}`;
    })
    .join(' ');
}
