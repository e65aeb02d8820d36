import type { Address } from '../base/address.ts';

/** A datagram that arrived, and from where. */
export interface Datagram {
  readonly data: Uint8Array;
  readonly from: Address;
  readonly port: number;
}

/** Beside the number of datagrams, so that large ones take no more room than many. */
const OCTETS_MAX = 262_144;

/** What a socket has got and its program has not read yet: a bounded queue, the newest is lost. */
export class DatagramQueue {
  /** How many found no room. */
  lost = 0;
  readonly #max: number;
  readonly #waiting: Datagram[] = [];
  #octets = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Keeps a copy. */
  push({ data, from, port }: Datagram): void {
    if (this.#waiting.length >= this.#max || this.#octets + data.length > OCTETS_MAX) {
      this.lost++;
      return;
    }
    this.#waiting.push({ data: data.slice(), from, port });
    this.#octets += data.length;
  }

  shift(): Datagram | undefined {
    const first = this.#waiting.shift();
    if (first) this.#octets -= first.data.length;
    return first;
  }
}
