import * as layout from './layout.ts';
import type { Task } from './task.ts';

/** The parts of a job that intel-ipsec-mb could do among others: LANES_*. */
export function lanesOf(task: Task): number {
  const { imbCipher, imbMac } = task.context;
  const isCipher = imbCipher !== layout.IMB_NONE && imbCipher !== layout.IMB_GCM;
  let lanes = 0;
  if (isCipher && isImbLen(task.textLen)) lanes |= layout.LANES_CIPHER;
  if (imbMac !== 0 && isImbLen(task.coveredLen)) lanes |= layout.LANES_MAC;
  return lanes;
}

/**
 * How many jobs of a batch could be in lanes, by kind of cipher and by hash: one lane of many costs
 * as much as all of them.
 */
export class Crowd {
  readonly #ciphers = new Uint32Array(16);
  readonly #macs = new Uint32Array(16);
  isEmpty = true;

  clear(): void {
    if (this.isEmpty) return;
    this.#ciphers.fill(0);
    this.#macs.fill(0);
    this.isEmpty = true;
  }

  count({ lanes, context }: Task): void {
    this.isEmpty = false;
    if ((lanes & layout.LANES_CIPHER) !== 0) this.#ciphers[context.imbCipher]!++;
    if ((lanes & layout.LANES_MAC) !== 0) this.#macs[context.imbMac]!++;
  }

  /** Where lanes are worth it, once all jobs of the batch were counted. */
  lanesIn(task: Task): number {
    const { context, op } = task;
    // CBC is decrypted with all blocks of a packet side by side.
    const isAlone = context.imbCipher === layout.IMB_CBC && op === layout.OP_OPEN;
    const isCipherWorth = isAlone || this.#ciphers[context.imbCipher]! >= context.imbCipherMin;
    const isMacWorth = this.#macs[context.imbMac]! >= context.imbMacMin;
    const worth = (isCipherWorth ? layout.LANES_CIPHER : 0) | (isMacWorth ? layout.LANES_MAC : 0);
    return task.lanes & worth;
  }
}

/** What is too long for intel-ipsec-mb, or nothing at all, is OpenSSL's. */
function isImbLen(len: number): boolean {
  return len > 0 && len + 4 <= layout.IMB_LEN_MAX;
}
