import type { Dialect, Message } from '../wire/pfkey-message.ts';

/**
 * What the key engine sees of a program behind a PF_KEY socket. It may call any of these in the
 * middle of another client's request, so none may throw, wait or call back.
 */
export interface KeyClient {
  /** `file`: speaks for the host's configuration file; `client`: any program. */
  readonly origin: 'file' | 'client';
  /**
   * Whose numbers the client reads: decides how a replay window is said, and what a promiscuous
   * copy looks like.
   */
  readonly dialect: Dialect;
  /**
   * `reply`: an answer that must arrive. `notice`: may be dropped, and counted, when the client
   * does not read.
   */
  deliver(message: Message, kind: 'reply' | 'notice'): void;
  /**
   * The entries of a dump, to be taken one by one as there is room; none may be lost. Until their
   * end, or `return`, what they look like now is kept for them.
   */
  deliverDump(entries: Iterator<Message>): void;
}
