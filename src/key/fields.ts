import { isUnspecified } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import type { SaProtocol } from '../sad/sa.ts';
import {
  type AddressExtension,
  type ExtensionOf,
  type ExtensionType,
  extension,
  type Message,
  type SaType,
} from '../wire/pfkey-message.ts';

/** Parts of requests that many messages share. All throw KeyError for what is missing or wrong. */

export function required<T extends ExtensionType>(message: Message, type: T): ExtensionOf<T> {
  const found = extension(message, type);
  if (!found) throw new KeyError('EINVAL', `${message.type} needs the extension ${type}`);
  return found;
}

/** The protocol of an SA type that an SA can have here. */
export function protocolOf(satype: SaType): SaProtocol {
  switch (satype) {
    case 'esp':
    case 'ah':
      return satype;
    case 'ipcomp':
      throw new KeyError('EPROTONOSUPPORT', 'IPComp is not supported');
    case 'tcpsignature':
      throw new KeyError('EPROTONOSUPPORT', 'TCP signatures (RFC 2385) are not supported');
    case 'unspec':
    case 'promisc':
      throw new KeyError('EINVAL', `SA type ${satype} names no protocol: it must be esp or ah`);
    default:
      throw new KeyError('EOPNOTSUPP', `SA type ${satype} is not IPsec`);
  }
}

export interface AddressPair {
  readonly src: AddressExtension;
  readonly dst: AddressExtension;
}

/**
 * Source and destination, which must agree about family and upper protocol (key_validate_ext of
 * KAME).
 */
export function addressPair(message: Message): AddressPair {
  const src = required(message, 'ADDRESS_SRC');
  const dst = required(message, 'ADDRESS_DST');
  if (src.address.family !== dst.address.family) {
    throw new KeyError(
      'EINVAL',
      `source is IPv${src.address.family}, destination IPv${dst.address.family}`,
    );
  }
  if (src.proto !== dst.proto) {
    throw new KeyError('EINVAL', `source has protocol ${src.proto}, destination ${dst.proto}`);
  }
  return { src, dst };
}

/** As `addressPair`, for an SA: it ends at one host. */
export function saAddressPair(message: Message): AddressPair {
  const pair = addressPair(message);
  if (isUnspecified(pair.dst.address)) {
    throw new KeyError('EINVAL', 'the destination of an SA must be an address, not "any"');
  }
  return pair;
}
