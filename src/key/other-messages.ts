import { formatAddress } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import type { SaProtocol } from '../sad/sa.ts';
import { supportedParts } from './algorithms.ts';
import type { Handler } from './context.ts';
import { protocolOf, required, saAddressPair } from './fields.ts';

/** REGISTER, ACQUIRE from a program, X_PROMISC (RFC 2367 §3.1.6, §3.1.7, §3.1.11). */

/**
 * From now on the client hears of ACQUIRE and EXPIRE of that type. Without a type it only gets the
 * lists, as in KAME.
 */
export const register: Handler = (context, message, session) => {
  const protocol = message.satype === 'unspec' ? undefined : protocolOf(message.satype);
  if (protocol && session.registered.has(protocol)) {
    throw new KeyError('EEXIST', `this socket is registered for ${protocol} already`);
  }
  if (protocol) session.registered.add(protocol);
  return {
    kind: 'reply',
    to: protocol ? 'registered' : 'one',
    extensions: supportedParts(context, protocol),
  };
};

/** A program asks the others for an SA; the form that reports a failure never comes here. */
export const acquireByClient: Handler = (context, message) => {
  const protocol: SaProtocol = protocolOf(message.satype);
  const { src, dst } = saAddressPair(message);
  required(message, 'PROPOSAL');
  if (context.sad.between(protocol, src.address, dst.address).length > 0) {
    const ends = `${formatAddress(src.address)} to ${formatAddress(dst.address)}`;
    throw new KeyError('EEXIST', `there is an SA for ${protocol} from ${ends} already`);
  }
  return { kind: 'reply', to: 'registered', extensions: message.extensions };
};

/**
 * `satype` 1 switches copies of every message on, 0 off; around a message of a program it switches
 * nothing.
 */
export const promisc: Handler = (_context, message, session) => {
  if (message.satype !== 'promisc' && message.satype !== 'unspec') {
    throw new KeyError('EINVAL', `X_PROMISC: SA type ${message.satype}; 0 is off and 1 is on`);
  }
  if (!message.wrapped) session.promiscuous = message.satype === 'promisc';
  return { kind: 'reply', to: 'all', extensions: [] };
};

/** Only the host itself sends these. */
export const fromHostOnly: Handler = (_context, message) => {
  throw new KeyError('EOPNOTSUPP', `${message.type} is sent by the host, never to it`);
};

export const notSupported: Handler = (_context, message) => {
  throw new KeyError('EOPNOTSUPP', `${message.type} is not supported`);
};
