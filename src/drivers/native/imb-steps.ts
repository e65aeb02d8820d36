import { copy } from './evp-steps.ts';
import type { ImbGcm, IpsecMb } from './ipsec-mb.ts';
import * as layout from './layout.ts';
import { longAt, type NativeBlock, nativeBlock, setLong } from './memory.ts';
import type { Task } from './task.ts';

const { CONTEXT, JOB, WORK } = layout;
const { BLOCK_LEN } = layout;

/** IMB_JOB of version 1.3, in octets. */
const IMB_JOB = {
  encryptionKeys: 0,
  decryptionKeys: 8,
  keyLen: 16,
  src: 24,
  dst: 32,
  cipherAt: 40,
  cipherLen: 48,
  hashAt: 56,
  hashLen: 64,
  iv: 72,
  ivLen: 80,
  tag: 88,
  tagLen: 96,
  /** Three words that each hash reads in its own way. */
  mac: 104,
  status: 128,
  cipher: 132,
  direction: 136,
  hash: 140,
  order: 144,
} as const;

const COMPLETED = 3;
const CIPHER_MODE = { cbc: 1, ctr: 2, none: 3, ccm: 9, chacha20Poly1305: 19 } as const;
const HASH = { none: 8, ccm: 11, chacha20Poly1305: 29 } as const;
const ENCRYPT = 1;
const DECRYPT = 2;
const CIPHER_THEN_HASH = 1;
const HASH_THEN_CIPHER = 2;

/** Jobs that are handed over at a time. */
const BURST = 64;

/**
 * jobs_imb.c from JavaScript: a call for GCM, several for GMAC, and all else in bursts of jobs that
 * are written right into the manager's memory.
 */
export class ImbSteps {
  readonly #imb: IpsecMb;
  readonly #words: Uint32Array;
  /** Addresses of jobs. */
  readonly #burst: NativeBlock;
  /** For those of this burst: where they are in the manager's memory, and whose they are. */
  readonly #places = new Int32Array(BURST);
  readonly #owners = new Int32Array(BURST);
  #granted = 0;
  #filled = 0;

  constructor(imb: IpsecMb) {
    this.#imb = imb;
    this.#words = imb.manager.words;
    this.#burst = nativeBlock(imb.koffi, 8 * BURST);
  }

  /** Seals, or opens and leaves the tag that would be right in `work`. */
  gcm(task: Task, isSealing: boolean): void {
    const { seal, open } = this.#gcmOf(task);
    const text = task.base + task.textAt;
    const tag = task.op === layout.OP_SEAL ? task.icvBase + task.icvAt : task.work(WORK.tag);
    task.writeNonce();
    const call = isSealing ? seal : open;
    const key = this.#schedule(task);
    const state = task.queue.state.address;
    const aad = task.aad();
    const { textLen, aadLen, context } = task;
    call(key, state, text, text, textLen, task.work(WORK.iv), aad, aadLen, tag, context.icvLen);
  }

  /** The tag, into `work`. */
  gmac(task: Task): void {
    const { gmacInit, gmacUpdate, gmacFinal } = this.#gcmOf(task);
    const key = this.#schedule(task);
    const state = task.queue.state.address;
    task.writeNonce();
    gmacInit(key, state, task.work(WORK.iv), 12);
    if (task.isEsp) {
      gmacUpdate(key, state, task.aad(), task.aadLen);
      gmacUpdate(key, state, task.base + task.ivAt, task.end - task.ivAt);
    } else {
      if (task.coveredLen > 0) gmacUpdate(key, state, task.base + task.begin, task.coveredLen);
      if (task.isExtended) {
        task.writeSeqHigh(task.queue.works.bytes, task.workAt + WORK.aad);
        gmacUpdate(key, state, task.work(WORK.aad), 4);
      }
    }
    gmacFinal(key, state, task.work(WORK.tag), task.context.icvLen);
  }

  /** ChaCha20-Poly1305 (RFC 7634) and CCM (RFC 4309). The tag is left in `work`. */
  submitAead(task: Task, isSealing: boolean): void {
    const isCcm = task.context.imbCipher === layout.IMB_CCM;
    const job = this.#next(task);
    task.writeNonce();
    this.#setCipher(task, job, isSealing);
    this.#set(job, IMB_JOB.cipher, isCcm ? CIPHER_MODE.ccm : CIPHER_MODE.chacha20Poly1305);
    this.#set(job, IMB_JOB.hash, isCcm ? HASH.ccm : HASH.chacha20Poly1305);
    // CCM's MAC is that of the plain text, Poly1305's that of the encrypted one.
    this.#set(job, IMB_JOB.order, isCcm === isSealing ? HASH_THEN_CIPHER : CIPHER_THEN_HASH);
    this.#setLong(job, IMB_JOB.hashAt, task.textAt - task.begin);
    this.#setLong(job, IMB_JOB.hashLen, task.textLen);
    this.#setLong(job, IMB_JOB.iv, task.work(WORK.iv));
    this.#setLong(job, IMB_JOB.ivLen, task.context.saltLen + 8);
    this.#setLong(job, IMB_JOB.mac, task.aad());
    this.#setLong(job, IMB_JOB.mac + 8, task.aadLen);
  }

