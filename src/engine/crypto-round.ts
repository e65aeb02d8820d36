import type { JobQueue } from '../crypto/transform.ts';
import type { Sa } from '../sad/sa.ts';
import { seqHigh } from './esp.ts';
import type { Flight } from './flight.ts';

/** The job of a flight that needed no queue. */
const AT_ONCE = -1;

/**
 * The ESP jobs of one round of a batch: noted down one by one, and done together by `run` where the
 * provider can do that, else at once.
 */
export class CryptoRound {
  #queue: JobQueue | undefined;

  seal(flight: Flight, sa: Sa): void {
    const esp = sa.spec.esp!;
    const { bytes } = flight.packet;
    const high = seqHigh(sa, flight.seq);
    if (this.#takes(esp.queue)) {
      flight.job = esp.sealLater!(bytes, flight.jobAt, flight.jobEnd, high);
      return;
    }
    flight.job = AT_ONCE;
    esp.seal(bytes, flight.jobAt, flight.jobEnd, high);
    flight.jobOk = true;
  }

  open(flight: Flight, sa: Sa): void {
    const esp = sa.spec.esp!;
    const { bytes } = flight.packet;
    const high = seqHigh(sa, flight.seq);
    if (this.#takes(esp.queue)) {
      flight.job = esp.openLater!(bytes, flight.jobAt, flight.jobEnd, high);
      return;
    }
    flight.job = AT_ONCE;
    flight.jobOk = esp.open(bytes, flight.jobAt, flight.jobEnd, high);
  }

  /** Does what waits; `settle` then tells how it went, until the next round begins. */
  run(): void {
    this.#queue?.run();
  }

  /** Leaves in the flight whether its job went well. */
  settle(flight: Flight): void {
    if (flight.job !== AT_ONCE) flight.jobOk = this.#queue!.ok(flight.job);
  }

  /** SAs of one host share a queue; whoever comes with another one is served at once. */
  #takes(queue: JobQueue | undefined): boolean {
    if (queue === undefined) return false;
    if (this.#queue === undefined || this.#queue.count === 0) this.#queue = queue;
    return this.#queue === queue && queue.count < queue.capacity;
  }
}
