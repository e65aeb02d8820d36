/** What the watching thread and the one that runs inputs tell each other. */
export interface Order {
  readonly seed: number;
  readonly names: readonly string[];
  readonly seconds: number;
  readonly shared: SharedArrayBuffer;
}

export type Report =
  | {
      readonly kind: 'turn';
      readonly target: string;
      readonly execs: number;
      readonly ms: number;
      readonly corpus: number;
      readonly signatures: number;
    }
  | {
      readonly kind: 'crash';
      readonly target: string;
      readonly key: string;
      readonly stack: string;
      readonly inputs: readonly string[];
    }
  | { readonly kind: 'corpus'; readonly target: string; readonly inputs: readonly string[] };

const INPUT_MAX = 65_536;
const HEAD_LEN = 12;

/**
 * The input that is being run, in memory of both threads: a thread that hangs can tell nothing any
 * more.
 */
export class Watched {
  readonly shared: SharedArrayBuffer;
  readonly #head: Int32Array;
  readonly #octets: Uint8Array;

  constructor(shared = new SharedArrayBuffer(HEAD_LEN + INPUT_MAX)) {
    this.shared = shared;
    this.#head = new Int32Array(shared, 0, 3);
    this.#octets = new Uint8Array(shared, HEAD_LEN);
  }

  name(index: number): void {
    this.#head[2] = index;
  }

  note(input: Uint8Array): void {
    this.#head[1] = input.length;
    this.#octets.set(input);
    Atomics.add(this.#head, 0, 1);
  }

  /** How many inputs were begun. */
  get begun(): number {
    return Atomics.load(this.#head, 0);
  }

  get current(): { target: number; input: Uint8Array } {
    return { target: this.#head[2]!, input: this.#octets.slice(0, this.#head[1]!) };
  }
}
