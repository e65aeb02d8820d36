import type { EspTransform, JobQueue } from '../crypto/transform.ts';
import type { Sa } from '../sad/sa.ts';
import type { Packet } from '../wire/packet.ts';
import { seqHigh } from './esp.ts';
import { BATCH_MAX, type Flight } from './flight.ts';

/** Instead of the number of a job: it was done at once, and this is how it went. */
const WENT_WELL = -1;
const WENT_WRONG = -2;

/**
 * The ESP jobs of one round of a batch: noted down, and done together by `run` where the provider
 * can do that, else at once.
 */
export class CryptoRound {
  #queue: JobQueue | undefined;
  /** Of packets that follow others, by their place in the batch: the numbers of their jobs. */
  readonly #rowJobs = new Int32Array(BATCH_MAX);

  /** The packet of a flight, and those of the batch that are in its row. */
  seal(flight: Flight, sa: Sa, packets: readonly Packet[]): void {
    const esp = sa.spec.esp!;
    const { packet, jobAt, jobEnd, seq, rowLen } = flight;
    flight.jobOk = true;
    flight.jobs = this.#takes(esp.queue, rowLen) ? rowLen : 0;
    if (rowLen > 1) this.#sealRow(flight, esp, sa, packets);
    else if (flight.jobs === 0) esp.seal(packet.bytes, jobAt, jobEnd, seqHigh(sa, seq));
    else flight.job = esp.sealLater!(packet.bytes, jobAt, jobEnd, seqHigh(sa, seq));
  }

  #sealRow(flight: Flight, esp: EspTransform, sa: Sa, packets: readonly Packet[]): void {
    const { packet, jobAt, jobEnd, seq, rowLen, index, jobs } = flight;
    const by = jobAt - packet.at;
    const len = jobEnd - jobAt;
    // The same for all: see `mayLead`.
    const high = seqHigh(sa, seq);
    if (jobs > 0) {
      flight.job = esp.sealRowLater!(packets, index, rowLen, by, len, high);
      return;
    }
    for (let i = index; i < index + rowLen; i++) {
      const { bytes, at } = packets[i]!;
      esp.seal(bytes, at + by, at + by + len, high);
    }
  }

  open(flight: Flight, sa: Sa): void {
    const esp = sa.spec.esp!;
    const { bytes } = flight.packet;
    const high = seqHigh(sa, flight.seq);
    flight.jobs = this.#takes(esp.queue, 1) ? 1 : 0;
    if (flight.jobs > 0) flight.job = esp.openLater!(bytes, flight.jobAt, flight.jobEnd, high);
    else flight.jobOk = esp.open(bytes, flight.jobAt, flight.jobEnd, high);
  }

  /**
   * Packets `from` to `to` of a batch, which begins at packet `base`, as that of their leader is
   * opened. `seqs`: their sequence numbers.
   */
  openRow(
    leader: Flight,
    packets: readonly Packet[],
    base: number,
    from: number,
    to: number,
    seqs: Float64Array,
  ): void {
    const sa = leader.sa!;
    const esp = sa.spec.esp!;
    const isLater = this.#takes(esp.queue, to - from);
    const { jobBy: by, jobLen: len } = leader;
    const jobs = this.#rowJobs;
    for (let i = from; i < to; ) {
      const high = seqHigh(sa, seqs[i]!);
      const end = high < 0 ? to : endOfHigh(sa, seqs, i, to, high);
      if (isLater) {
        let job = esp.openRowLater!(packets, base + i, end - i, by, len, high);
        for (; i < end; i++) jobs[i] = job++;
      } else {
        for (; i < end; i++) {
          const { bytes, at } = packets[base + i]!;
          const isOk = esp.open(bytes, at + by, at + by + len, high);
          jobs[i] = isOk ? WENT_WELL : WENT_WRONG;
        }
      }
    }
  }

  /** Packet `i` of a row has got a flight after all: leaves in it what is known of its job. */
  assign(flight: Flight, i: number): void {
    const job = this.#rowJobs[i]!;
    flight.jobs = job >= 0 ? 1 : 0;
    flight.job = job;
    flight.jobOk = job === WENT_WELL;
  }

  /** Does what waits; `settle` then tells how it went, until the next round begins. */
  run(): void {
    this.#queue?.run();
  }

  /** Leaves in the flight whether its jobs went well. */
  settle(flight: Flight): void {
    const { job, jobs } = flight;
    if (jobs > 0) flight.jobOk = this.#queue!.countOk(job, jobs) === jobs;
  }

  /** How many of packets `from` to `to` of a row went well before the first that did not. */
  countOk(from: number, to: number): number {
    const jobs = this.#rowJobs;
    if (jobs[from]! >= 0) return this.#queue!.countOk(jobs[from]!, to - from);
    let i = from;
    while (i < to && jobs[i] === WENT_WELL) i++;
    return i - from;
  }

  /** SAs of one host share a queue; whoever comes with another one is served at once. */
  #takes(queue: JobQueue | undefined, jobs: number): boolean {
    if (queue === undefined) return false;
    if (this.#queue === undefined || this.#queue.count === 0) this.#queue = queue;
    return this.#queue === queue && queue.count + jobs <= queue.capacity;
  }
}

/** How far the sequence numbers have one high half. */
function endOfHigh(sa: Sa, seqs: Float64Array, from: number, to: number, high: number): number {
  let end = from + 1;
  while (end < to && seqHigh(sa, seqs[end]!) === high) end++;
  return end;
}
