import type { KeyError } from '../base/error.ts';
import type { Message } from '../wire/pfkey-message.ts';
import type { KeyClient } from './client.ts';
import type { KeyEngine } from './engine.ts';

/** A message of the host's own file that was refused. */
export interface Refusal {
  /** Which of the messages, from 0. */
  readonly index: number;
  readonly message: Message;
  readonly error: KeyError;
}

/**
 * Applies the messages of the host's configuration file, all of them, and returns those that were
 * refused. What they make belongs to the file, and is replaced when it is read again.
 */
export function applyMessages(engine: KeyEngine, messages: Iterable<Message>): Refusal[] {
  const refusals: Refusal[] = [];
  const session = engine.connect(FILE);
  let index = 0;
  for (const message of messages) {
    const error = session.request(message);
    if (error) refusals.push({ index, message, error });
    index++;
  }
  session.close();
  return refusals;
}

/** A file does not read answers. */
const FILE: KeyClient = {
  origin: 'file',
  dialect: 'linux',
  deliver: () => undefined,
  deliverDump: (entries) => void entries.return?.(),
};
