import type { NativeContext } from './contexts.ts';
import * as layout from './layout.ts';
import type { NativeQueue } from './queue.ts';

const { JOB, WORK } = layout;
const JOB_WORDS = JOB.len / 4;
const ESP_HEADER_LEN = 8;

/** A job of a queue, opened up for whoever does it from JavaScript: jobs_task.c over there. */
export class Task {
  job = 0;
  op = 0;
  context!: NativeContext;
  isExtended = false;
  /** The array with the packet, its address, and offsets in it. AH: `begin` to `end` is covered. */
  p!: Uint8Array;
  base = 0;
  begin = 0;
  textAt = 0;
  /** Behind the text; for ESP the ICV begins here. */
  end = 0;
  /** The array with IV and ICV, its address, and offsets in it. */
  q!: Uint8Array;
  icvBase = 0;
  ivAt = 0;
  icvAt = 0;
  /** What belongs to the job: IV, AAD, tag. */
  workAt = 0;
  readonly queue: NativeQueue;

  constructor(queue: NativeQueue) {
    this.queue = queue;
  }

  /** False: there is nothing to do. Offsets were checked when the job was noted down. */
  load(job: number): boolean {
    const { regions, contexts, jobs } = this.queue;
    const { words } = jobs;
    const i = job * JOB_WORDS;
    this.job = job;
    this.op = words[i + JOB.op / 4]!;
    if (this.op === layout.OP_NONE) return false;
    const context = contexts.at(words[i + JOB.context / 4]!)!;
    const region = words[i + JOB.region / 4]!;
    const end = words[i + JOB.end / 4]!;
    this.context = context;
    this.isExtended = words[i + JOB.extended / 4] === 1;
    this.p = regions.array(region);
    this.base = regions.address(region);
    this.begin = words[i + JOB.at / 4]!;
    this.workAt = job * WORK.len;
    if (this.isEsp) {
      this.ivAt = this.begin + ESP_HEADER_LEN;
      this.textAt = this.ivAt + context.ivLen;
      this.end = this.op === layout.OP_OPEN ? end - context.icvLen : end;
      this.q = this.p;
      this.icvBase = this.base;
      this.icvAt = this.end;
      return true;
    }
    const icvRegion = words[i + JOB.icvRegion / 4]!;
    this.textAt = this.begin;
    this.end = end;
    this.q = regions.array(icvRegion);
    this.icvBase = regions.address(icvRegion);
    this.ivAt = words[i + JOB.icvAt / 4]!;
    this.icvAt = this.ivAt + context.ivLen;
    return true;
  }

  get isEsp(): boolean {
    return this.op === layout.OP_SEAL || this.op === layout.OP_OPEN;
  }

  get isSender(): boolean {
    return this.op === layout.OP_SEAL || this.op === layout.OP_SIGN;
  }

  get isAead(): boolean {
    const { cipher } = this.context;
    return cipher === layout.CIPHER_AEAD || cipher === layout.CIPHER_CCM;
  }

  get status(): number {
    return this.queue.jobs.words[this.job * JOB_WORDS + JOB.status / 4]!;
  }

  set status(status: number) {
    this.queue.jobs.words[this.job * JOB_WORDS + JOB.status / 4] = status;
  }

  /** LANES_*, as decided for this batch. */
  get lanes(): number {
    return this.queue.jobs.words[this.job * JOB_WORDS + JOB.lanes / 4]!;
  }

  set lanes(lanes: number) {
    this.queue.jobs.words[this.job * JOB_WORDS + JOB.lanes / 4] = lanes;
  }

  get textLen(): number {
    return this.end - this.textAt;
  }

  get coveredLen(): number {
    return this.end - this.begin;
  }

  /** The native address of a field of `work`. */
  work(field: number): number {
    return this.queue.works.address + this.workAt + field;
  }

  /** SPI and sequence number, extended or not (RFC 4106 §5); `aadLen` octets. */
  aad(): number {
    if (!this.isExtended) return this.base + this.begin;
    const { bytes } = this.queue.works;
    const to = this.workAt + WORK.aad;
    for (let i = 0; i < 4; i++) bytes[to + i] = this.p[this.begin + i]!;
    this.writeSeqHigh(bytes, to + 4);
    for (let i = 4; i < 8; i++) bytes[to + 4 + i] = this.p[this.begin + i]!;
    return this.work(WORK.aad);
  }

  get aadLen(): number {
    return this.isExtended ? ESP_HEADER_LEN + 4 : ESP_HEADER_LEN;
  }

  /** Salt and IV into `work`; for AES-CTR with the counter, which begins with 1 (RFC 3686 §4). */
  writeNonce(): void {
    const { context, q, ivAt } = this;
    const { bytes } = this.queue.works;
    const to = this.workAt + WORK.iv;
    const { saltLen } = context;
    for (let i = 0; i < saltLen; i++) bytes[to + i] = context.bytes[layout.CONTEXT.salt + i]!;
    for (let i = 0; i < 8; i++) bytes[to + saltLen + i] = q[ivAt + i]!;
    if (context.cipher !== layout.CIPHER_CTR) return;
    for (let i = 12; i < 15; i++) bytes[to + i] = 0;
    bytes[to + 15] = 1;
  }

  writeSeqHigh(to: Uint8Array, at: number): void {
    const seqHigh = this.queue.jobs.words[this.job * JOB_WORDS + JOB.seqHigh / 4]!;
    for (let i = 0; i < 4; i++) to[at + i] = seqHigh >>> (24 - 8 * i);
  }
}
