import { assert } from '../../base/assert.ts';
import type { AhTransform, EspTransform, JobPacket } from '../../crypto/transform.ts';
import type { NativeContext } from './contexts.ts';
import * as layout from './layout.ts';
import type { NativeQueue } from './queue.ts';

/** What a transform says about itself. */
export type EspShape = Pick<EspTransform, 'ivLen' | 'icvLen' | 'alignLen' | 'iv' | 'authenticates'>;

/** ESP with its keys in a context of the queue. */
export class NativeEsp implements EspTransform {
  readonly ivLen: number;
  readonly icvLen: number;
  readonly alignLen: number;
  readonly iv: EspTransform['iv'];
  readonly authenticates: boolean;
  readonly queue: NativeQueue;
  #context: NativeContext | undefined;

  constructor(shape: EspShape, queue: NativeQueue, context: NativeContext) {
    this.ivLen = shape.ivLen;
    this.icvLen = shape.icvLen;
    this.alignLen = shape.alignLen;
    this.iv = shape.iv;
    this.authenticates = shape.authenticates;
    this.queue = queue;
    this.#context = context;
  }

  seal(p: Uint8Array, at: number, end: number, seqHigh: number): void {
    const status = this.queue.esp(layout.OP_SEAL, this.#live(), p, at, end, seqHigh);
    assert(status === layout.STATUS_OK, 'the library seals what it is given');
  }

  open(p: Uint8Array, at: number, end: number, seqHigh: number): boolean {
    const status = this.queue.esp(layout.OP_OPEN, this.#live(), p, at, end, seqHigh);
    return status === layout.STATUS_OK;
  }

  sealLater(p: Uint8Array, at: number, end: number, seqHigh: number): number {
    return this.queue.espLater(layout.OP_SEAL, this.#live(), p, at, end, seqHigh);
  }

  openLater(p: Uint8Array, at: number, end: number, seqHigh: number): number {
    return this.queue.espLater(layout.OP_OPEN, this.#live(), p, at, end, seqHigh);
  }

  sealRowLater(
    packets: readonly JobPacket[],
    from: number,
    count: number,
    by: number,
    len: number,
    seqHigh: number,
  ): number {
    const context = this.#live();
    return this.queue.espRowLater(layout.OP_SEAL, context, packets, from, count, by, len, seqHigh);
  }

  openRowLater(
    packets: readonly JobPacket[],
    from: number,
    count: number,
    by: number,
    len: number,
    seqHigh: number,
  ): number {
    const context = this.#live();
    return this.queue.espRowLater(layout.OP_OPEN, context, packets, from, count, by, len, seqHigh);
  }

  wipe(): void {
    if (this.#context) this.queue.release(this.#context);
    this.#context = undefined;
  }

  #live(): NativeContext {
    assert(this.#context !== undefined, 'the transform was not wiped');
    return this.#context;
  }
}

/** AH with its keys in a context of the queue. */
export class NativeAh implements AhTransform {
  readonly icvLen: number;
  readonly ivLen: number;
  readonly queue: NativeQueue;
  #context: NativeContext | undefined;

  constructor(queue: NativeQueue, context: NativeContext) {
    this.ivLen = context.ivLen;
    this.icvLen = context.ivLen + context.icvLen;
    this.queue = queue;
    this.#context = context;
  }

  sign(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): void {
    const { queue } = this;
    const status = queue.ah(layout.OP_SIGN, this.#live(), p, at, end, seqHigh, icv, icvAt);
    assert(status === layout.STATUS_OK, 'the library signs what it is given');
  }

  verify(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): boolean {
    const { queue } = this;
    const status = queue.ah(layout.OP_VERIFY, this.#live(), p, at, end, seqHigh, icv, icvAt);
    return status === layout.STATUS_OK;
  }

  signLater(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): number {
    return this.queue.ahLater(layout.OP_SIGN, this.#live(), p, at, end, seqHigh, icv, icvAt);
  }

  verifyLater(
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): number {
    return this.queue.ahLater(layout.OP_VERIFY, this.#live(), p, at, end, seqHigh, icv, icvAt);
  }

  wipe(): void {
    if (this.#context) this.queue.release(this.#context);
    this.#context = undefined;
  }

  #live(): NativeContext {
    assert(this.#context !== undefined, 'the transform was not wiped');
    return this.#context;
  }
}
