/** Something that takes octets from outside. */
export interface Target {
  readonly name: string;
  /** Octets that are worth beginning with. Not empty. */
  readonly seeds: () => Uint8Array[];
  /** Pieces that mutations put in. */
  readonly words?: readonly Uint8Array[];
  /** Longest input, in octets. */
  readonly lenMax: number;
  /**
   * A fresh one. What it returns takes one input, and throws if that did any harm: everything it
   * throws is a crash.
   */
  readonly create: () => (input: Uint8Array) => void;
}

/** A broken invariant. */
export function must(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`broken invariant: ${message}`);
}
