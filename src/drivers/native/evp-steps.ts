import * as layout from './layout.ts';
import { type NativeBlock, nativeBlock } from './memory.ts';
import { CTRL_GET_TAG, CTRL_SET_TAG, HASHES, type OpenSsl } from './openssl.ts';
import type { Task } from './task.ts';

const { CONTEXT, WORK } = layout;
const { BLOCK_LEN } = layout;

/** jobs_evp.c from JavaScript, a call out of it for each of OpenSSL's functions. */
export class EvpSteps {
  readonly #openSsl: OpenSsl;
  /** Where OpenSSL says how much it wrote, and behind it what `final` writes, which is nothing. */
  readonly #out: NativeBlock;

  constructor(openSsl: OpenSsl) {
    this.#openSsl = openSsl;
    this.#out = nativeBlock(openSsl.koffi, 64);
  }

  /** AES-GCM and ChaCha20-Poly1305. Returns STATUS_*. */
  aead(task: Task): number {
    const { context, textAt, textLen, base } = task;
    const isSealing = task.op === layout.OP_SEAL;
    const ctx = isSealing ? context.sealing : context.opening;
    const text = base + textAt;
    task.writeNonce();
    const worked =
      this.#starts(task, ctx, isSealing) &&
      this.#feeds(ctx, 0, task.aad(), task.aadLen) &&
      this.#feeds(ctx, text, text, textLen);
    if (!worked) return layout.STATUS_FAILED;
    const tag = task.icvBase + task.icvAt;
    if (isSealing) {
      const isSealed = this.#ends(ctx) && this.#tag(task, ctx, CTRL_GET_TAG, tag);
      return isSealed ? layout.STATUS_OK : layout.STATUS_FAILED;
    }
    if (this.#tag(task, ctx, CTRL_SET_TAG, tag) && this.#ends(ctx)) return layout.STATUS_OK;
    // OpenSSL decrypts before it knows the tag: the key stream once more gives back what came.
    if (this.#starts(task, ctx, true) && this.#feeds(ctx, text, text, textLen)) {
      return layout.STATUS_WRONG_ICV;
    }
    task.p.fill(0, textAt, task.end);
    return layout.STATUS_FAILED;
  }

  /** CCM has to know the length of the text before it sees any of it. */
  ccm(task: Task): number {
    const { context, textAt, textLen, base, p } = task;
    const isSealing = task.op === layout.OP_SEAL;
    const ctx = isSealing ? context.sealing : context.opening;
    const text = base + textAt;
    const tag = task.icvBase + task.icvAt;
    task.writeNonce();
    const begun =
      this.#starts(task, ctx, isSealing) &&
      (isSealing || this.#tag(task, ctx, CTRL_SET_TAG, tag)) &&
      this.#feeds(ctx, 0, 0, textLen) &&
      this.#feeds(ctx, 0, task.aad(), task.aadLen);
    if (!begun) return layout.STATUS_FAILED;
    if (isSealing) {
      const isSealed =
        this.#feeds(ctx, text, text, textLen) && this.#tag(task, ctx, CTRL_GET_TAG, tag);
      return isSealed ? layout.STATUS_OK : layout.STATUS_FAILED;
    }
    // Where the tag is wrong, OpenSSL zeroes what it wrote.
    const { scratch } = task.queue;
    copy(p, textAt, textLen, scratch.bytes, 0);
    if (this.#feeds(ctx, text, scratch.address, textLen)) return layout.STATUS_OK;
    copy(scratch.bytes, 0, textLen, p, textAt);
    return layout.STATUS_WRONG_ICV;
  }

  /** The tag of GCM that encrypts nothing (RFC 4543), into `work`. */
  gmac(task: Task): boolean {
    const ctx = task.context.sealing;
    task.writeNonce();
    if (!this.#starts(task, ctx, true)) return false;
    const iv = task.base + task.ivAt;
    const isFed = task.isEsp
      ? this.#feeds(ctx, 0, task.aad(), task.aadLen) &&
        this.#feeds(ctx, 0, iv, task.end - task.ivAt)
      : this.#feeds(ctx, 0, task.base + task.begin, task.coveredLen) &&
        (!task.isExtended || this.#feeds(ctx, 0, this.#seqHigh(task), 4));
    return isFed && this.#ends(ctx) && this.#tag(task, ctx, CTRL_GET_TAG, task.work(WORK.tag));
  }

  /** CBC and CTR. */
  crypt(task: Task): boolean {
    const { context, textAt, textLen, base } = task;
    const isSealing = task.op === layout.OP_SEAL;
    const ctx = isSealing ? context.sealing : context.opening;
    if (context.cipher === layout.CIPHER_CTR) task.writeNonce();
    else copy(task.q, task.ivAt, context.ivLen, task.queue.works.bytes, task.workAt + WORK.iv);
    const text = base + textAt;
    return this.#starts(task, ctx, isSealing) && this.#feeds(ctx, text, text, textLen);
  }

  /** The MAC of ESP or AH, untruncated, into `work`. */
  mac(task: Task): boolean {
    return task.context.mac === layout.MAC_HMAC ? this.#hmac(task) : this.#blockMac(task);
  }

  /** In constant time. */
  isSame(a: number, b: number, len: number): boolean {
    return this.#openSsl.compare(a, b, len) === 0;
  }

  /** RFC 2104, from the states that the key has left behind the first block of either hash. */
  #hmac(task: Task): boolean {
    const { context } = task;
    const { state } = task.queue;
    const { update, final, stateLen, digestLen } = this.#openSsl.hashes[HASHES[context.hash]!];
    const at = state.address;
    const digest = task.work(WORK.tag);
    copy(context.bytes, CONTEXT.inner, stateLen, state.bytes, 0);
    if (update(at, task.base + task.begin, task.coveredLen) !== 1) return false;
    if (task.isExtended && update(at, this.#seqHigh(task), 4) !== 1) return false;
    if (final(digest, at) !== 1) return false;
    copy(context.bytes, CONTEXT.outer, stateLen, state.bytes, 0);
    return update(at, digest, digestLen) === 1 && final(digest, at) === 1;
  }

  /** XCBC (RFC 3566 §4) and CMAC (RFC 4493): CBC-MAC whose last block is masked. */
  #blockMac(task: Task): boolean {
    const { context } = task;
    const { scratch, works } = task.queue;
    const message = scratch.bytes;
    let len = task.coveredLen;
    copy(task.p, task.begin, len, message, 0);
    if (task.isExtended) {
      task.writeSeqHigh(message, len);
      len += 4;
    }
    const whole = BLOCK_LEN * Math.max(1, Math.ceil(len / BLOCK_LEN));
    let maskAt: number = CONTEXT.outer;
    if (len < whole) {
      message[len] = 0x80;
      message.fill(0, len + 1, whole);
      maskAt += BLOCK_LEN;
    }
    const lastAt = whole - BLOCK_LEN;
    for (let i = 0; i < BLOCK_LEN; i++) {
      message[lastAt + i] = message[lastAt + i]! ^ context.bytes[maskAt + i]!;
    }
    const ivAt = task.workAt + WORK.iv;
    works.bytes.fill(0, ivAt, ivAt + BLOCK_LEN);
    const worked =
      this.#starts(task, context.chaining, true) &&
      this.#feeds(context.chaining, scratch.address, scratch.address, whole);
    copy(message, lastAt, BLOCK_LEN, works.bytes, task.workAt + WORK.tag);
    // Had it not been encrypted, this would be the mask xor what everybody knows.
    message.fill(0, lastAt, whole);
    return worked;
  }

  /** Writes it to `work`, and returns its address. */
  #seqHigh(task: Task): number {
    task.writeSeqHigh(task.queue.works.bytes, task.workAt + WORK.aad);
    return task.work(WORK.aad);
  }

  #starts(task: Task, ctx: number, isSealing: boolean): boolean {
    return this.#openSsl.cipherInit(ctx, 0, 0, 0, task.work(WORK.iv), isSealing ? 1 : 0) === 1;
  }

  /** `out` 0: associated data. */
  #feeds(ctx: number, out: number, input: number, len: number): boolean {
    return this.#openSsl.cipherUpdate(ctx, out, this.#out.address, input, len) === 1;
  }

  #ends(ctx: number): boolean {
    return this.#openSsl.cipherFinal(ctx, this.#out.address + 16, this.#out.address) === 1;
  }

  #tag(task: Task, ctx: number, what: number, at: number): boolean {
    return this.#openSsl.cipherCtrl(ctx, what, task.context.icvLen, at) === 1;
  }
}

/** Between two arrays; octet by octet as long as that costs less than a view. */
export function copy(
  from: Uint8Array,
  at: number,
  len: number,
  to: Uint8Array,
  toAt: number,
): void {
  if (len > 64) to.set(from.subarray(at, at + len), toAt);
  else for (let i = 0; i < len; i++) to[toAt + i] = from[at + i]!;
}
