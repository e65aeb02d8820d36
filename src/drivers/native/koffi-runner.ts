import { assert } from '../../base/assert.ts';
import { Crowd, lanesOf } from './crowd.ts';
import { copy, EvpSteps } from './evp-steps.ts';
import { ImbSteps } from './imb-steps.ts';
import type { IpsecMb } from './ipsec-mb.ts';
import * as layout from './layout.ts';
import type { OpenSsl } from './openssl.ts';
import type { NativeQueue, Runner } from './queue.ts';
import { Task } from './task.ts';

const { WORK } = layout;

/**
 * native/fast/jobs.c from JavaScript, for where no compiler was: the same steps, with calls to the
 * libraries one by one.
 */
export function koffiRunner(openSsl: OpenSsl, imb: IpsecMb | undefined): Runner {
  let steps: Steps | undefined;
  return (queue, from, count) => {
    steps ??= new Steps(queue, new EvpSteps(openSsl), imb && new ImbSteps(imb));
    assert(steps.queue === queue, 'a runner has one queue');
    steps.run(from, from + count);
  };
}

class Steps {
  readonly queue: NativeQueue;
  readonly #evp: EvpSteps;
  readonly #imb: ImbSteps | undefined;
  readonly #task: Task;
  readonly #crowd = new Crowd();

  constructor(queue: NativeQueue, evp: EvpSteps, imb: ImbSteps | undefined) {
    this.queue = queue;
    this.#evp = evp;
    this.#imb = imb;
    this.#task = new Task(queue);
  }

  run(from: number, end: number): void {
    const task = this.#task;
    this.#crowd.clear();
    let isDone = this.#direct(from, end);
    for (let job = from; !this.#crowd.isEmpty && job < end; job++) {
      if (!task.load(job) || task.lanes === 0) continue;
      task.lanes = this.#crowd.lanesIn(task);
      task.status = this.#first(task);
      if (isOpen(task.status)) isDone = false;
    }
    if (isDone) return;
    this.#next(from, end, 2);
    this.#next(from, end, 3);
  }

  /** Jobs without lanes are done as they come; those with lanes are counted. True: all are done. */
  #direct(from: number, end: number): boolean {
    const task = this.#task;
    let isDone = true;
    for (let job = from; job < end; job++) {
      if (!task.load(job)) continue;
      task.status = layout.STATUS_NEW;
      task.lanes = lanesOf(task);
      if (task.lanes === 0) task.status = this.#first(task);
      else this.#crowd.count(task);
      if (isOpen(task.status)) isDone = false;
    }
    return isDone;
  }

  #next(from: number, end: number, step: 2 | 3): void {
    const task = this.#task;
    this.#imb?.flush(this.queue.jobs);
    for (let job = from; job < end; job++) {
      if (!task.load(job) || !isOpen(task.status)) continue;
      if (step === 2) this.#restore(task);
      if (task.status === layout.STATUS_SUBMITTED) task.status = layout.STATUS_FAILED;
      else task.status = step === 2 ? this.#second(task) : this.#third(task);
    }
  }

  /** What is final, or STATUS_NEW or STATUS_SUBMITTED. */
  #first(task: Task): number {
    const { cipher, imbCipher } = task.context;
    if (cipher === layout.CIPHER_GMAC) return this.#gmac(task);
    if (!task.isAead) return task.op === layout.OP_SEAL ? this.#cipher(task) : this.#mac(task);
    if (imbCipher === layout.IMB_GCM) return this.#imbGcm(task);
    if (!hasImbCipher(task)) {
      return cipher === layout.CIPHER_CCM ? this.#evp.ccm(task) : this.#evp.aead(task);
    }
    this.#imb!.submitAead(task, task.op === layout.OP_SEAL);
    return task.status;
  }

  #second(task: Task): number {
    const { cipher, mac } = task.context;
    if (task.isAead) {
      if (this.#settle(task) === layout.STATUS_OK) return layout.STATUS_OK;
      // Nothing of a forged packet stays decrypted: the key stream once more gives back what came.
      this.#imb!.submitAead(task, true);
      return task.status;
    }
    if (task.op === layout.OP_SEAL) {
      const status = this.#mac(task);
      if (status !== layout.STATUS_NEW) return status;
      return mac === layout.MAC_NONE ? layout.STATUS_OK : this.#settle(task);
    }
    const status = mac === layout.MAC_NONE ? layout.STATUS_OK : this.#settle(task);
    if (status !== layout.STATUS_OK || task.op !== layout.OP_OPEN) return status;
    if (cipher === layout.CIPHER_NONE) return layout.STATUS_OK;
    if (!hasImbCipher(task)) return statusOf(this.#evp.crypt(task));
    this.#imb!.submitCipher(task);
    return task.status;
  }

  #third(task: Task): number {
    if (task.isAead) return layout.STATUS_WRONG_ICV;
    return task.op === layout.OP_SEAL ? this.#settle(task) : layout.STATUS_OK;
  }

  #cipher(task: Task): number {
    if (task.context.cipher === layout.CIPHER_NONE) return layout.STATUS_NEW;
    if (!hasImbCipher(task)) return openStatus(this.#evp.crypt(task));
    this.#imb!.submitCipher(task);
    return task.status;
  }

  #mac(task: Task): number {
    if (task.context.mac === layout.MAC_NONE) return layout.STATUS_NEW;
    if (!hasImbMac(task)) return openStatus(this.#evp.mac(task));
    this.#imb!.submitMac(task);
    return task.status;
  }

  #gmac(task: Task): number {
    if (task.context.imbCipher === layout.IMB_GCM) this.#imb!.gmac(task);
    else if (!this.#evp.gmac(task)) return layout.STATUS_FAILED;
    return this.#settle(task);
  }

  #imbGcm(task: Task): number {
    const isSealing = task.op === layout.OP_SEAL;
    this.#imb!.gcm(task, isSealing);
    if (isSealing) return layout.STATUS_OK;
    const status = this.#settle(task);
    if (status !== layout.STATUS_OK) this.#imb!.gcm(task, true);
    return status;
  }

  /** The tag is in `work`: it is written, or compared with what came. */
  #settle(task: Task): number {
    const { icvLen } = task.context;
    if (task.isSender) {
      copy(task.queue.works.bytes, task.workAt + WORK.tag, icvLen, task.q, task.icvAt);
      return layout.STATUS_OK;
    }
    const isSame = this.#evp.isSame(task.work(WORK.tag), task.icvBase + task.icvAt, icvLen);
    return isSame ? layout.STATUS_OK : layout.STATUS_WRONG_ICV;
  }

  /** What submitted jobs had changed in the packet, back to what came. */
  #restore(task: Task): void {
    if (task.op !== layout.OP_OPEN || !task.isExtended || !hasImbMac(task)) return;
    const { icvLen } = task.context;
    copy(task.queue.works.bytes, task.workAt + WORK.saved, icvLen, task.q, task.icvAt);
  }
}

function isOpen(status: number): boolean {
  return status === layout.STATUS_NEW || status === layout.STATUS_SUBMITTED;
}

function statusOf(worked: boolean): number {
  return worked ? layout.STATUS_OK : layout.STATUS_FAILED;
}

function openStatus(worked: boolean): number {
  return worked ? layout.STATUS_NEW : layout.STATUS_FAILED;
}

function hasImbCipher(task: Task): boolean {
  return (task.lanes & layout.LANES_CIPHER) !== 0;
}

function hasImbMac(task: Task): boolean {
  return (task.lanes & layout.LANES_MAC) !== 0;
}
