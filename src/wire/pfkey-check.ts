import { KeyError } from '../base/error.ts';
import { extension, type Message, type MessageType, type SaType } from './pfkey-message.ts';

/** The messages about one SA, which must say of what type it is. */
const OF_ONE_SA: ReadonlySet<MessageType> = new Set<MessageType>([
  'GETSPI',
  'UPDATE',
  'ADD',
  'DELETE',
  'GET',
  'ACQUIRE',
  'EXPIRE',
]);

/** RFC 2367 gives them numbers; no IPsec has ever had SAs for them. */
const NEVER_SUPPORTED: ReadonlySet<SaType> = new Set<SaType>(['rsvp', 'ospfv2', 'ripv2', 'mip']);

/**
 * What KAME's key_parse and key_validate_ext ask of a request beyond its format: the SA type fits
 * the message, source and destination fit each other. Throws EOPNOTSUPP for SA types that nobody
 * supports, else EINVAL.
 */
export function checkRequest(message: Message): void {
  const { type, satype } = message;
  if (NEVER_SUPPORTED.has(satype)) {
    throw new KeyError('EOPNOTSUPP', `${type}: SA type ${satype} is not supported`);
  }
  if (satype === 'promisc' && type !== 'X_PROMISC') {
    throw new KeyError('EINVAL', `${type}: SA type 1 is for X_PROMISC only`);
  }
  if (satype === 'unspec' && OF_ONE_SA.has(type)) {
    throw new KeyError('EINVAL', `${type}: needs an SA type (ah, esp, ipcomp), got 0`);
  }
  if (satype !== 'unspec' && type.startsWith('X_SPD')) {
    throw new KeyError('EINVAL', `${type}: is about policies, so the SA type is 0, not ${satype}`);
  }
  checkAddresses(message);
}

function checkAddresses(message: Message): void {
  const src = extension(message, 'ADDRESS_SRC');
  const dst = extension(message, 'ADDRESS_DST');
  if (!src || !dst) return;
  if (src.proto !== dst.proto) {
    const protos = `${src.proto} and ${dst.proto}`;
    throw new KeyError('EINVAL', `${message.type}: upper protocols of the addresses are ${protos}`);
  }
  if (src.address.family !== dst.address.family) {
    throw new KeyError('EINVAL', `${message.type}: one address is IPv4, the other IPv6`);
  }
}