  /** AES in CBC and CTR mode. */
  submitCipher(task: Task): void {
    const isCbc = task.context.imbCipher === layout.IMB_CBC;
    const job = this.#next(task);
    this.#setCipher(task, job, task.op === layout.OP_SEAL);
    const decryptionKeys = this.#schedule(task) + layout.DECRYPTION_AT;
    this.#setLong(job, IMB_JOB.decryptionKeys, decryptionKeys);
    this.#set(job, IMB_JOB.cipher, isCbc ? CIPHER_MODE.cbc : CIPHER_MODE.ctr);
    if (!isCbc) task.writeNonce();
    this.#setLong(job, IMB_JOB.iv, isCbc ? task.base + task.ivAt : task.work(WORK.iv));
    this.#setLong(job, IMB_JOB.ivLen, BLOCK_LEN);
  }

  /**
   * The message has to be in one piece, so the high half of the sequence number is put behind it:
   * for ESP into the ICV's place (what was there is in `saved`), for AH into a copy.
   */
  submitMac(task: Task): void {
    const { context, isExtended } = task;
    const { works, scratch } = task.queue;
    const isCopy = isExtended && !task.isEsp;
    const job = this.#next(task);
    if (isCopy) {
      copy(task.p, task.begin, task.coveredLen, scratch.bytes, 0);
      task.writeSeqHigh(scratch.bytes, task.coveredLen);
      this.#setLong(job, IMB_JOB.src, scratch.address);
    } else if (isExtended) {
      copy(task.q, task.icvAt, context.icvLen, works.bytes, task.workAt + WORK.saved);
      task.writeSeqHigh(task.p, task.end);
    }
    this.#set(job, IMB_JOB.hash, context.imbMac);
    this.#setLong(job, IMB_JOB.hashAt, 0);
    this.#setLong(job, IMB_JOB.hashLen, task.coveredLen + (isExtended ? 4 : 0));
    const { address } = context;
    this.#setLong(job, IMB_JOB.mac, address + CONTEXT.inner);
    this.#setLong(job, IMB_JOB.mac + 8, address + CONTEXT.outer);
    // For HMAC there are no more than two.
    this.#setLong(job, IMB_JOB.mac + 16, address + CONTEXT.outer + BLOCK_LEN);
    // There is one place for a copy.
    if (isCopy) this.flush(task.queue.jobs);
  }

  /** Does what was submitted: then those jobs are STATUS_NEW, or still STATUS_SUBMITTED if lost. */
  flush(jobs: NativeBlock): void {
    const filled = this.#filled;
    this.#filled = 0;
    this.#granted = 0;
    if (filled === 0) return;
    const { manager, submitBurst, flushBurst } = this.#imb;
    submitBurst(manager.address, filled, this.#burst.address);
    while (flushBurst(manager.address, BURST, this.#burst.address) > 0);
    for (let i = 0; i < filled; i++) {
      const isDone = this.#words[this.#places[i]! + IMB_JOB.status / 4] === COMPLETED;
      const statusAt = (this.#owners[i]! * JOB.len + JOB.status) / 4;
      if (isDone) jobs.words[statusAt] = layout.STATUS_NEW;
    }
  }

  /** Where the next job of the burst is, in words. */
  #next(task: Task): number {
    if (this.#filled === BURST || this.#filled === this.#granted) this.flush(task.queue.jobs);
    if (this.#granted === 0) this.#ask();
    const { words } = this.#burst;
    const job = (longAt(words, 8 * this.#filled) - this.#imb.manager.address) / 4;
    this.#places[this.#filled] = job;
    this.#owners[this.#filled] = task.job;
    this.#filled++;
    task.status = layout.STATUS_SUBMITTED;
    this.#set(job, IMB_JOB.status, 0);
    this.#setLong(job, IMB_JOB.src, task.base + task.begin);
    this.#set(job, IMB_JOB.cipher, CIPHER_MODE.none);
    this.#setLong(job, IMB_JOB.cipherLen, 0);
    this.#set(job, IMB_JOB.hash, HASH.none);
    this.#setLong(job, IMB_JOB.hashLen, 0);
    this.#setLong(job, IMB_JOB.tag, task.work(WORK.tag));
    this.#setLong(job, IMB_JOB.tagLen, task.context.icvLen);
    this.#set(job, IMB_JOB.direction, ENCRYPT);
    this.#set(job, IMB_JOB.order, CIPHER_THEN_HASH);
    return job;
  }

  #ask(): void {
    const { manager, nextBurst } = this.#imb;
    this.#granted = nextBurst(manager.address, BURST, this.#burst.address);
  }

  #setCipher(task: Task, job: number, isSealing: boolean): void {
    const schedule = this.#schedule(task);
    this.#setLong(job, IMB_JOB.encryptionKeys, schedule);
    this.#setLong(job, IMB_JOB.decryptionKeys, schedule);
    this.#setLong(job, IMB_JOB.keyLen, task.context.keyLen);
    this.#setLong(job, IMB_JOB.dst, task.base + task.textAt);
    this.#setLong(job, IMB_JOB.cipherAt, task.textAt - task.begin);
    this.#setLong(job, IMB_JOB.cipherLen, task.textLen);
    this.#set(job, IMB_JOB.direction, isSealing ? ENCRYPT : DECRYPT);
  }

  #set(job: number, field: number, value: number): void {
    this.#words[job + field / 4] = value;
  }

  #setLong(job: number, field: number, value: number): void {
    setLong(this.#words, 4 * job + field, value);
  }

  #schedule(task: Task): number {
    return task.context.address + CONTEXT.schedule;
  }

  #gcmOf(task: Task): ImbGcm {
    return this.#imb.gcm[task.context.keyLen / 8 - 2]!;
  }
}
