import { KeyError } from '../base/error.ts';
import { request } from '../daemon/control-client.ts';
import { controlPath } from '../daemon/paths.ts';

/** Only a help: setkey does not wait for it longer than people notice. */
const REASON_MS = 500;

/**
 * Why the host refused the request of this process with that sequence number, in words; undefined
 * when it cannot say, as other hosts cannot. PF_KEY has room for an errno only, so the sentence
 * comes from the control socket beside it.
 */
export async function askReason(
  socket: string,
  pid: number,
  seq: number,
): Promise<string | undefined> {
  try {
    const options = { timeoutMs: REASON_MS };
    const reason = await request(controlPath(socket), 'reason', { pid, seq }, options);
    // Escape sequences of a terminal have no business in a sentence.
    return typeof reason === 'string' ? reason.replace(/[^\x20-\x7e]/g, ' ').trim() : undefined;
  } catch (error) {
    if (error instanceof KeyError) return undefined;
    throw error;
  }
}
