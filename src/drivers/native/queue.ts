import type * as Koffi from 'koffi';
import { assert } from '../../base/assert.ts';
import type { JobPacket, JobQueue } from '../../crypto/transform.ts';
import { Contexts, type NativeContext } from './contexts.ts';
import * as layout from './layout.ts';
import { type NativeBlock, nativeBlock, setLong } from './memory.ts';
import { Regions, SMALL_MAX } from './regions.ts';

const { JOB, QUEUE, WORK } = layout;

const CAPACITY = 512;
/** One more job, for what is done at once: it does not disturb the numbers of those that wait. */
const AT_ONCE = CAPACITY;
const JOB_WORDS = JOB.len / 4;
/** Room for the longest packet and its padding. */
const SCRATCH_LEN = 96 * 1024;
/** The longest piece that a job may cover. */
const JOB_LEN_MAX = SCRATCH_LEN - 64;
const STATE_LEN = 256;
const ESP_HEADER_LEN = 8;

/** Does jobs `from` to `from + count` of a queue. */
export type Runner = (queue: NativeQueue, from: number, count: number) => void;

/**
 * The jobs of a native provider, in the memory of `struct queue` (native/fast/jobs.h). Offsets are
 * checked here, before anything is written; and once more by native code, before it forms a
 * pointer.
 */
export class NativeQueue implements JobQueue {
  readonly capacity = CAPACITY;
  readonly contexts: Contexts;
  readonly regions: Regions;
  /** `struct queue`, whose address native code is given. */
  readonly self: NativeBlock;
  readonly jobs: NativeBlock;
  readonly works: NativeBlock;
  readonly scratch: NativeBlock;
  readonly state: NativeBlock;
  /** `struct functions`; here so that it stays where native code was told it is. */
  readonly functions: NativeBlock;
  readonly #runner: Runner;
  readonly #words: Uint32Array;
  /** Small arrays are copied here: what is covered, and an ICV elsewhere. */
  readonly #lent: readonly [Uint8Array, Uint8Array];
  /** Frees what belongs to a context and is not in it. */
  readonly #free: (context: NativeContext) => void;
  /** Wiped while jobs waited that may need them. */
  readonly #condemned: NativeContext[] = [];
  #count = 0;

  constructor(
    koffi: typeof Koffi,
    functions: NativeBlock,
    runner: Runner,
    free: (context: NativeContext) => void,
  ) {
    this.functions = functions;
    this.#runner = runner;
    this.#free = free;
    this.contexts = new Contexts(koffi);
    this.regions = new Regions(koffi, 2 * CAPACITY);
    this.jobs = nativeBlock(koffi, (CAPACITY + 1) * JOB.len);
    this.works = nativeBlock(koffi, (CAPACITY + 1) * WORK.len);
    this.scratch = nativeBlock(koffi, SCRATCH_LEN);
    this.state = nativeBlock(koffi, STATE_LEN);
    this.#words = this.jobs.words;
    this.#lent = [nativeBlock(koffi, 128).bytes, nativeBlock(koffi, 128).bytes];
    this.self = nativeBlock(koffi, QUEUE.len);
    const { words } = this.self;
    setLong(words, QUEUE.functions, functions.address);
    setLong(words, QUEUE.regions, this.regions.table.address);
    setLong(words, QUEUE.contexts, this.contexts.table.address);
    setLong(words, QUEUE.jobs, this.jobs.address);
    setLong(words, QUEUE.works, this.works.address);
    setLong(words, QUEUE.scratch, this.scratch.address);
    setLong(words, QUEUE.state, this.state.address);
    setLong(words, QUEUE.scratchLen, SCRATCH_LEN);
    words[QUEUE.contextCount / 4] = this.contexts.capacity;
    words[QUEUE.jobCount / 4] = CAPACITY + 1;
  }

  get count(): number {
    return this.#count;
  }

