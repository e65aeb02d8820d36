import type { EspTransform, JobQueue } from '../crypto/transform.ts';
import type { Sa } from '../sad/sa.ts';
import type { Packet } from '../wire/packet.ts';
import { seqHigh } from './esp.ts';
import type { Flight } from './flight.ts';

/**
 * The ESP jobs of one round of a batch: noted down one by one, and done together by `run` where the
 * provider can do that, else at once.
 */
export class CryptoRound {
  #queue: JobQueue | undefined;

  /** The packet of a flight, and those of the batch that are in its row. */
  seal(flight: Flight, sa: Sa, packets: readonly Packet[]): void {
    const esp = sa.spec.esp!;
    const { packet, jobAt, jobEnd, seq, rowLen, index } = flight;
    const isLater = this.#takes(esp.queue, rowLen);
    flight.jobs = isLater ? rowLen : 0;
    flight.job = seal(esp, isLater, packet.bytes, jobAt, jobEnd, seqHigh(sa, seq));
    for (let k = 1; k < rowLen; k++) {
      const { bytes, at } = packets[index + k]!;
      const by = at - packet.at;
      seal(esp, isLater, bytes, jobAt + by, jobEnd + by, seqHigh(sa, seq + k));
    }
    flight.jobOk = true;
  }

  open(flight: Flight, sa: Sa): void {
    const esp = sa.spec.esp!;
    const { bytes } = flight.packet;
    const high = seqHigh(sa, flight.seq);
    flight.jobs = this.#takes(esp.queue, 1) ? 1 : 0;
    if (flight.jobs > 0) flight.job = esp.openLater!(bytes, flight.jobAt, flight.jobEnd, high);
    else flight.jobOk = esp.open(bytes, flight.jobAt, flight.jobEnd, high);
  }

  /** Does what waits; `settle` then tells how it went, until the next round begins. */
  run(): void {
    this.#queue?.run();
  }

  /** Leaves in the flight whether its jobs went well. */
  settle(flight: Flight): void {
    const { job, jobs } = flight;
    if (jobs === 0) return;
    flight.jobOk = true;
    for (let i = job; i < job + jobs; i++) if (!this.#queue!.ok(i)) flight.jobOk = false;
  }

  /** SAs of one host share a queue; whoever comes with another one is served at once. */
  #takes(queue: JobQueue | undefined, jobs: number): boolean {
    if (queue === undefined) return false;
    if (this.#queue === undefined || this.#queue.count === 0) this.#queue = queue;
    return this.#queue === queue && queue.count + jobs <= queue.capacity;
  }
}

/** The number of the job, if it is done later. */
function seal(
  esp: EspTransform,
  isLater: boolean,
  p: Uint8Array,
  at: number,
  end: number,
  high: number,
): number {
  if (isLater) return esp.sealLater!(p, at, end, high);
  esp.seal(p, at, end, high);
  return 0;
}
