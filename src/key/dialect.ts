import type { Dialect, Extension, Message } from '../wire/pfkey-message.ts';
import { extensionRow } from '../wire/pfkey-table.ts';

const OCTET_MAX = 255;

/**
 * Inside, the replay window of an SA extension is a number of packets of any size. On the wire it
 * is one octet: packets on Linux; 8 packets each on BSD, where FreeBSD added an extension for more.
 */
export function fromDialect(message: Message, dialect: Dialect): Message {
  if (dialect === 'linux') return message;
  const wide = message.extensions.find((one) => one.type === 'X_SA_REPLAY');
  const extensions = message.extensions.flatMap((one): Extension[] => {
    if (one.type === 'X_SA_REPLAY') return [];
    if (one.type !== 'SA') return [one];
    return [{ ...one, replay: wide && wide.packets > 0 ? wide.packets : 8 * one.replay }];
  });
  return { ...message, extensions };
}

/** The inverse, without the extensions that the dialect has no number for. */
export function toDialect(message: Message, dialect: Dialect): Message {
  if (message.extensions.every((one) => isSaidAlike(one, dialect))) return message;
  const extensions = message.extensions.flatMap((one): Extension[] => {
    if (extensionRow(one.type)[dialect] === 0) return [];
    return one.type === 'SA' ? saTo(one, dialect) : [one];
  });
  return { ...message, extensions };
}

function isSaidAlike(one: Extension, dialect: Dialect): boolean {
  if (one.type === 'SA') return dialect === 'linux' && one.replay <= OCTET_MAX;
  return extensionRow(one.type)[dialect] !== 0;
}

function saTo(sa: Extract<Extension, { type: 'SA' }>, dialect: Dialect): Extension[] {
  if (dialect === 'linux') return [{ ...sa, replay: Math.min(sa.replay, OCTET_MAX) }];
  const octets = Math.ceil(sa.replay / 8);
  const narrow: Extension = { ...sa, replay: Math.min(octets, OCTET_MAX) };
  return octets <= OCTET_MAX ? [narrow] : [narrow, { type: 'X_SA_REPLAY', packets: sa.replay }];
}
