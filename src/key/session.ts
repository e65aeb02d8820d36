import type { KeyError } from '../base/error.ts';
import type { SaProtocol } from '../sad/sa.ts';
import { extension, type Message } from '../wire/pfkey-message.ts';
import type { KeyClient } from './client.ts';
import { toDialect } from './dialect.ts';
import { Reasons } from './reasons.ts';

/** What the engine remembers of a client between its requests. */
export class Session {
  readonly client: KeyClient;
  readonly reasons = new Reasons();
  readonly registered = new Set<SaProtocol>();
  promiscuous = false;
  /**
   * Whether it has shown that it knows our private extension; others refuse whole messages for it.
   */
  knowsTestudo = false;

  constructor(client: KeyClient) {
    this.client = client;
  }

  noteRequest(message: Message): void {
    if (extension(message, 'X_TESTUDO')) this.knowsTestudo = true;
  }

  noteRefusal(pid: number, seq: number, error: KeyError): void {
    this.reasons.note(pid, seq, error.message);
  }

  reply(message: Message): void {
    this.client.deliver(toDialect(message, this.client.dialect), 'reply');
  }

  /**
   * Something that the client did not ask for: without keys, and only with extensions that it can
   * be expected to know.
   */
  notify(message: Message): void {
    const known = this.knowsTestudo ? message : without(message, 'X_TESTUDO');
    this.client.deliver(toDialect(known, this.client.dialect), 'notice');
  }
}

/** The message without extensions of these types. */
export function without(
  message: Message,
  ...types: readonly Message['extensions'][number]['type'][]
): Message {
  if (!message.extensions.some((one) => types.includes(one.type))) return message;
  return {
    ...message,
    extensions: message.extensions.filter((one) => !types.includes(one.type)),
  };
}
