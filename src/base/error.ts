import type { Errno } from './errno.ts';

/**
 * A request is bad (PF_KEY, setkey, sysctl, configuration): which errno, and a sentence for people
 * that says which field was wrong and what is allowed. Never thrown for a bad packet, and never
 * holds key material.
 */
export class KeyError extends Error {
  readonly errno: Errno;

  constructor(errno: Errno, message: string) {
    super(message);
    this.name = 'KeyError';
    this.errno = errno;
  }
}