  run(): void {
    const count = this.#count;
    if (count === 0) return;
    this.#count = 0;
    this.#run(0, count);
    this.regions.trim();
    while (this.#condemned.length > 0) this.#end(this.#condemned.pop()!);
  }

  ok(job: number): boolean {
    assert(job >= 0 && job < CAPACITY && this.#count === 0, 'a job of the last run');
    return this.#status(job) === layout.STATUS_OK;
  }

  countOk(job: number, count: number): number {
    assert(job >= 0 && job + count <= CAPACITY && this.#count === 0, 'jobs of the last run');
    const words = this.#words;
    const from = job * JOB_WORDS + JOB.status / 4;
    let done = 0;
    while (done < count && words[from + done * JOB_WORDS] === layout.STATUS_OK) done++;
    return done;
  }

  /** Notes an ESP job down; returns its number. */
  espLater(
    op: number,
    context: NativeContext,
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
  ): number {
    const job = this.#next();
    if (p.length > SMALL_MAX) {
      checkEsp(op, context, p, at, end);
      this.#write(job, op, context.index, this.regions.numberOf(p), at, end, seqHigh);
    } else {
      this.#settled(job, this.esp(op, context, p, at, end, seqHigh));
    }
    this.#count = job + 1;
    return job;
  }

  /** Notes ESP jobs down for packets `from` to `from + count`; returns the number of the first. */
  espRowLater(
    op: number,
    context: NativeContext,
    packets: readonly JobPacket[],
    from: number,
    count: number,
    by: number,
    len: number,
    seqHigh: number,
  ): number {
    const first = this.#count;
    assert(count >= 0 && first + count <= CAPACITY, 'the queue has room for a row');
    const wholeLen = checkEspLen(op, context, len);
    let p: Uint8Array | undefined;
    let region = 0;
    for (let k = 0; k < count; k++) {
      const { bytes, at } = packets[from + k]!;
      const espAt = at + by;
      assert(espAt >= 0 && espAt + wholeLen <= bytes.length, 'a job lies in its array');
      if (bytes !== p) {
        if (bytes.length <= SMALL_MAX) {
          const status = this.esp(op, context, bytes, espAt, espAt + len, seqHigh);
          this.#settled(first + k, status);
          continue;
        }
        p = bytes;
        region = this.regions.numberOf(p);
      }
      this.#write(first + k, op, context.index, region, espAt, espAt + len, seqHigh);
    }
    this.#count = first + count;
    return first;
  }

  /** Does an ESP job at once; returns STATUS_*. */
  esp(
    op: number,
    context: NativeContext,
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
  ): number {
    checkEsp(op, context, p, at, end);
    const q = p.length > SMALL_MAX ? p : this.#lend(0, p);
    this.#write(AT_ONCE, op, context.index, this.regions.numberAtOnce(q, 0), at, end, seqHigh);
    return this.#runOne(p, q);
  }

  /** Notes an AH job down; returns its number. */
  ahLater(
    op: number,
    context: NativeContext,
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): number {
    const job = this.#next();
    if (p.length > SMALL_MAX && icv.length > SMALL_MAX) {
      checkAh(context, p, at, end, icv, icvAt);
      this.#write(job, op, context.index, this.regions.numberOf(p), at, end, seqHigh);
      this.#writeIcv(job, this.regions.numberOf(icv), icvAt);
    } else {
      this.#settled(job, this.ah(op, context, p, at, end, seqHigh, icv, icvAt));
    }
    this.#count = job + 1;
    return job;
  }

  /** Does an AH job at once; returns STATUS_*. */
  ah(
    op: number,
    context: NativeContext,
    p: Uint8Array,
    at: number,
    end: number,
    seqHigh: number,
    icv: Uint8Array,
    icvAt: number,
  ): number {
    checkAh(context, p, at, end, icv, icvAt);
    const q = p.length > SMALL_MAX ? p : this.#lend(0, p);
    const field = icv.length > SMALL_MAX ? icv : this.#lend(1, icv);
    this.#write(AT_ONCE, op, context.index, this.regions.numberAtOnce(q, 0), at, end, seqHigh);
    this.#writeIcv(AT_ONCE, this.regions.numberAtOnce(field, 1), icvAt);
    return this.#runOne(icv, field);
  }

  /** Frees and zeroes a context, at the latest when the jobs that wait are done. */
  release(context: NativeContext): void {
    if (this.#count > 0) this.#condemned.push(context);
    else this.#end(context);
  }

  #end(context: NativeContext): void {
    this.#free(context);
    this.contexts.give(context);
    // Hash states, GCM states, tags and last blocks of whoever was here.
    this.state.bytes.fill(0);
    this.works.bytes.fill(0);
  }

  /** The number of the next job, which counts when it is written. */
  #next(): number {
    assert(this.#count < CAPACITY, 'the queue has room: whoever fills it runs it in time');
    return this.#count;
  }

  #status(job: number): number {
    return this.#words[job * JOB_WORDS + JOB.status / 4]!;
  }

  /** A job that is done already. */
  #settled(job: number, status: number): void {
    this.#words[job * JOB_WORDS + JOB.op / 4] = layout.OP_NONE;
    this.#words[job * JOB_WORDS + JOB.status / 4] = status;
  }

  /** A copy of a small array in memory that does not move. */
  #lend(which: 0 | 1, bytes: Uint8Array): Uint8Array {
    this.#lent[which].set(bytes);
    return this.#lent[which];
  }

