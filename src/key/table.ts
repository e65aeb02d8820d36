import { KeyError } from '../base/error.ts';
import type { ExtensionType, Message, MessageType } from '../wire/pfkey-message.ts';
import type { Handler } from './context.ts';
import { migrate } from './migrate.ts';
import {
  acquireByClient,
  fromHostOnly,
  notSupported,
  promisc,
  register,
} from './other-messages.ts';
import { add, deleteSa, dump, flush, get, getSpi, update } from './sa-messages.ts';
import {
  spdAdd,
  spdDelete,
  spdDelete2,
  spdDump,
  spdFlush,
  spdGet,
  spdUpdate,
} from './spd-messages.ts';

/** What each message must and may hold, and who answers it. */
export interface MessageRow {
  readonly about: 'sa' | 'policy' | 'clients';
  readonly required: readonly ExtensionType[];
  /**
   * What else may be there. Generous where programs send more than is needed (KAME and Linux ignore
   * it); but a key, a policy or a security label where it has no effect is refused, so that nobody
   * believes it had one. `any`: refused whatever it holds.
   */
  readonly allowed: readonly ExtensionType[] | 'any';
  readonly handle: Handler;
  /** Whether it takes away, moves or replaces SAs or policies that are in use. */
  readonly takesAway: boolean;
}

const ENDS: readonly ExtensionType[] = ['ADDRESS_SRC', 'ADDRESS_DST'];
const LIMITS: readonly ExtensionType[] = ['LIFETIME_CURRENT', 'LIFETIME_HARD', 'LIFETIME_SOFT'];
const KEYS: readonly ExtensionType[] = ['KEY_AUTH', 'KEY_ENCRYPT'];
/** FreeBSD's way to move an SA; on Linux it is X_MIGRATE. */
const NEW_ENDS: readonly ExtensionType[] = ['X_NEW_ADDRESS_SRC', 'X_NEW_ADDRESS_DST'];
const WHO: readonly ExtensionType[] = ['IDENTITY_SRC', 'IDENTITY_DST', 'X_KMPRIVATE'];
const NAT: readonly ExtensionType[] = [
  'X_NAT_T_TYPE',
  'X_NAT_T_SPORT',
  'X_NAT_T_DPORT',
  'X_NAT_T_OAI',
  'X_NAT_T_OAR',
  'X_NAT_T_FRAG',
];
/** Around an SA that is only named, its description is repeated by some. */
const DESCRIPTION = ['X_SA2', 'ADDRESS_PROXY', ...LIMITS, ...WHO, ...NAT, 'X_TESTUDO'] as const;

/** UPDATE may give an SA other addresses. */
const TAKES_AWAY: ReadonlySet<Handler> = new Set<Handler>([
  ...[deleteSa, flush, migrate, update],
  ...[spdUpdate, spdDelete, spdDelete2, spdFlush],
]);

export const MESSAGES: Readonly<Record<MessageType, MessageRow>> = {
  GETSPI: row('sa', ENDS, [...DESCRIPTION, 'SPIRANGE'], getSpi),
  UPDATE: row('sa', ['SA', ...ENDS], [...DESCRIPTION, ...KEYS, ...NEW_ENDS], update),
  ADD: row('sa', ['SA', ...ENDS], [...DESCRIPTION, ...KEYS], add),
  DELETE: row('sa', ENDS, ['SA', ...DESCRIPTION], deleteSa),
  GET: row('sa', ['SA', ...ENDS], DESCRIPTION, get),
  ACQUIRE: row('sa', ENDS, [...DESCRIPTION, 'PROPOSAL', 'X_POLICY'], acquireByClient),
  REGISTER: row('clients', [], [], register),
  EXPIRE: row('clients', [], 'any', fromHostOnly),
  FLUSH: row('clients', [], [], flush),
  DUMP: row('clients', [], ['X_FILTER', 'X_TESTUDO'], dump),
  X_PROMISC: row('clients', [], [], promisc),
  X_PCHANGE: row('clients', [], 'any', notSupported),
  X_SPDUPDATE: row('policy', ['X_POLICY', ...ENDS], ['X_SA2', ...LIMITS], spdUpdate),
  X_SPDADD: row('policy', ['X_POLICY', ...ENDS], ['X_SA2', ...LIMITS], spdAdd),
  X_SPDDELETE: row('policy', ['X_POLICY', ...ENDS], ['X_SA2', ...LIMITS], spdDelete),
  X_SPDGET: row('policy', ['X_POLICY'], ['X_SA2', ...ENDS, ...LIMITS], spdGet),
  X_SPDACQUIRE: row('clients', [], 'any', fromHostOnly),
  X_SPDDUMP: row('policy', [], [], spdDump),
  X_SPDFLUSH: row('policy', [], [], spdFlush),
  X_SPDSETIDX: row('policy', ['X_POLICY', ...ENDS], ['X_SA2', ...LIMITS], spdAdd),
  X_SPDEXPIRE: row('clients', [], 'any', fromHostOnly),
  X_SPDDELETE2: row('policy', ['X_POLICY'], ['X_SA2', ...ENDS, ...LIMITS], spdDelete2),
  X_NAT_T_NEW_MAPPING: row('clients', [], 'any', fromHostOnly),
  X_MIGRATE: row('clients', ['X_POLICY', ...ENDS], ['X_KMADDRESS'], migrate),
};

/** Throws KeyError EINVAL or EOPNOTSUPP for what is missing or out of place. */
export function checkMessage(message: Message): MessageRow {
  const rules = MESSAGES[message.type];
  if (rules.about === 'policy' && message.satype !== 'unspec') {
    throw new KeyError('EINVAL', `${message.type} is about policies; its SA type must be 0`);
  }
  for (const type of rules.required) {
    if (!message.extensions.some((one) => one.type === type)) {
      throw new KeyError('EINVAL', `${message.type} needs the extension ${type}`);
    }
  }
  for (const { type } of message.extensions) {
    if (rules.allowed === 'any' || rules.allowed.includes(type)) continue;
    if (rules.required.includes(type)) continue;
    if (type === 'X_SEC_CTX' || type === 'SENSITIVITY') {
      throw new KeyError('EOPNOTSUPP', `${type}: security labels are not supported`);
    }
    throw new KeyError('EINVAL', `the extension ${type} has no meaning in ${message.type}`);
  }
  return rules;
}

function row(
  about: MessageRow['about'],
  required: readonly ExtensionType[],
  allowed: readonly ExtensionType[] | 'any',
  handle: Handler,
): MessageRow {
  return { about, required, allowed, handle, takesAway: TAKES_AWAY.has(handle) };
}