  /** Gives back what was written to a copy of `own`. */
  #runOne(own: Uint8Array, used: Uint8Array): number {
    this.#run(AT_ONCE, 1);
    if (own !== used) {
      own.set(used.subarray(0, own.length));
      used.fill(0);
    }
    return this.#status(AT_ONCE);
  }

  #run(from: number, count: number): void {
    this.self.words[QUEUE.regionCount / 4] = this.regions.count;
    this.#runner(this, from, count);
  }

  /** `context`, `region`: their numbers. */
  #write(
    job: number,
    op: number,
    context: number,
    region: number,
    at: number,
    end: number,
    seqHigh: number,
  ): void {
    const words = this.#words;
    const i = job * JOB_WORDS;
    words[i + JOB.op / 4] = op;
    words[i + JOB.context / 4] = context;
    words[i + JOB.region / 4] = region;
    words[i + JOB.at / 4] = at;
    words[i + JOB.end / 4] = end;
    words[i + JOB.seqHigh / 4] = seqHigh;
    words[i + JOB.extended / 4] = seqHigh === -1 ? 0 : 1;
    words[i + JOB.status / 4] = layout.STATUS_NEW;
  }

  #writeIcv(job: number, region: number, icvAt: number): void {
    this.#words[job * JOB_WORDS + JOB.icvRegion / 4] = region;
    this.#words[job * JOB_WORDS + JOB.icvAt / 4] = icvAt;
  }
}

function checkEsp(
  op: number,
  context: NativeContext,
  p: Uint8Array,
  at: number,
  end: number,
): void {
  const wholeLen = checkEspLen(op, context, end - at);
  assert(at >= 0 && at + wholeLen <= p.length, 'a job lies in its array');
}

/** Checks `end - at` of a job; returns its octets with those of the ICV. */
function checkEspLen(op: number, context: NativeContext, len: number): number {
  const { ivLen, icvLen } = context;
  const wholeLen = op === layout.OP_SEAL ? len + icvLen : len;
  assert(len <= JOB_LEN_MAX, 'a job is no longer than a packet');
  const textLen = wholeLen - icvLen - ESP_HEADER_LEN - ivLen;
  assert(textLen >= 0, 'a job has a header, an IV and an ICV');
  if (context.cipher !== layout.CIPHER_CBC) return wholeLen;
  assert(textLen > 0 && textLen % context.blockLen === 0, 'CBC text is whole blocks');
  return wholeLen;
}

function checkAh(
  context: NativeContext,
  p: Uint8Array,
  at: number,
  end: number,
  icv: Uint8Array,
  icvAt: number,
): void {
  assert(at >= 0 && at <= end && end <= p.length, 'a job lies in its array');
  assert(end - at <= JOB_LEN_MAX, 'a job is no longer than a packet');
  const icvEnd = icvAt + context.ivLen + context.icvLen;
  assert(icvAt >= 0 && icvEnd <= icv.length, 'the ICV lies in its array');
}
